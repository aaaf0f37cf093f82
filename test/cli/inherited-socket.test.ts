/** Sockets that whoever starts QEMU has opened already, as libvirt does: -chardev socket,fd=N moves with its device. */
import { connect } from 'node:net'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { ensureQemu } from '../../lab/fetch/qemu.ts'
import { listenUnix } from '../../src/ffi/unix-listen.ts'
import { Bench, collect, DROP_IN, until } from './run.ts'

let bench: Bench
beforeEach(() => {
  bench = new Bench()
})
afterEach(() => bench.close())

it("a listening socket that was handed over becomes the port; its path stays its owner's", async () => {
  const qemu = (await ensureQemu()).path
  const listener = listenUnix(bench.path('given.sock'))
  const args = ['-m', '64M', '-S', '-display', 'none', '-nodefaults', '-device', 'virtio-serial-pci,id=ser0']
  args.push(
    '-chardev',
    'socket,id=c,fd=4,server=on,wait=off',
    '-device',
    'virtserialport,bus=ser0.0,chardev=c,name=org.example.fd',
  )
  const child = bench.start(args, {
    program: DROP_IN,
    env: { VMCHANNEL_QEMU: qemu },
    stdio: ['ignore', 'pipe', 'pipe', 'ignore', listener.fd],
  })
  const result = collect(child)
  try {
    const ports = async (): Promise<{ name: string; chardev: string; hostConnected: boolean }[]> => {
      const { status, stdout } = await bench.run(['port', 'list', '--json'])
      return status === 0 ? (JSON.parse(stdout) as { name: string; chardev: string; hostConnected: boolean }[]) : []
    }
    const found = await until('the port is there', async () => (await ports())[0])
    expect(found).toMatchObject({ name: 'org.example.fd', hostConnected: false })
    const peer = connect(bench.path('given.sock'))
    await until('the device has taken the connection', async () => (await ports())[0]?.hostConnected)
    peer.destroy()

    const refused = await bench.run(['port', 'add', 'unix,fd=5,name=mine'])
    expect(refused.status).toBe(2)
    expect(refused.stderr).toContain('fd is for ports that a device process starts with')
  } finally {
    child.kill('SIGTERM')
    const { stderr } = await result
    expect(stderr).not.toContain('stays with QEMU')
    listener.close()
  }
})

it('a descriptor that is no listening socket is refused by name', async () => {
  const qemu = (await ensureQemu()).path
  const args = ['-m', '64M', '-nodefaults', '-display', 'none', '-virtioserial', 'unix,fd=4']
  const child = bench.start(args, {
    program: DROP_IN,
    env: { VMCHANNEL_QEMU: qemu },
    stdio: ['ignore', 'pipe', 'pipe', 'ignore', 'pipe'],
  })
  const { status, stderr } = await collect(child)
  expect(stderr).toContain('descriptor 4 is not a listening socket')
  expect(status).toBe(3)
})
