/** Our driver in a guest, over UIO and CUSE, on our device: what every user of a port relies on. */
import { createHash } from 'node:crypto'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { Job } from '../../lab/agent.ts'
import type { CodeDisk } from '../../lab/guest-image.ts'
import { Pattern, patternSha256 } from '../../lab/pattern.ts'
import { startVmtest, vmtest } from '../../lab/vmtest.ts'
import type { Rig } from '../machine/rig.ts'
import { guestPath, readBytes, startDriver, startPair, until } from './rig.ts'

const MIB = 1 << 20
const NAME = 'org.example.0'
const NODE = '/dev/vmch0'
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

describe('our driver on our device', () => {
  let rig: Rig
  let disk: CodeDisk
  let driver: Job

  beforeAll(async () => {
    ;({ rig, disk } = await startPair({
      ports: [`unix,name=${NAME}`, 'unix,console=on,name=tty', 'unix,name=org.example.1'],
    }))
    driver = await startDriver(rig.machine)
    await guestPath(rig.machine, '/dev/virtio-ports/org.example.1')
  })
  afterEach(() => rig.hangUp())
  afterAll(async () => {
    await rig?.close()
    disk?.remove()
  })

  const events = async (): Promise<string> => (await vmtest(rig.machine, 'poll', [NODE, 0])).revents.join()

  it('has a node and a link for each generic port, and a pty for the console', async () => {
    expect(await rig.machine.sh('ls /dev | grep ^vmch')).toBe('vmch0\nvmch1')
    const links = await rig.machine.sh('for l in /dev/virtio-ports/*; do readlink $l; done')
    expect(links).toBe('../vmch0\n../vmch1\n../pts/0')
    expect(await rig.machine.sh('ls -l /dev/vmch0')).toMatch(/^crw-------/)
  })

  it('sees the host come and go: HUP without IN', async () => {
    expect(await events()).toBe('HUP')
    const peer = await rig.connect(NAME)
    await until(async () => (await events()) === 'OUT', 'poll says OUT')
    peer.destroy()
    await until(async () => (await events()) === 'HUP', 'poll says HUP')
  })

  it('moves every write size from 1 byte to 1 MiB, both ways, exactly', async () => {
    const peer = await rig.connect(NAME)
    for (const size of [1, 4095, 4097, 32 << 10, 100_000, MIB]) {
      const total = Math.min(4 * MIB, size * (size < 64 ? 300 : 16))
      const got = readBytes(peer, total)
      const { sha256: sent } = await vmtest(rig.machine, 'source', [NODE, total, size])
      expect(sha256(await got), `guest to host, ${size}`).toBe(sent)

      const sink = await startVmtest(rig.machine, 'sink', [NODE, total])
      const bytes = new Pattern().take(total)
      for (let at = 0; at < total; at += size) peer.write(bytes.subarray(at, at + size))
      expect((await sink.result()).sha256, `host to guest, ${size}`).toBe(patternSha256(total))
    }
  })

  it('echoes 4 MiB, both directions at once', async () => {
    const peer = await rig.connect(NAME)
    const echo = await startVmtest(rig.machine, 'echo', [NODE, 4 * MIB, '64k'])
    const bytes = new Pattern(7).take(4 * MIB)
    const back = readBytes(peer, 4 * MIB, 60_000)
    peer.write(bytes)
    expect(sha256(await back)).toBe(sha256(bytes))
    await echo.result()
  })

  it('holds up a program whose host does not read: O_NONBLOCK says EAGAIN, nothing is lost', async () => {
    const peer = await rig.connect(NAME)
    peer.pause()
    const { read_errno, write_errno, bytes, revents } = await vmtest(rig.machine, 'nonblock', [NODE, 10_000, 16 * MIB])
    expect(read_errno).toBe('EAGAIN')
    expect(write_errno).toBe('EAGAIN')
    expect(revents).toEqual([])
    expect(bytes).toBeLessThan(4 * MIB)
    const got = await readBytes(peer, bytes)
    const block = new Pattern().take(10_000)
    // The last write may have been taken in part.
    for (let at = 0; at < bytes; at += 10_000)
      expect(got.subarray(at, at + 10_000).equals(block.subarray(0, Math.min(10_000, bytes - at)))).toBe(true)
  })

  it('lets a program wait for room, and tells poll when there is some', async () => {
    const peer = await rig.connect(NAME)
    peer.pause()
    await vmtest(rig.machine, 'nonblock', [NODE, 65_536, 16 * MIB])
    const waiting = await startVmtest(rig.machine, 'poll', [NODE, 20_000, 'out'])
    peer.resume()
    expect((await waiting.result()).revents).toEqual(['OUT'])
    await until(() => !rig.port(NAME).guestOpen, 'the guest has closed')
  })

  it('wakes a poll when data comes', async () => {
    const peer = await rig.connect(NAME)
    const waiting = await startVmtest(rig.machine, 'poll', [NODE, 20_000, 'in'])
    peer.write('x')
    expect((await waiting.result()).revents).toEqual(['IN'])
  })

  it('wakes a poll when the host goes, and gives a blocked read its end of file', async () => {
    const peer = await rig.connect(NAME)
    const waiting = await startVmtest(rig.machine, 'poll', [NODE, 20_000, 'in'])
    peer.destroy()
    expect((await waiting.result()).revents).toEqual(['HUP'])
    const again = await rig.connect(NAME)
    const cat = rig.machine.spawn(`cat ${NODE}`)
    await until(() => rig.port(NAME).guestOpen, 'the guest has opened')
    again.end('the last words')
    expect(await cat.wait()).toEqual({ status: 0, output: 'the last words' })
  })

  it('keeps what the host sends until a program opens the port', async () => {
    const peer = await rig.connect(NAME)
    peer.write(new Pattern().take(100_000))
    await new Promise((resolve) => setTimeout(resolve, 200))
    expect((await vmtest(rig.machine, 'sink', [NODE, 100_000])).sha256).toBe(patternSha256(100_000))
  })

  it('has one opener at a time', async () => {
    expect(await vmtest(rig.machine, 'open2', [NODE])).toEqual({ second: false, errno: 'EBUSY' })
    expect((await vmtest(rig.machine, 'storm', [NODE, 50])).failed).toBe(0)
  })

  it.each([
    ['a read', `cat ${NODE}`, 2],
    ['a read', `cat ${NODE}`, 9],
    ['a write', `dd if=/dev/zero of=${NODE} bs=64k`, 2],
    ['a write', `dd if=/dev/zero of=${NODE} bs=64k`, 9],
  ])('lets a signal end %s that waits: %s, %i', async (_, command, signal) => {
    const peer = await rig.connect(NAME)
    peer.pause()
    const job = rig.machine.spawn(`exec ${command}`)
    await until(() => rig.port(NAME).guestOpen, 'the guest has opened')
    await new Promise((resolve) => setTimeout(resolve, 300))
    job.kill(signal)
    expect((await job.wait(5000)).status).toBe(128 + signal)
    peer.resume()
    await until(() => !rig.port(NAME).guestOpen, 'the guest has closed')
  })

  it('shows a port that is added, and takes away one that is removed, under a program that reads it', async () => {
    await rig.addPort('unix,name=late')
    await guestPath(rig.machine, '/dev/virtio-ports/late')
    const peer = await rig.connect('late')
    // Until the guest has heard that the host is there, a read is at its end at once.
    const cat = rig.machine.spawn('while cat /dev/virtio-ports/late; do sleep 0.1; done')
    await until(() => rig.port('late').guestOpen, 'the guest has opened')
    peer.write('before')
    await cat.waitForOutput(/before/)
    rig.device.removePort(rig.port('late').id)
    await guestPath(rig.machine, '/dev/vmch2', false)
    await guestPath(rig.machine, '/dev/virtio-ports/late', false)
    expect((await cat.wait()).output).toMatch(/^before.*(No such device|ENODEV|not connected)/s)
  })

  it('shows a console as a terminal', async () => {
    const peer = await rig.connect('tty')
    let said = ''
    peer.on('data', (chunk: Buffer) => (said += String(chunk)))
    const login = rig.machine.spawn(
      'exec 3<>/dev/virtio-ports/tty; echo name? >&3; read name <&3; echo "hello $name" >&3; tty <&3 >&3',
    )
    await until(() => said === 'name?\n', 'the guest asks')
    peer.write('world\n')
    await until(() => said === 'name?\nhello world\n/dev/pts/0\n', 'the guest answers')
    expect((await login.wait()).status).toBe(0)
  })

  it('starts again after kill -9, and the ports are back', async () => {
    const peer = await rig.connect(NAME)
    const cat = rig.machine.spawn(`cat ${NODE}`)
    await until(() => rig.port(NAME).guestOpen, 'the guest has opened')
    driver.kill(9)
    await driver.wait()
    // Its program is told, and the node is gone with the driver.
    expect((await cat.wait()).status).not.toBe(0)
    await guestPath(rig.machine, NODE, false)
    driver = await startDriver(rig.machine)
    await guestPath(rig.machine, `/dev/virtio-ports/${NAME}`)
    const got = readBytes(peer, 6)
    await rig.machine.sh(`echo hello > ${NODE}`)
    expect(String(await got)).toBe('hello\n')
  })

  it('gives the device back when it ends: the ports of the kernel, names and all', async () => {
    driver.kill(15)
    const { status, output } = await driver.wait()
    expect(output).toMatch(/given back to virtio-pci/)
    expect(status).toBe(0)
    expect((await rig.machine.run(`ls ${NODE} /dev/virtio-ports`)).status).not.toBe(0)
    const peer = await rig.connect(NAME)
    const node = await rig.node(NAME)
    const got = readBytes(peer, 7)
    await rig.machine.sh(`echo kernel > ${node}`)
    expect(String(await got)).toBe('kernel\n')
    expect(await rig.machine.sh('grep HugePages_Total /proc/meminfo')).toMatch(/ 0$/)
  })
})
