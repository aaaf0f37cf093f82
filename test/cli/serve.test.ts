/** `vmchannel serve` and the commands that steer it, with real QEMU but no guest; doctor and udev on this machine. */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ensureOldQemu } from '../../lab/fetch/old-qemu.ts'
import { ensureQemu } from '../../lab/fetch/qemu.ts'
import type { PortInfo } from '../../src/daemon/protocol.ts'
import { HELPER_SCRIPT } from '../../src/udev/helper.ts'
import { Bench, collect, until, type Result } from './run.ts'

let bench: Bench
beforeEach(() => {
  bench = new Bench()
})
afterEach(() => bench.close())

interface Served {
  child: ChildProcess
  ended: Promise<Result>
  info: { pid: number; control: string; vms: { vm: string; socket: string; qemuArgs: string[] }[] }
}

async function serve(args: readonly string[], env: Record<string, string> = {}): Promise<Served> {
  const child = bench.start(['serve', '--json', ...args], { env })
  let text = ''
  child.stdout!.on('data', (chunk) => (text += String(chunk)))
  const ended = collect(child)
  await until('it is ready', () => text.includes('\n') || child.exitCode !== null)
  if (child.exitCode !== null) throw new Error((await ended).stderr)
  return { child, ended, info: JSON.parse(text) as Served['info'] }
}

const list = async (...args: string[]): Promise<PortInfo[]> =>
  JSON.parse((await bench.run(['port', 'list', '--json', ...args])).stdout) as PortInfo[]

describe('serve', () => {
  it('prints arguments with which QEMU starts; QEMU may come and go', async () => {
    const qemu = (await ensureQemu()).path
    const { child, ended, info } = await serve(['--port', `unix:${bench.path('a.sock')}`, '--memory', '96M'])
    expect(info.vms).toMatchObject([{ vm: 'vm0', socket: `${bench.state}/serve-vm0/vm0.vfio.sock` }])
    expect(statSync(info.control).mode & 0o777).toBe(0o600)
    for (let round = 0; round < 2; round++) {
      const machine = spawn(qemu, ['-S', '-display', 'none', '-nodefaults', '-qmp', 'stdio', ...info.vms[0]!.qemuArgs])
      let said = ''
      machine.stdout.on('data', (chunk) => (said += String(chunk)))
      machine.stderr.on('data', (chunk) => (said += String(chunk)))
      machine.stdin.write('{"execute":"qmp_capabilities"}{"execute":"query-memory-size-summary"}{"execute":"quit"}\n')
      expect(await new Promise((done) => machine.once('exit', done))).toBe(0)
      expect(said).toContain(`"base-memory": ${96 * 2 ** 20}`)
    }
    child.kill('SIGTERM')
    expect(await ended).toMatchObject({ status: 0, signal: null, stderr: '' })
    expect(existsSync(bench.path('a.sock'))).toBe(false)
    expect(readdirSync(bench.state)).toEqual([])
  })

  it('--transport usernet: arguments for any QEMU', async () => {
    for (const qemu of [(await ensureQemu()).path, (await ensureOldQemu()).path]) {
      const { child, ended, info } = await serve(['--port', 'null,name=a', '--transport', 'usernet'])
      expect(info.vms[0]).toMatchObject({ transport: 'usernet', socket: `${bench.state}/serve-vm0/vm0.usernet.sock` })
      const events = bench.start(['port', 'list', '--json'])
      expect(JSON.parse((await collect(events)).stdout)).toMatchObject([{ name: 'a', guestReady: false }])
      const machine = spawn(qemu, ['-S', '-display', 'none', '-nodefaults', '-qmp', 'stdio', ...info.vms[0]!.qemuArgs])
      let said = ''
      for (const stream of [machine.stdout, machine.stderr]) stream.on('data', (chunk) => (said += String(chunk)))
      machine.stdin.write('{"execute":"qmp_capabilities"}{"execute":"query-status"}{"execute":"quit"}\n')
      expect(await new Promise((done) => machine.once('exit', done)), said).toBe(0)
      child.kill('SIGTERM')
      expect(await ended).toMatchObject({ status: 0, stderr: '' })
    }
  })

  it('for people: one option a line, to be pasted into a shell', async () => {
    const child = bench.start(['serve', '--port', 'null'])
    let text = ''
    child.stdout!.on('data', (chunk) => (text += String(chunk)))
    await until('the arguments', () => text.endsWith('\n'))
    const words = execFileSync('sh', ['-c', `for word in ${text.trim()}; do printf '%s\\n' "$word"; done`], {
      encoding: 'utf8',
    })
    expect(words.split('\n').slice(0, 2)).toEqual(['-m', '512M'])
    expect(JSON.parse(words.split('\n').find((word) => word.startsWith('{'))!)).toMatchObject({
      driver: 'vfio-user-pci',
    })
  })

  it('ends at SIGINT, and when it is killed its device process does as well', async () => {
    const first = await serve(['--port', 'null'])
    first.child.kill('SIGINT')
    expect((await first.ended).status).toBe(0)
    const second = await serve(['--port', `unix:${bench.path('b.sock')}`])
    second.child.kill('SIGKILL')
    await second.ended
    await until('all is gone', () => readdirSync(bench.state).length === 0 && !existsSync(bench.path('b.sock')))
  })

  it('a device process that is killed, and has no supervisor, is reported', async () => {
    const { info, ended } = await serve(['--port', 'null', '--keeper', 'off'])
    process.kill(info.pid, 'SIGKILL')
    const { status, stderr } = await ended
    expect(status).toBe(11)
    expect(stderr).toContain('has ended by itself (SIGKILL)')
  })

  it('tells systemd that it is ready', async ({ skip }) => {
    // Node has no unix datagram sockets: Python, where there is one, plays systemd.
    const path = bench.path('notify')
    const script = `import socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind('${path}'); print('up', flush=True); print(s.recv(4096).decode(), end='', flush=True)`
    const manager = spawn('python3', ['-c', script])
    const missing = await new Promise((done) => {
      manager.once('error', () => done(true))
      manager.stdout.once('data', () => done(false))
    })
    if (missing) skip('no python3 here to receive datagrams')
    let text = ''
    manager.stdout.on('data', (chunk) => (text += String(chunk)))
    const { info } = await serve(['--port', 'null'], { NOTIFY_SOCKET: path })
    await until('the datagram', () => text.includes('STATUS'))
    expect(text.trimStart()).toBe(`READY=1\nSTATUS=vm0: ${info.vms[0]!.socket}\n`)
  })

  it('several VMs of a file', async () => {
    writeFileSync(
      bench.path('c.toml'),
      '[[vm]]\nname = "a"\nports = ["null,name=one"]\n[[vm]]\nname = "b"\nports = ["null,name=two"]\n',
    )
    await serve(['--config', bench.path('c.toml')])
    expect((await list()).map(({ vm, name }) => [vm, name])).toEqual([
      ['a', 'one'],
      ['b', 'two'],
    ])
    expect((await list('--vm', 'b')).map(({ name }) => name)).toEqual(['two'])
    const unclear = await bench.run(['port', 'add', 'null'])
    expect(unclear).toMatchObject({ status: 2 })
    expect(unclear.stderr).toContain('which one?')
    expect((await bench.run(['port', 'add', 'null', '--vm', 'b', '--json'])).status).toBe(0)
    expect(await list('--vm', 'b')).toHaveLength(2)
  })
})

describe('port', () => {
  it('--control and VMCHANNEL_CONTROL lead to a device that is not in the usual place', async () => {
    const control = bench.path('control.sock')
    await serve(['--port', 'null,name=x', '--control', control, '--state-dir', bench.path('elsewhere')])
    expect((await bench.run(['port', 'list'])).status).toBe(5)
    expect(await list('--control', control)).toMatchObject([{ name: 'x' }])
    const { stdout } = await bench.run(['port', 'list', '--json'], { env: { VMCHANNEL_CONTROL: control } })
    expect(JSON.parse(stdout)).toMatchObject([{ name: 'x' }])
    expect((await bench.run(['port', 'list', '--control', bench.path('none')])).status).toBe(5)
  })

  it('errors of the device process come through with their status', async () => {
    await serve(['--port', `unix:${bench.path('a.sock')},name=x`, '--max-ports', '4'])
    const run = (...args: string[]): Promise<Result> => bench.run(['port', ...args])
    expect((await run('add', 'null,nr=9')).status).toBe(6)
    expect((await run('add', 'null,name=x')).status).toBe(4)
    expect((await run('add', 'null,nr=1')).status).toBe(4)
    expect((await run('add', `unix:${bench.path('a.sock')}`)).status).toBe(4)
    expect((await run('add', 'unix:/no/such/dir/a')).status).toBe(3)
    const missing = await run('remove', 'y')
    expect(missing.status).toBe(5)
    expect(missing.stderr).toContain('it has: 1 (x)')
    expect((await run('resize', 'x', '80x24')).status).toBe(6)
    expect((await run('stats', '7')).status).toBe(5)
    expect((await bench.run(['connect', 'y'])).status).toBe(5)
  })

  it('stats: a table, all counters of one, --watch as lines of JSON', async () => {
    await serve(['--port', 'null,name=x', '--port', 'null,console=on'])
    const table = await bench.run(['port', 'stats'])
    expect(table.stdout).toMatch(/^VM +PORT +NAME +TO HOST/)
    expect(table.stdout.trim().split('\n')).toHaveLength(3)
    const one = await bench.run(['port', 'stats', 'x'])
    expect(one.stdout).toMatch(/^guestToHostDropped +0$/m)
    const child = bench.start(['port', 'stats', '--watch', '--json'])
    let text = ''
    child.stdout!.on('data', (chunk) => (text += String(chunk)))
    await until('two lines', () => text.split('\n').length > 2)
    for (const line of text.trim().split('\n')) expect(JSON.parse(line)).toHaveLength(2)
  })

  it('connect refuses what nobody can connect to', async () => {
    await serve(['--port', 'null,name=x', '--port', `file:${bench.path('out')},name=y`])
    for (const name of ['x', 'y']) {
      const { status, stderr } = await bench.run(['connect', name])
      expect(status).toBe(6)
      expect(stderr).toContain('nothing to connect to')
    }
  })

  it('connect ends when the port goes, and when the device process does', async () => {
    const { child } = await serve(['--port', 'attach,name=x', '--port', 'tcp:127.0.0.1:0,name=t'])
    for (const name of ['x', 't']) {
      const ended = collect(bench.start(['connect', name]))
      await until('connected', async () => (await list()).find((port) => port.name === name)?.hostConnected)
      if (name === 'x') await bench.run(['port', 'remove', 'x'])
      else child.kill('SIGTERM')
      expect(await ended).toEqual({ status: 0, signal: null, stdout: '', stderr: '' })
    }
  })
})

describe('doctor', () => {
  it('with a good QEMU: VMs can run', async () => {
    const env = { VMCHANNEL_QEMU: (await ensureQemu()).path }
    const { status, stdout } = await bench.run(['doctor', '--json'], { env })
    const { ok, checks } = JSON.parse(stdout) as {
      ok: boolean
      checks: { check: string; status: string; found: string; advice: string | null }[]
    }
    expect({ ok, status }).toEqual({ ok: true, status: 0 })
    const names = [
      'Node',
      'system',
      'native calls',
      'shared memory',
      'QEMU',
      'KVM',
      'state directory',
      'open files',
      'guest names',
    ]
    expect(checks.map(({ check }) => check)).toEqual(names)
    for (const check of checks) {
      expect(['ok', 'warn']).toContain(check.status)
      if (check.status === 'warn') expect(check.advice).toMatch(/\w{3}/)
    }
    const text = await bench.run(['doctor'], { env })
    expect(text.stdout).toMatch(/^ ok {3}Node {2,}Node \d+/)
    expect(text.stdout).toContain('VMs can run here')
  })

  it('with a QEMU that has no vfio-user-pci: what carries ports then, and what does not go', async () => {
    const { path } = await ensureOldQemu()
    const { status, stdout } = await bench.run(['doctor', '--qemu-binary', path])
    const text = stdout.replaceAll(/\s+/g, ' ')
    expect(text).toMatch(/ warn QEMU QEMU 7\.2\.\d+ at \S+ is too old/)
    expect(text).toContain(`carried by QEMU's own device (which transport=auto takes) or user networking`)
    expect(text).toMatch(/"inspect" and the library need our device: install QEMU 10\.1 or later.* VMs can run here/)
    expect(status).toBe(0)
  })

  it('says what is wrong, and what to do', async () => {
    mkdirSync(bench.state, { mode: 0o777 })
    execFileSync('chmod', ['777', bench.state])
    const { status, stdout } = await bench.run(['doctor'], {
      env: { VMCHANNEL_QEMU: bench.fakeQemu({ version: '7.2.0' }) },
    })
    expect(status).toBe(9)
    expect(stdout).toMatch(/^FAIL {2}QEMU +QEMU 7\.2\.0 .*too old/m)
    expect(stdout).toMatch(/^FAIL {2}state directory +/m)
    expect(stdout.replaceAll(/\s+/g, ' ')).toMatch(/install QEMU 10\.1 or later.* others may write to it/)
    expect(stdout).toContain('VMs cannot run here')
  })
})

/** Every file below, with its mode and text. */
function tree(root: string): Record<string, string> {
  const paths = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter((path) =>
    statSync(`${root}/${path}`).isFile(),
  )
  return Object.fromEntries(
    paths.map((path) => [
      path,
      `${(statSync(`${root}/${path}`).mode & 0o777).toString(8)} ${readFileSync(`${root}/${path}`, 'utf8')}`,
    ]),
  )
}

describe('udev', () => {
  it('print, install and uninstall in a tree', async () => {
    const root = bench.path('root')
    mkdirSync(`${root}/etc`, { recursive: true })
    writeFileSync(`${root}/etc/mdev.conf`, 'console 0:0 600\n')
    const run = async (...args: string[]): Promise<string> => {
      const result = await bench.run(['udev', ...args])
      expect(result).toMatchObject({ status: 0 })
      return result.stdout
    }
    await run('install', '--root', root, '--group', 'dialout')
    const rules = readFileSync(`${root}/etc/udev/rules.d/70-vmchannel.rules`, 'utf8')
    expect(rules).toContain('GROUP="dialout", MODE="0660"')
    expect(await run('print', '--part', 'rules', '--group', 'dialout')).toBe(rules)
    const helper = `${root}/usr/local/lib/vmchannel/vmch-port`
    expect(readFileSync(helper, 'utf8')).toBe(HELPER_SCRIPT)
    expect(statSync(helper).mode & 0o777).toBe(0o755)
    const again = JSON.parse(await run('install', '--root', root, '--group', 'dialout', '--json')) as {
      changes: { action: string }[]
    }
    expect(again.changes.map(({ action }) => action)).toEqual(['unchanged', 'unchanged'])
    await run('install', '--root', root, '--mdev')
    const conf = readFileSync(`${root}/etc/mdev.conf`, 'utf8')
    expect(conf).toBe(`${await run('print', '--mdev', '--part', 'mdev.conf')}console 0:0 600\n`)
    await run('install', '--root', root, '--mdev')
    expect(readFileSync(`${root}/etc/mdev.conf`, 'utf8')).toBe(conf)
    await run('uninstall', '--root', root)
    expect(readFileSync(`${root}/etc/mdev.conf`, 'utf8')).toBe('console 0:0 600\n')
    expect(existsSync(helper)).toBe(false)
    expect(existsSync(`${root}/etc/udev/rules.d/70-vmchannel.rules`)).toBe(false)
  })

  it.each([[false], [true]])('the installer that print makes does the same as install (mdev: %s)', async (mdev) => {
    const [one, two] = [bench.path('one'), bench.path('two')]
    for (const root of [one, two]) mkdirSync(`${root}/etc`, { recursive: true })
    const flags = mdev ? ['--mdev'] : []
    await bench.run(['udev', 'install', '--root', one, ...flags])
    const script = (await bench.run(['udev', 'print', ...flags])).stdout
    for (let round = 0; round < 2; round++) execFileSync('sh', ['-s', '--', '--root', two], { input: script })
    expect(tree(two)).toEqual(tree(one))
  })

  it('refuses what is no group, no mode, no tree', async () => {
    for (const [args, status, expected] of [
      [['print', '--group', 'a"b'], 2, '--group'],
      [['print', '--mode', '999'], 2, '--mode'],
      [['install', '--root', '/no/such/root'], 5, 'no such directory'],
    ] as const) {
      const result = await bench.run(['udev', ...args])
      expect(result.status).toBe(status)
      expect(result.stderr).toContain(expected)
    }
  })
})
