import { afterEach, beforeEach, expect, test } from 'vitest'
import { openFds, openRig, until, type Rig } from './rig.ts'
import { RealQemu, type QemuOptions } from './real-qemu.ts'
import { TOY_DEVICE, TOY_VENDOR } from './toy-function.ts'

const SLOT = 5
const BAR0 = 0xe000_0000
const BAR1 = 0xe001_0000

let rig: Rig
let qemu: RealQemu | undefined
beforeEach(async () => void (rig = await openRig()))
afterEach(async () => {
  await qemu?.kill()
  qemu = undefined
  rig.end()
})

async function start(options: Partial<QemuOptions> = {}): Promise<RealQemu> {
  return (qemu = await RealQemu.start({ socket: rig.path, ...options }))
}

/** What a firmware does: addresses for the BARs, memory and bus master on. */
async function setUp({ qtest }: RealQemu, command = 6): Promise<void> {
  await qtest.configWrite(SLOT, 0x10, BAR0)
  await qtest.configWrite(SLOT, 0x14, BAR1)
  await qtest.configWrite(SLOT, 0x04, command, 'w')
}

test('QEMU realises the function and shows it', async () => {
  const { qtest } = await start()
  expect(rig.events).toEqual(['attach'])
  expect(await qtest.configRead(SLOT, 0)).toBe(TOY_DEVICE * 65536 + TOY_VENDOR)
  await setUp(qemu!)
  const pci = await qemu!.monitor('info pci')
  const device = pci.slice(pci.indexOf('device   5'), pci.indexOf('id "toy"'))
  expect(device).toContain(`PCI device ${TOY_VENDOR.toString(16)}:${TOY_DEVICE.toString(16)}`)
  expect(device).toContain(`BAR0: 32 bit memory at 0x${BAR0.toString(16)}`)
  expect(device).toContain('pin A')
  expect(rig.unshared).toEqual([])
  expect(qemu!.stderr).toBe('')
  expect(rig.lines.filter((l) => !l.startsWith('info'))).toEqual([])
})

test.each([{ posted: true }, { posted: false }])('registers work, writes posted: $posted', async ({ posted }) => {
  const { qtest } = await start(posted ? {} : { device: { 'x-no-posted-writes': true } })
  await setUp(qemu!)
  await qtest.write('l', BAR0 + 0x10, 0x12345678)
  await qtest.write('w', BAR0 + 0x14, 0xabcd)
  await qtest.write('b', BAR0 + 0x16, 0xef)
  await qtest.write('q', BAR0 + 0x18, 0x1122334455667788n)
  expect(await qtest.read('l', BAR0 + 0x10)).toBe(0x12345678)
  expect(await qtest.read('w', BAR0 + 0x14)).toBe(0xabcd)
  expect(await qtest.read('b', BAR0 + 0x16)).toBe(0xef)
  expect(Buffer.from(rig.toy.bar.buffer).readBigUInt64LE(0x18)).toBe(0x1122334455667788n)
  expect(qemu!.stderr).toBe('')
})

test('guest memory is shared both ways, and the self-test sees that', async () => {
  const { qtest } = await start()
  await setUp(qemu!)
  await qtest.write('l', 0x10_0000, 0xcafe)
  const region = rig.memory.contiguous(0x10_0000, 4, true)
  const at = 0x10_0000 - region.base
  expect(Buffer.from(region.bytes.slice(at, at + 4)).readUInt32LE()).toBe(0xcafe)
  region.bytes[at + 1] = 0xbe
  expect(await qtest.read('l', 0x10_0000)).toBe(0xbefe)
  expect(await rig.server.checkCoherent(0x10_0000, 64)).toBe('same')
  expect(await rig.server.checkCoherent(0x20_0000, 64)).toBe('unknown') // zeros
})

test('without bus master QEMU does not let us look: unknown', async () => {
  const { qtest } = await start()
  await setUp(qemu!, 2)
  await qtest.write('l', 0x10_0000, 0xcafe)
  expect(await rig.server.checkCoherent(0x10_0000, 64)).toBe('unknown')
})

test('share=off is found out by the self-test: QEMU sends the descriptor all the same', async () => {
  const { qtest } = await start({ memory: 'private' })
  await setUp(qemu!)
  await qtest.write('l', 0x10_0000, 0xcafe)
  expect(rig.memory.regions.length).toBeGreaterThan(0)
  expect(rig.unshared).toEqual([])
  expect(await rig.server.checkCoherent(0x10_0000, 64)).toBe('different')
})

test('a machine without a memory back end is found out before the guest runs', async () => {
  await start({ memory: 'anonymous' })
  expect(rig.unshared).toEqual([{ address: 0, size: 256 << 20 }])
  expect(rig.memory.regions).toEqual([])
  expect(rig.server.unsharedAt(0x10_0000)).toBeDefined()
})

test('more memory than one window: both sides of 4 GiB', async () => {
  const { qtest } = await start({ size: 5 * 2 ** 30, args: [] })
  await setUp(qemu!)
  for (const address of [
    0x1000,
    0x3fe0_0000 - 2,
    0x4000_0000 - 2,
    0x7000_0000,
    2 ** 32 + 0x1000,
    2 ** 32 + 2 * 2 ** 30,
  ]) {
    await qtest.write('l', address, 0x5eed0000 + (address % 65521))
    const region = rig.memory.contiguous(address, 4, true)
    const at = address - region.base
    expect(Buffer.from(region.bytes.slice(at, at + 4)).readUInt32LE()).toBe(0x5eed0000 + (address % 65521))
    expect(await rig.server.checkCoherent(address, 4)).toBe('same')
  }
})

test('MSI-X: a vector that fires is a message in guest memory', async () => {
  const { qtest } = await start()
  await setUp(qemu!)
  // Table entry 2: the address may be any memory, so let it be RAM.
  const target = 0x30_0000
  await qtest.write('l', BAR1 + 32, target)
  await qtest.write('l', BAR1 + 36, 0)
  await qtest.write('l', BAR1 + 40, 0xbeef)
  await qtest.write('l', BAR1 + 44, 0)
  await qtest.configWrite(SLOT, 0x42, 0x8000, 'w')
  rig.toy.irq!.msix(2)
  const region = rig.memory.contiguous(target, 4, true)
  const view = new DataView(region.bytes.buffer, region.bytes.byteOffset + target - region.base)
  await until(() => view.getUint32(0, true) === 0xbeef, 'the message')
  // masked: nothing; unmasked: now
  view.setUint32(0, 0, true)
  await qtest.write('l', BAR1 + 44, 1)
  rig.toy.irq!.msix(2)
  await qtest.read('l', BAR0)
  await qtest.read('l', BAR0)
  expect(view.getUint32(0, true)).toBe(0)
  await qtest.write('l', BAR1 + 44, 0)
  await until(() => view.getUint32(0, true) === 0xbeef, 'the message after the unmask')
})

test('INTx: asserted until a register is touched, then again while the level is high', async () => {
  const { qtest } = await start()
  await setUp(qemu!)
  await qtest
    .command('irq_intercept_in /machine/unattached/ioapic')
    .catch(() => qtest.command('irq_intercept_in ioapic'))
  const raised = (): number => qtest.interrupts.filter((l) => l.includes('raise')).length
  const before = raised()
  rig.toy.irq!.intx(true)
  await until(() => raised() === before + 1, 'the pin')
  await qtest.read('l', BAR0) // deasserts, unmasks; still high here: signalled again
  await until(() => raised() === before + 2, 'the pin again')
  rig.toy.irq!.intx(false)
  await qtest.read('l', BAR0)
  await qtest.read('l', BAR0)
  expect(raised()).toBe(before + 2)
})

test('system_reset resets the function; the map is the same afterwards', async () => {
  await start()
  const { resets } = rig.toy
  const sizes = (): number => rig.memory.regions.reduce((sum, r) => sum + r.size, 0)
  const before = sizes()
  const done = qemu!.qmp.nextEvent('RESET')
  await qemu!.qmp.execute('system_reset')
  await done
  expect(rig.toy.resets).toBe(resets + 1)
  expect(sizes()).toBe(before)
})

test('quit, kill, and the next VMM: everything is given back each time', async () => {
  const fds = openFds()
  await start()
  expect(await qemu!.quit()).toBe(0)
  await rig.detached()
  expect(rig.memory.regions).toEqual([])
  await start()
  await qemu!.kill()
  await rig.detached()
  expect(openFds()).toEqual(fds)
  await start()
  expect(rig.events).toEqual(['attach', 'detach: closed by the VMM', 'attach', 'detach: closed by the VMM', 'attach'])
})

test('a second QEMU at the same socket is refused with a reason, the first goes on', async () => {
  await start()
  await expect(RealQemu.start({ socket: rig.path })).rejects.toThrow(/vfio-user-pci.*busy/s)
  expect(await qemu!.qtest.configRead(SLOT, 0)).toBe(TOY_DEVICE * 65536 + TOY_VENDOR)
})
