/** The same device in other places: consoles, few interrupts, other machines, suspended guests, every port there is. */
import { createHash } from 'node:crypto'
import { afterEach, describe, expect, it } from 'vitest'
import { Pattern, patternSha256 } from '../../lab/pattern.ts'
import { startVmtest, vmtest } from '../../lab/vmtest.ts'
import { readBytes, Rig, until } from './rig.ts'

const MIB = 1 << 20

let rig: Rig | undefined
afterEach(async () => {
  await rig?.close()
  rig = undefined
})

/** 2 MiB each way on one port. */
async function exchange(rig: Rig, name: string): Promise<void> {
  const node = await rig.node(name)
  const peer = await rig.connect(name)
  const got = readBytes(peer, 2 * MIB)
  const { sha256 } = await vmtest(rig.machine, 'source', [node, 2 * MIB, '32k'])
  expect(
    createHash('sha256')
      .update(await got)
      .digest('hex'),
  ).toBe(sha256)
  const sink = await startVmtest(rig.machine, 'sink', [node, 2 * MIB])
  peer.write(new Pattern().take(2 * MIB))
  expect((await sink.result()).sha256).toBe(patternSha256(2 * MIB))
  peer.destroy()
  expect(rig.device.faults).toBe(0)
  expect(rig.machine.log).not.toMatch(/BUG|soft lockup|nobody cared/)
}

describe('consoles', () => {
  // Linux waits for each buffer of a console with interrupts off, and of one whose removal it has yet to hear of as well.
  it('one is removed while programs write to it, and the guest goes on', async () => {
    rig = await Rig.start({ ports: ['null,name=other'] })
    for (let i = 0; i < 8; i++) {
      const port = await rig.addPort('null,name=busy,console=on')
      await until(() => port.guestReady, 'the driver has made it')
      await rig.machine.sh(
        'for t in /dev/hvc*; do (while echo abcdefghijklmnopqrstuvwxyz >$t; do :; done) >/dev/null 2>&1 & done; sleep 0.15',
      )
      expect(port.stats().transmitBuffers).toBeGreaterThan(0)
      rig.device.removePort(port.id)
      await rig.machine.sh('until ! grep -q busy /sys/class/virtio-ports/*/name; do sleep 0.05; done', {
        timeout: 20_000,
      })
    }
    expect(rig.device.faults).toBe(0)
  })

  it.each(['6.1', '7.x'] as const)('a login on hvc0, its size, its scroll-back (Linux %s)', async (kernel) => {
    rig = await Rig.start({
      kernel,
      ports: ['unix,name=con,console=on'],
      guest: {
        files: {
          '/etc/passwd': { text: 'root::0:0:root:/root:/bin/sh\n' },
          '/etc/group': { text: 'root:x:0:\n' },
          '/etc/securetty': { text: 'hvc0\n' },
        },
      },
    })
    const port = rig.port('con')

    // Nobody is there: the guest must not wait, the newest bytes are kept, the rest is counted.
    const wrote = Number(
      await rig.machine.sh(
        'seq 1 60000 > /tmp/seq; exec 3<>/dev/hvc0; stty raw <&3; cat /tmp/seq >&3; wc -c < /tmp/seq',
        { timeout: 120_000 },
      ),
    )
    await until(() => port.counters.held + port.counters.guestToHostDropped >= wrote, 'all output is held or dropped')
    expect(port.counters.held).toBe(65_536)
    expect(port.counters.guestToHostDropped).toBe(wrote - 65_536)
    const peer = await rig.connect('con')
    const scrollback = (await readBytes(peer, 65_536)).toString()
    expect(scrollback.endsWith('59999\n60000\n')).toBe(true)

    const screen: string[] = []
    peer.on('data', (chunk: Buffer) => screen.push(chunk.toString()))
    peer.resume()
    const shows = (text: RegExp): Promise<void> =>
      until(() => text.test(screen.join('')), `the console shows ${text}`, 20_000)
    rig.machine.spawn('stty sane < /dev/hvc0; setsid getty -L 0 hvc0 vt100')
    await shows(/login:/)
    peer.write('root\n')
    await shows(/ # /)
    peer.write('echo $((6 * 7)) on $(tty)\n')
    await shows(/42 on \/dev\/hvc0/)

    // Which order a kernel reads cannot be asked: the device is set to the right one for each here.
    const winsize = await startVmtest(rig.machine, 'winsize', ['/dev/hvc0', 5000])
    rig.device.resizePort(port.id, 132, 43)
    const { cols, rows } = await winsize.result()
    expect([`${cols}x${rows}`, `${rows}x${cols}`]).toContain('132x43')
    process.stdout.write(`Linux ${kernel} reads RESIZE as ${cols === 132 ? 'cols, rows' : 'rows, cols'}\n`)
    peer.destroy()
  })

  it('a peer that does not read does not stop the guest', async () => {
    rig = await Rig.start({ ports: ['unix,name=con,console=on'] })
    const peer = await rig.connect('con')
    peer.pause()
    await rig.machine.sh('stty raw < /dev/hvc0; head -c 2000000 /dev/zero > /dev/hvc0', { timeout: 60_000 })
    const { guestToHostBytes, guestToHostDropped, held } = rig.port('con').counters
    expect(guestToHostBytes + guestToHostDropped + held).toBeGreaterThanOrEqual(2_000_000)
    expect(guestToHostDropped).toBeGreaterThan(0)
  })

  it('takes kernel messages, and old drivers without MULTIPORT', async () => {
    rig = await Rig.start({ device: { maxPorts: 1 }, ports: ['unix,name=only,console=on'], append: 'console=hvc0' })
    const peer = await rig.connect('only')
    const screen: string[] = []
    peer.on('data', (chunk: Buffer) => screen.push(chunk.toString()))
    await rig.machine.sh('echo "<1>to every console" > /dev/kmsg')
    await until(() => screen.join('').includes('to every console'), 'the kernel message arrives')
    const winsize = await startVmtest(rig.machine, 'winsize', ['/dev/hvc0', 5000])
    rig.device.resizePort(0, 100, 30)
    expect(await winsize.result()).toMatchObject({ cols: 100, rows: 30 })
  })
})

describe('interrupts', () => {
  it('works with INTx alone', async () => {
    rig = await Rig.start({ ports: ['unix,name=a', 'unix,name=b'], append: 'pci=nomsi' })
    expect(await rig.machine.sh('grep virtio /proc/interrupts')).toMatch(/IO-APIC/)
    await exchange(rig, 'a')
    await exchange(rig, 'b')
    // Nothing is unplugged from the root bus of q35.
    await expect(rig.machine.qmp('device_del', { id: 'vmch' })).rejects.toThrow(/does not support hotplugging/)
  })

  it('works with one vector for all queues', async () => {
    rig = await Rig.start({ ports: ['unix,name=a', 'unix,name=b'], vectors: 2 })
    expect(await rig.machine.sh('grep -c "PCI-MSI.*virtio" /proc/interrupts')).toBe('2')
    await exchange(rig, 'a')
    await exchange(rig, 'b')
  })
})

describe('machines', () => {
  it('works on pc (i440fx)', async () => {
    rig = await Rig.start({ machineType: 'pc', ports: ['unix,name=a'] })
    await exchange(rig, 'a')
  })

  // With MSI-X, QEMU 11.1 aborts when a vfio-user device is unplugged.
  it('is unplugged from pc and plugged in again, without MSI-X, peers present and absent', async () => {
    rig = await Rig.start({ machineType: 'pc', vectors: 0, ports: ['unix,name=a', 'unix,name=b'] })
    expect(await rig.machine.sh('grep virtio /proc/interrupts')).toMatch(/IO-APIC/)
    await exchange(rig, 'a')
    const peer = await rig.connect('a')
    const { server, machine, device } = rig
    for (let i = 0; i < 2; i++) {
      await startVmtest(machine, 'hold', [await rig.node('a'), 600_000])
      await machine.qmp('device_del', { id: 'vmch' })
      await until(() => !server.attached, 'QEMU has let go')
      expect([device.started, device.ports.map(({ guestOpen }) => guestOpen)]).toEqual([false, [false, false]])
      const gone = async (): Promise<boolean> => (await machine.run('ls /sys/class/virtio-ports/*')).status !== 0
      await until(gone, 'the guest has no ports')
      await machine.sh('killall vmtest')
      const socket = { type: 'unix', path: server.path }
      await machine.qmp('device_add', { driver: 'vfio-user-pci', id: 'vmch', socket })
      const node = await rig.node('a')
      const heard = async (): Promise<boolean> => !(await vmtest(machine, 'poll', [node, 0])).revents.includes('HUP')
      await until(heard, 'the guest has heard of the peer that stayed')
      expect((await vmtest(machine, 'poll', [await rig.node('b'), 0])).revents).toContain('HUP')
    }
    peer.destroy()
    await until(() => !rig!.port('a').hostConnected, 'the peer has gone')
    await exchange(rig, 'a')
    await exchange(rig, 'b')
  })

  it('works with memory above 4 GiB and two processors', async () => {
    // Linux takes its buffers from the highest memory first.
    rig = await Rig.start({ memory: '6G', cpus: 2, ports: ['unix,name=a', 'unix,name=b'] })
    await Promise.all([exchange(rig, 'a'), exchange(rig, 'b')])
  })

  it('has 511 ports', async () => {
    const names = Array.from({ length: 510 }, (_, i) => `p${i + 1}`)
    rig = await Rig.start({
      device: { maxPorts: 511 },
      ports: names.map((name) => (name === 'p1' || name === 'p510' ? `unix,name=${name}` : `null,name=${name}`)),
      memory: '1G',
    })
    const count = async (): Promise<string> => rig!.machine.sh('ls /sys/class/virtio-ports | wc -l')
    await until(async () => (await count()) === '510', 'all ports are there', 60_000)
    await exchange(rig, 'p1')
    await exchange(rig, 'p510')
  })
})

/** To memory and back; `asleep` happens while the driver has no device. */
async function suspend({ machine, device }: Rig, asleep?: () => Promise<void>): Promise<void> {
  const sleep = machine.spawn('echo mem > /sys/power/state')
  await until(() => !device.started, 'the driver has frozen the device', 20_000)
  await asleep?.()
  await until(async () => ((await machine.qmp('query-status')) as { status: string }).status === 'suspended', 'S3')
  await machine.qmp('system_wakeup')
  expect((await sleep.wait(30_000)).status).toBe(0)
}

describe('suspend', () => {
  // Linux 6.1 is in lifecycle.test.ts.
  it.each(['7.x'] as const)(
    'the port works afterwards, with the right open state (Linux %s, §3.1-15)',
    async (kernel) => {
      rig = await Rig.start({ kernel, ports: ['unix,name=a', 'unix,name=gone'] })
      const node = await rig.node('a')
      const peer = await rig.connect('a')
      const hold = await startVmtest(rig.machine, 'hold', [node, 120_000])
      await until(() => rig!.port('a').guestOpen, 'the port is open')
      await suspend(rig, async () => {
        // What changes meanwhile must be right afterwards: one port goes, one comes.
        rig!.device.removePort(rig!.port('gone').id)
        await rig!.addPort('unix,name=new')
      })
      await until(() => rig!.port('a').guestOpen, 'the port is open again')
      void hold
      await rig.machine.sh(`kill $(pidof vmtest)`)
      const names = async (): Promise<string> => rig!.machine.sh('cat /sys/class/virtio-ports/*/name')
      await until(async () => (await names()) === 'a\nnew', 'one port has gone, one has come')
      peer.destroy()
      await until(() => !rig!.port('a').hostConnected, 'the peer is gone')
      await exchange(rig, 'a')
      await exchange(rig, 'new')
    },
  )

  // A machine of its own: QEMU's goes to sleep once.
  it('a driver that wakes up with no port, and says nothing, hears of one that is plugged (Linux 6.1)', async () => {
    rig = await Rig.start({ kernel: '6.1', ports: ['unix,name=gone'] })
    const node = await rig.node('gone')
    rig.device.removePort(rig.port('gone').id)
    await until(async () => (await rig!.machine.run(`test -e ${node}`)).status !== 0, 'no port is left')
    await suspend(rig)
    await rig.addPort('unix,name=late')
    await exchange(rig, 'late')
  })
})
