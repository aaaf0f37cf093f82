/**
 * The main job, as a user does it: `vmchannel qemu -virtioserial …` starts real QEMU with a stock guest, mdev names the
 * ports, bytes go both ways, ports come and go, and nothing is left when QEMU ends, however it ends.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ensureKernel } from '../../lab/fetch/kernel.ts'
import { ensureQemu } from '../../lab/fetch/qemu.ts'
import { Machine } from '../../lab/machine.ts'
import type { PortInfo, PortStats } from '../../src/daemon/protocol.ts'
import { installerScript } from '../../src/udev/installer.ts'
import { Bench, collect, DROP_IN, MAIN, until } from './run.ts'

const bench = new Bench()
let machine: Machine
afterAll(() => bench.close())

async function dial(path: string): Promise<Socket> {
  const socket = connect(path)
  await new Promise((done, fail) => socket.once('connect', done).once('error', fail))
  return socket
}

/** Reads until `text` is complete. */
function expectText(socket: Socket, text: string): Promise<void> {
  let got = ''
  return new Promise((done, fail) => {
    const timer = setTimeout(
      () => fail(new Error(`got ${JSON.stringify(got)}, wanted ${JSON.stringify(text)}`)),
      15_000,
    )
    socket.on('data', (chunk) => {
      got += String(chunk)
      if (!got.includes(text)) return
      clearTimeout(timer)
      done()
    })
  })
}

const json = async <T>(...args: string[]): Promise<T> => {
  const { status, stdout, stderr } = await bench.run([...args, '--json'])
  expect(stderr).toBe('')
  expect(status).toBe(0)
  return JSON.parse(stdout) as T
}

async function port(ref: string | number): Promise<PortInfo> {
  const ports = await json<PortInfo[]>('port', 'list')
  return ports.find((one) => one.name === ref || one.port === ref)!
}

describe('vmchannel qemu with a guest', () => {
  beforeAll(async () => {
    machine = await Machine.boot({
      qemu: (await ensureQemu()).path,
      kernel: await ensureKernel('6.1'),
      args: ['-name', 'guest=first try', '-virtioserial', `unix:${bench.path('a.sock')}`],
      launcher: (qemu, args) => ({
        file: process.execPath,
        args: [MAIN, 'qemu', '--qemu-binary', qemu, ...args],
        env: { VMCHANNEL_STATE_DIR: bench.state, VMCHANNEL_LOG: 'info' },
      }),
      guest: { files: { '/root/install.sh': { text: installerScript(true) } } },
    })
    await machine.sh('sh /root/install.sh; mdev -d')
  })
  afterAll(() => machine?.close())

  it('is QEMU itself under the process id of the wrapper', () => {
    expect(readFileSync(`/proc/${machine.pid}/cmdline`, 'latin1')).toContain('qemu-system-x86_64')
    expect(machine.stderr).toMatch(/^vmchannel\[\d+\]: .*VMM attached$/m)
  })

  it('gives the guest /dev/vmch0 and carries bytes both ways', async () => {
    expect(await machine.sh('ls /dev/vmch*')).toBe('/dev/vmch0')
    const socket = await dial(bench.path('a.sock'))
    const heard = expectText(socket, 'from the guest\n')
    await machine.sh('echo from the guest >/dev/vmch0')
    await heard
    const line = machine.run('head -n 1 </dev/vmch0')
    socket.write('from the host\n')
    expect((await line).output).toBe('from the host\n')
    socket.destroy()
  })

  it('lists, adds, measures and removes ports while the guest runs', async () => {
    const [first] = await json<PortInfo[]>('port', 'list')
    expect(first).toMatchObject({ vm: 'first-try', port: 1, name: null, console: false, guestReady: true })
    const added = await json<PortInfo>('port', 'add', 'unix:two.sock,name=org.example.two')
    expect(added).toMatchObject({ name: 'org.example.two', chardev: `unix:${bench.path('two.sock')}` })
    await machine.sh('for i in 1 2 3 4 5 6 7 8 9 10; do [ -e /dev/vmch1 ] && break; sleep 0.2; done')
    const socket = await dial(bench.path('two.sock'))
    const heard = expectText(socket, 'over the second\n')
    await machine.sh('echo over the second >/dev/virtio-ports/org.example.two')
    await heard
    const [stats] = await json<PortStats[]>('port', 'stats', 'org.example.two')
    expect(stats!.counters).toMatchObject({ guestToHostBytes: 16, guestOpens: 1, guestCloses: 1 })
    const table = await bench.run(['port', 'list'])
    expect(table.stdout).toMatch(/^VM +PORT +NAME/)
    expect(table.stdout.split('\n')[2]).toMatch(/^first-try +2 +org\.example\.two +generic +closed +connected +unix:/)
    await json('port', 'remove', 'org.example.two')
    await machine.sh(
      'for i in 1 2 3 4 5 6 7 8 9 10; do [ -e /dev/vmch1 ] || break; sleep 0.2; done; ! [ -e /dev/vmch1 ]',
    )
    expect(existsSync(bench.path('two.sock'))).toBe(false)
    socket.destroy()
  })

  it('joins a pipe to a port: end of input, output that goes on, --exit-on-eof', async () => {
    await json('port', 'add', 'attach,name=pipe')
    await machine.sh('for i in 1 2 3 4 5 6 7 8 9 10; do [ -e /dev/virtio-ports/pipe ] && break; sleep 0.2; done')
    // A read is at its end at once while nobody is there on the host: open once, try again.
    const reader = machine.spawn(
      'exec 3</dev/virtio-ports/pipe; while :; do t=$(head -c 5 <&3); [ -n "$t" ] && break; sleep 0.05; done; echo $t',
    )
    await until('the guest has it open', async () => (await port('pipe')).guestOpen)
    const sent = await bench.run(['connect', 'pipe', '--exit-on-eof'], { input: 'hello' })
    expect(sent).toMatchObject({ status: 0, stdout: '', stderr: '' })
    expect((await reader.wait()).output).toBe('hello\n')
    const child = bench.start(['connect', 'pipe'])
    const result = collect(child)
    child.stdin!.end('question\n')
    await until('the host is there', async () => (await port('pipe')).hostConnected)
    // The guest may have yet to hear that the host is there: until then it reads end of file.
    await machine.sh(
      'exec 3<>/dev/virtio-ports/pipe; until read -r line <&3; do sleep 0.05; done; echo "answer to $line" >&3',
    )
    await json('port', 'remove', 'pipe')
    expect(await result).toMatchObject({ status: 0, stdout: 'answer to question\n' })
  })

  it('joins a listening socket as well, one at a time', async () => {
    const child = bench.start(['connect', '1'])
    const result = collect(child)
    await until('the host is there', async () => (await port(1)).hostConnected)
    await machine.sh('echo over the socket >/dev/vmch0')
    const second = await bench.run(['connect', '1'])
    expect(second.status).toBe(4)
    expect(second.stderr).toContain('already')
    child.stdin!.end()
    await machine.sh('echo more >/dev/vmch0')
    child.kill('SIGTERM')
    expect((await result).stdout).toContain('over the socket\n')
  })

  it('leaves nothing behind when QEMU is killed', async () => {
    expect(readdirSync(bench.state)).toHaveLength(1)
    process.kill(machine.pid, 'SIGKILL')
    await machine.exited()
    await until(
      'the sockets are gone',
      () => !existsSync(bench.path('a.sock')) && readdirSync(bench.state).length === 0,
    )
  })
})

describe('vmchannel-qemu with the command line of somebody who knows nothing of us', () => {
  let machine: Machine
  const path = (): string => `${machine.folder}/c.sock`
  beforeAll(async () => {
    machine = await Machine.boot({
      qemu: (await ensureQemu()).path,
      kernel: await ensureKernel('6.1'),
      machineType: 'pc',
      launcher: (qemu, args) => ({
        file: process.execPath,
        args: [
          ...[DROP_IN, ...args, '-device', 'virtio-serial-pci'],
          ...[
            '-chardev',
            `socket,id=channel0,path=${args.find((word) => word.includes('lab-qmp,path='))!.replace(/.*path=(.*)qmp.sock/, '$1c.sock')},server=on,wait=off`,
          ],
          ...['-device', 'virtserialport,chardev=channel0,name=org.example.channel.0'],
        ],
        env: { VMCHANNEL_STATE_DIR: bench.state, VMCHANNEL_QEMU: qemu },
      }),
    })
  })
  afterAll(() => machine?.close())

  it('the port is ours, and works', async () => {
    expect(await json<PortInfo[]>('port', 'list')).toMatchObject([
      { name: 'org.example.channel.0', hostConnected: false },
    ])
    expect(await machine.sh('cat /sys/class/virtio-ports/*/name')).toBe('org.example.channel.0')
    const socket = await dial(path())
    const heard = expectText(socket, 'moved\n')
    await machine.sh('echo moved >/dev/$(ls /sys/class/virtio-ports)')
    await heard
    socket.destroy()
  })

  it('SIGTERM ends QEMU in order, and everything with it', async () => {
    process.kill(machine.pid, 'SIGTERM')
    await machine.exited()
    await until('the sockets are gone', () => !existsSync(path()) && readdirSync(bench.state).length === 0)
    expect(machine.stderr).toContain('terminating on signal 15')
  })
})
