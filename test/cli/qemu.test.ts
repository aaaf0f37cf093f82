/**
 * The wrapper around QEMU, with a QEMU that is a shell script where that shows more, and the real one without a guest
 * where it must be real: what is passed on, what is started, and that nothing stays.
 */
import { spawn } from 'node:child_process'
import {
  chownSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ensureQemu } from '../../lab/fetch/qemu.ts'
import { connectQmp } from '../../src/qmp/client.ts'
import { Bench, collect, DROP_IN, MAIN, until, type RunOptions } from './run.ts'

let bench: Bench
beforeEach(() => {
  bench = new Bench()
})
afterEach(() => bench.close())

const own = (script?: string): Record<string, string> => ({
  VMCHANNEL_QEMU: bench.fakeQemu(script === undefined ? {} : { script }),
  HOME: bench.folder,
})
/** What the script got. */
const ran = (): string[] => readFileSync(bench.path('ran'), 'utf8').split('\n').slice(0, -1)
const devices = (): number => (existsSync(bench.state) ? readdirSync(bench.state).length : 0)
const nothingLeft = (): Promise<unknown> => until('no device process is left', () => devices() === 0)
const SERIAL = ['-m', '128M', '-virtioserial', 'null']

describe('a run without a device of ours', () => {
  it.each([
    [['-help']],
    [['-h']],
    [['--version']],
    [['-machine', 'none', '-qmp', 'stdio']],
    [['-device', '?']],
    [['-m', '1G', 'disk.img']],
  ])('%j goes straight to QEMU', async (args) => {
    const result = await bench.run(args, { program: DROP_IN, env: own('echo out; echo err >&2; exit 7') })
    expect(result).toEqual({ status: 7, signal: null, stdout: 'out\n', stderr: 'err\n' })
    expect(ran()).toEqual(args)
    expect(existsSync(bench.state)).toBe(false)
  })

  it('arguments arrive byte for byte', async () => {
    const args = ['-m', '128M', '', ' a  b ', '"\'$x`\\', 'é€𝄞', '*', '--', '--dry-run', '--help']
    await bench.run(args, { program: DROP_IN, env: own() })
    expect(ran()).toEqual(args)
    await bench.run(['qemu', '--', '--dry-run', ...args], { env: own() })
    expect(ran()).toEqual(['--dry-run', ...args])
  })

  it('is QEMU: process id, standard input, signals', async () => {
    const child = bench.start(['qemu', '-m', '128M'], {
      env: own(`echo $$; read -r line; echo "$line"; exec sleep 60`),
    })
    const result = collect(child)
    child.stdin!.write('hello\n')
    await until(
      'it reads',
      () => existsSync(bench.path('ran')) && readFileSync(`/proc/${child.pid}/comm`, 'utf8') === 'sleep\n',
    )
    child.kill('SIGTERM')
    expect(await result).toEqual({ status: null, signal: 'SIGTERM', stdout: `${child.pid}\nhello\n`, stderr: '' })
  })

  it('keeps inherited descriptors', async () => {
    writeFileSync(bench.path('data'), 'through 7')
    const fd = openSync(bench.path('data'), 'r')
    const stdio = ['ignore', 'pipe', 'pipe', 'ignore', 'ignore', 'ignore', 'ignore', fd] as const
    const child = bench.start(['-version-of-it'], { program: DROP_IN, env: own('cat <&7'), stdio: [...stdio] })
    expect((await collect(child)).stdout).toBe('through 7')
    closeSync(fd)
  })

  it('signals that Node ignores are not ignored by QEMU', async () => {
    const { stdout } = await bench.run(['qemu', '-m', '1G'], { env: own('grep SigIgn /proc/self/status') })
    expect(stdout).toMatch(/^SigIgn:\s*0+\n$/)
  })

  it('one of itself in PATH is passed over', async () => {
    mkdirSync(bench.path('first'))
    symlinkSync(DROP_IN, bench.path('first/qemu-system-x86_64'))
    const fake = bench.fakeQemu({ script: 'echo real' })
    mkdirSync(bench.path('second'))
    symlinkSync(fake, bench.path('second/qemu-system-x86_64'))
    const env = { PATH: `${bench.path('first')}:${bench.path('second')}:${process.env['PATH']}` }
    const result = await bench.run(['-m', '1G'], { program: bench.path('first/qemu-system-x86_64'), env })
    expect(result).toMatchObject({ status: 0, stdout: 'real\n' })
  })
})

it('a QEMU that is too old gets the ports on its own device, and one line says so', async () => {
  const env = { VMCHANNEL_QEMU: bench.fakeQemu({ version: '7.2.22' }), HOME: bench.folder }
  const result = await bench.run(['qemu', ...SERIAL], { env })
  expect(result).toMatchObject({ status: 0, stdout: '' })
  expect(result.stderr).toMatch(/^vmchannel: warning: QEMU 7\.2\.22 .* own virtio-serial-pci.*\n$/)
  expect(ran()).toContain('null,id=vmchannel-c1')
  expect(existsSync(bench.state)).toBe(false)
})

describe('a run with a device of ours', () => {
  const run = (args: readonly string[], script?: string, options: RunOptions = {}) =>
    bench.run(['qemu', ...args], { ...options, env: { ...own(script), ...options.env } })

  it('gives QEMU shared memory and a socket that listens; all is gone when QEMU ends', async () => {
    const path = bench.path('a.sock')
    const script = `test -S '${path}' && echo port
for word; do case $word in '{'*) s=\${word##*'"path":"'}; s=\${s%%'"'*}; test -S "$s" && echo device; stat -c %a "$s";; esac; done
exit 3`
    const result = await run(['-m', '128M', '-virtioserial', `unix:${path}`, 'disk.img'], script)
    expect(result).toEqual({ status: 3, signal: null, stdout: 'port\ndevice\n600\n', stderr: '' })
    const args = ran()
    expect(args.slice(0, 3)).toEqual(['-m', '128M', 'disk.img'])
    expect(args).toContain('-object')
    expect(args.find((word) => word.startsWith('memory-backend-memfd'))).toContain('share=on')
    await nothingLeft()
    expect(existsSync(path)).toBe(false)
  })

  it.each(['SIGKILL', 'SIGTERM', 'SIGINT'] as const)('%s of QEMU', async (signal) => {
    const child = bench.start(['qemu', ...SERIAL], { env: own('exec sleep 60') })
    const result = collect(child)
    await until('QEMU runs', () => existsSync(bench.path('ran')))
    await until('one device process', () => devices() === 1)
    child.kill(signal)
    expect(await result).toMatchObject({ status: null, signal })
    await nothingLeft()
  })

  it('a signal while the device process starts leaves nothing', async () => {
    const child = bench.start(['qemu', '-m', '128M', '-virtioserial', `unix:${bench.path('w.sock')},wait=on`], {
      env: own(),
    })
    const result = collect(child)
    await until('the socket waits for its peer', () => existsSync(bench.path('w.sock')))
    child.kill('SIGKILL')
    await result
    await nothingLeft()
    expect(existsSync(bench.path('w.sock'))).toBe(false)
    expect(existsSync(bench.path('ran'))).toBe(false)
  })

  it('an exec that fails stops the device process: QEMU never ran', async () => {
    // As an option this has just the length that one word may have; as JSON it is longer.
    const id = 'x'.repeat(131071 - 'virtio-serial-pci,id='.length)
    const port = ['-chardev', 'null,id=c', '-device', 'virtserialport,chardev=c']
    const { status, stderr } = await run([...SERIAL, '-device', `virtio-serial-pci,id=${id}`, ...port])
    expect(status).toBe(8)
    expect(stderr).toContain('E2BIG')
    expect(existsSync(bench.path('ran'))).toBe(false)
    expect(devices()).toBe(0)
  })

  it('takes over a stale socket', async () => {
    const path = bench.path('stale.sock')
    const old = spawn(process.execPath, [
      '-e',
      `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 9))`,
    ])
    await new Promise((done) => old.once('exit', done))
    expect(existsSync(path)).toBe(true)
    expect((await run(['-m', '128M', '-virtioserial', `unix:${path}`])).status).toBe(0)
    await nothingLeft()
    expect(existsSync(path)).toBe(false)
  })

  it('names the VM after -name, or after QEMU', async () => {
    const list = `node '${MAIN}' port list --json`
    const env = { NODE: process.execPath }
    const named = await run([...SERIAL, '-name', 'guest=my vm,debug-threads=on'], list, { env })
    expect(JSON.parse(named.stdout)).toMatchObject([{ vm: 'my-vm', port: 1, chardev: 'null' }])
    const plain = await run(SERIAL, `${list}; echo $$`, { env })
    const [json, pid] = plain.stdout.trim().split('\n')
    expect(JSON.parse(json!)).toMatchObject([{ vm: `qemu-${pid}` }])
  })

  it('--state-dir and --log', async () => {
    const other = bench.path('other')
    const result = await run(['--state-dir', other, '--log=debug', ...SERIAL], `ls '${other}' | wc -l`)
    expect(result.stdout.trim()).toBe('1')
    expect(result).toMatchObject({ status: 0, stderr: '' })
    await until('nothing left', () => readdirSync(other).length === 0)
  })
})

describe('--dry-run', () => {
  const existing = [
    '-m',
    '1G',
    '-device',
    'virtio-serial-pci',
    '-chardev',
    'socket,id=c,path=/tmp/it s.sock,server=on,wait=off',
  ]
  const port = ['-device', 'virtserialport,chardev=c,name=org.example.0']

  it('prints a line that a shell reads back to the same words, and starts nothing', async () => {
    const env = own()
    const { status, stdout, stderr } = await bench.run(['qemu', '--dry-run', ...existing, ...port], { env })
    expect(status).toBe(0)
    expect(stderr).toContain('unix:/tmp/it s.sock')
    expect(stdout.split('\n')).toHaveLength(2)
    const words = await collect(spawn('sh', ['-c', `for word in ${stdout.trim()}; do printf '%s\\n' "$word"; done`]))
    const json = await bench.run(['qemu', '--dry-run', '--json', ...existing, ...port], { env })
    const plan = JSON.parse(json.stdout) as { qemu: string; args: string[] }
    const same = (word: string): string => word.replaceAll(/\d{2,}/g, 'N')
    expect(words.stdout.trim().split('\n').map(same)).toEqual([plan.qemu, ...plan.args].map(same))
    expect(existsSync(bench.path('ran'))).toBe(false)
    expect(existsSync(bench.state)).toBe(false)
  })

  it('--json has stable keys', async () => {
    const { stdout } = await bench.run(['qemu', '--dry-run', '--json', ...existing, ...port], { env: own() })
    expect(JSON.parse(stdout)).toEqual({
      qemu: bench.path('qemu'),
      args: expect.any(Array),
      passThrough: null,
      devices: [
        {
          id: expect.any(String),
          vm: expect.stringMatching(/^qemu-\d+$/),
          origin: '-device virtio-serial-pci',
          transport: 'vfio-user',
          socket: expect.stringMatching(/\.vfio\.sock$/),
          maxPorts: 31,
          ports: [expect.stringMatching(/^unix:\/tmp\/it s\.sock,.*name=org\.example\.0/)],
        },
      ],
      warnings: [],
    })
    const alone = await bench.run(['qemu', '--dry-run', '--json', '-version'], { env: own() })
    expect(JSON.parse(alone.stdout)).toMatchObject({ args: ['-version'], passThrough: '-version', devices: [] })
  })
})

describe('real QEMU without a guest', () => {
  it('-daemonize: the caller is free, the device stays until QEMU ends', async () => {
    const qemu = (await ensureQemu()).path
    const pidfile = bench.path('pid')
    const path = bench.path('a.sock')
    const args = ['-m', '64M', '-S', '-display', 'none', '-daemonize', '-pidfile', pidfile, '-nodefaults']
    // To the end of standard error: nobody holds it open.
    const result = await bench.run(['qemu', '--qemu-binary', qemu, ...args, '-virtioserial', `unix:${path}`])
    expect(result).toMatchObject({ status: 0, stderr: '' })
    const pid = Number(readFileSync(pidfile, 'utf8'))
    try {
      const { stdout } = await bench.run(['port', 'list', '--json'])
      expect(JSON.parse(stdout)).toMatchObject([{ chardev: `unix:${path}`, guestReady: false }])
    } finally {
      process.kill(pid, 'SIGKILL')
    }
    await nothingLeft()
    expect(existsSync(path)).toBe(false)
  })

  it('is not migrated, and no snapshot is saved: the state of the device would be lost without a word', async () => {
    const qemu = (await ensureQemu()).path
    const path = bench.path('qmp.sock')
    const args = ['-m', '64M', '-S', '-display', 'none', '-nodefaults', '-qmp', `unix:${path},server=on,wait=off`]
    const child = bench.start(['qemu', '--qemu-binary', qemu, ...args, '-virtioserial', 'null'])
    const result = collect(child)
    await until('QEMU listens', () => existsSync(path))
    const qmp = await connectQmp(path)
    const refused = /node 'vmchannel-cannot-migrate' does not support live migration/
    await expect(qmp.execute('migrate', { uri: 'exec:cat > /dev/null' })).rejects.toThrow(refused)
    const line = { 'command-line': 'savevm one' }
    expect(await qmp.execute('human-monitor-command', line)).toMatch(refused)
    await qmp.execute('quit').catch(() => {})
    expect(await result).toMatchObject({ status: 0, stderr: '' })
    await nothingLeft()
  })

  it('runs as nobody, with no capability: QEMU, the device process, the commands', async ({ skip }) => {
    if (process.getuid!() !== 0) return skip('run as root to try it as another user')
    const nobody = 65_534
    const qemu = (await ensureQemu()).path
    chownSync(bench.folder, nobody, nobody)
    const probe = await collect(bench.start(['--version'], { user: nobody }))
    if (probe.status !== 0) return skip(`nobody may not read this checkout: ${probe.stderr.split('\n')[0]}`)
    const args = ['-m', '64M', '-S', '-display', 'none', '-nodefaults', '-virtioserial', `unix:${bench.path('a.sock')}`]
    const env = { HOME: bench.folder }
    const child = bench.start(['qemu', '--qemu-binary', qemu, ...args], { user: nobody, env })
    const result = collect(child)
    const listed = await until('its port is listed', async () => {
      const { status, stdout } = await collect(bench.start(['port', 'list', '--json'], { user: nobody, env }))
      return status === 0 && JSON.parse(stdout).length === 1
    })
    expect(listed).toBe(true)
    // The folder of its state is called after the process.
    const pid = readdirSync(bench.state)[0]!.split('-')[0]!
    const status = readFileSync(`/proc/${pid}/status`, 'utf8')
    expect(/^Uid:\s+(\d+)\s+(\d+)/m.exec(status)!.slice(1)).toEqual([`${nobody}`, `${nobody}`])
    expect(/^CapEff:\s+0+$/m.test(status)).toBe(true)
    child.kill('SIGTERM')
    await result
    await nothingLeft()
  })

  it('QEMU refuses its arguments: its own message and status, nothing left', async () => {
    const qemu = (await ensureQemu()).path
    const result = await bench.run(['qemu', '--qemu-binary', qemu, ...SERIAL, '-no-such-option'])
    expect(result.status).toBe(1)
    expect(result.stderr).toContain('-no-such-option: invalid option')
    await nothingLeft()
  })
})
