/**
 * The stock Linux driver on our device in unmodified QEMU: what every user of a port relies on, and what can be seen
 * from inside the device. What both devices have to do, call by call, is in scenarios/.
 */
import { createHash } from 'node:crypto'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { Pattern, patternSha256 } from '../../lab/pattern.ts'
import { startVmtest, vmtest } from '../../lab/vmtest.ts'
import { readBytes, Rig, until } from './rig.ts'

const MIB = 1 << 20
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

describe.each([
  { kernel: '6.1', vectors: 2 },
  { kernel: '7.x', vectors: 65 },
] as const)('Linux $kernel', ({ kernel, vectors }) => {
  let rig: Rig
  let node: string

  beforeAll(async () => {
    rig = await Rig.start({
      ...{ kernel, vectors },
      ports: [
        'unix,name=org.example.0',
        'null,console=on',
        ...Array.from({ length: 28 }, (_, i) => `null,name=many.${i}`),
      ],
    })
    node = await rig.node('org.example.0')
  })
  afterEach(() => rig.hangUp())
  afterAll(() => rig?.close())

  it('finds every port by its name, on the id that was given', async () => {
    const listing = await rig.machine.sh(
      'cd /sys/class/virtio-ports; for p in *; do echo "$p $(cat $p/name 2>/dev/null)"; done',
    )
    const ports = listing.split('\n').map((line) => line.split(' '))
    expect(ports).toHaveLength(30)
    expect(ports.find(([, name]) => name === 'org.example.0')?.[0]).toMatch(/p1$/)
    expect(ports.find(([, name]) => name === 'many.27')?.[0]).toMatch(/p29$/)
  })

  it(`has its ${vectors} vectors`, async () => {
    const interrupts = Number(await rig.machine.sh('grep -c "PCI-MSI.*virtio" /proc/interrupts'))
    // Of 65 one for configuration, one for each queue that has a callback: all but the control transmitq.
    if (vectors === 65) expect(interrupts).toBeGreaterThanOrEqual(63)
    else expect(interrupts).toBe(vectors)
  })

  it('moves every write size from 1 byte to 1 MiB, both ways, exactly', async () => {
    const peer = await rig.connect('org.example.0')
    for (const size of [1, 7, 64, 4095, 4096, 4097, 32 << 10, (32 << 10) + 1, 100_000, MIB]) {
      const total = Math.min(4 * MIB, size * (size < 64 ? 2000 : 64))
      const got = readBytes(peer, total)
      const { sha256: sent } = await vmtest(rig.machine, 'source', [node, total, size])
      expect(sha256(await got), `guest to host, ${size}`).toBe(sent)

      const sink = await startVmtest(rig.machine, 'sink', [node, total])
      const bytes = new Pattern().take(total)
      for (let at = 0; at < total; at += size) peer.write(bytes.subarray(at, at + size))
      expect((await sink.result()).sha256, `host to guest, ${size}`).toBe(patternSha256(total))
    }
    peer.destroy()
  })

  it('echoes 8 MiB, both directions at once', async () => {
    const peer = await rig.connect('org.example.0')
    const echo = await startVmtest(rig.machine, 'echo', [node, 8 * MIB, '64k'])
    const bytes = new Pattern(7).take(8 * MIB)
    const back = readBytes(peer, 8 * MIB, 60_000)
    peer.write(bytes)
    expect(sha256(await back)).toBe(sha256(bytes))
    await echo.result()
    peer.destroy()
  })

  it('takes splice and vmsplice', async () => {
    const peer = await rig.connect('org.example.0')
    const spliced = readBytes(peer, MIB)
    await rig.machine.sh('head -c 1048576 /dev/urandom > /tmp/file')
    await vmtest(rig.machine, 'splice', [node, '/tmp/file', MIB])
    expect(sha256(await spliced)).toBe((await rig.machine.sh('sha256sum /tmp/file')).split(' ')[0])
    const mapped = readBytes(peer, 4 * MIB)
    const { sha256: sent } = await vmtest(rig.machine, 'vmsplice', [node, 4 * MIB, '256k'])
    expect(sha256(await mapped)).toBe(sent)
    peer.destroy()
  })

  it('holds up a guest whose host does not read, and loses nothing', async () => {
    const peer = await rig.connect('org.example.0')
    peer.pause()
    const { write_errno, bytes } = await vmtest(rig.machine, 'nonblock', [node, 4096, 16 * MIB])
    expect(write_errno).toBe('EAGAIN')
    expect(bytes).toBeLessThan(4 * MIB)
    // nonblock repeats the first block of the pattern.
    const block = new Pattern().take(4096)
    const got = await readBytes(peer, bytes)
    for (let at = 0; at < bytes; at += 4096) expect(got.subarray(at, at + 4096).equals(block)).toBe(true)
    peer.destroy()
  })

  it('survives storms of open and close, on both sides at once', async () => {
    const port = rig.port('org.example.0')
    const before = port.counters.guestOpens
    const storm = vmtest(rig.machine, 'storm', [node, 500], 60_000)
    for (let i = 0; i < 20; i++) (await rig.connect('org.example.0')).destroy()
    expect(await storm).toMatchObject({ failed: 0 })
    await until(() => !port.guestOpen, 'the last close arrives')
    expect(port.counters.guestOpens - before).toBe(500)
  })

  it('a peer that vanishes in mid-write costs only what was in its socket', async () => {
    const port = rig.port('org.example.0')
    const peer = await rig.connect('org.example.0')
    peer.pause()
    const source = rig.machine.spawn(`vmtest source ${node} 4m 32k`)
    await until(() => port.counters.transmitStalls > 0, 'the guest has to wait')
    peer.destroy()
    await until(() => !port.hostConnected, 'the device sees it')
    const next = await rig.connect('org.example.0')
    next.resume()
    expect((await source.wait(30_000)).status).toBe(0)
    const counted = (): number => port.counters.guestToHostBytes + port.counters.guestToHostDropped
    await until(() => counted() >= 4 * MIB, 'every byte is counted')
    next.destroy()
  })

  it('adds and removes ports under traffic', async () => {
    const peer = await rig.connect('org.example.0')
    peer.resume()
    const traffic = rig.machine.spawn(`vmtest source ${node} 24m 32k`)
    for (let i = 0; i < 5; i++) {
      const port = await rig.addPort(`unix,name=hot.${i}`)
      const hot = await rig.node(`hot.${i}`)
      const host = await rig.connect(`hot.${i}`)
      const reply = readBytes(host, 6)
      await rig.machine.sh(`echo hello > ${hot}`)
      expect((await reply).toString()).toBe('hello\n')
      rig.device.removePort(port.id)
      await until(async () => (await rig.machine.run(`test -e ${hot}`)).status !== 0, 'the node goes')
      host.destroy()
    }
    expect((await traffic.wait(60_000)).status).toBe(0)
    peer.destroy()
  })

  it('removes an open port: readers and writers end, the id can be used again (§3.1-9)', async () => {
    const peers: unknown[] = []
    for (let i = 0; i < 3; i++) {
      const port = await rig.addPort('unix,name=victim,nr=30')
      const victim = await rig.node('victim')
      const peer = await rig.connect('victim')
      peers.push(peer)
      peer.pause()
      const reader = rig.machine.spawn(`cat ${victim} > /dev/null`)
      await until(() => port.guestOpen, 'the port is open')
      peer.write(new Pattern().take(200_000))
      rig.device.removePort(30)
      expect((await reader.wait(10_000)).status).not.toBe(0)
      peer.destroy()
    }
    // Rings that were left alone come back in order.
    await rig.addPort('unix,name=again,nr=30')
    const again = await rig.node('again')
    const peer = await rig.connect('again')
    peer.write(new Pattern().take(500_000))
    expect((await vmtest(rig.machine, 'sink', [again, 500_000])).sha256).toBe(patternSha256(500_000))
    peer.destroy()
    rig.device.removePort(30)
    expect(rig.device.faults).toBe(0)
  })

  it('comes back from rmmod and modprobe, names and all', async () => {
    const peer = await rig.connect('org.example.0')
    // Where the driver is built in, unbinding is the same to the device.
    const device = await rig.machine.sh('cd /sys/bus/virtio/drivers/virtio_console && ls -d virtio*')
    const module = (await rig.machine.run('grep -q ^virtio_console /proc/modules')).status === 0
    await rig.machine.sh(
      module ? 'rmmod virtio_console' : `echo ${device} > /sys/bus/virtio/drivers/virtio_console/unbind`,
    )
    await until(() => !rig.device.started, 'the driver has let go')
    await rig.machine.sh(
      module ? 'insmod /modules/virtio_console.ko' : `echo ${device} > /sys/bus/virtio/drivers/virtio_console/bind`,
    )
    const again = await rig.node('org.example.0')
    const reply = readBytes(peer, 6)
    await rig.machine.sh(`echo after > ${again}`)
    expect((await reply).toString()).toBe('after\n')
    peer.destroy()
  })

  it('comes back from a reboot of the guest with the peer staying', async () => {
    const peer = await rig.connect('org.example.0')
    await rig.machine.reset()
    node = await rig.node('org.example.0')
    const reply = readBytes(peer, 5)
    await rig.machine.sh(`echo boot > ${node}`)
    expect((await reply).toString()).toBe('boot\n')
    peer.write(new Pattern().take(50_000))
    expect((await vmtest(rig.machine, 'sink', [node, 50_000])).sha256).toBe(patternSha256(50_000))
    peer.destroy()
  })

  it('broke no rule and saw none broken', () => {
    expect(rig.device.faults).toBe(0)
    expect(rig.device.ignoredControl).toBe(0)
    expect(rig.log.filter((line) => line.startsWith('error'))).toEqual([])
    expect(rig.machine.log).not.toMatch(/BUG|WARNING|soft lockup|nobody cared/)
  })
})
