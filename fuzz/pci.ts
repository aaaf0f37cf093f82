/**
 * Accesses of any width, offset and order to configuration space and every BAR, interleaved with function resets,
 * interrupt lines that come and go, and ports that do. No access throws, what is read fits the access, identity and
 * capabilities never change, and after a reset all reads as after power-on.
 */

import assert from 'node:assert/strict'
import { ConsoleDevice } from '../src/device/console.ts'
import { VirtioPci } from '../src/device/pci/virtio-pci.ts'
import { GuestMemory } from '../src/mem/guest-memory.ts'
import { MemoryChardev } from '../test/support/memory-chardev.ts'
import { PORT_DEFAULTS, settle } from '../test/support/pair.ts'
import { Random, type Seed } from './random.ts'
import { simple, type FuzzTarget } from './target.ts'

const OPS = 400
const PORTS = 4
const CONFIG_LEN = 256
const COMMAND = 4
const WIDTHS = [1, 2, 4, 8, 1, 2, 4, 3, 5, 0, 16]

/** What no write may change: vendor and device, class and revision, subsystem, header type, pointer to capabilities. */
const FIXED = [0, 1, 2, 3, 8, 9, 10, 11, 14, 0x2c, 0x2d, 0x2e, 0x2f, 0x34, 0x3d]

async function episode(seed: Seed): Promise<number> {
  const r = new Random(seed)
  const device = new ConsoleDevice({ maxPorts: PORTS, defer: setImmediate })
  const memory = new GuestMemory()
  memory.add({ base: 0, size: 1 << 20, bytes: new Uint8Array(1 << 20), writable: true, address: 0 })
  const pci = new VirtioPci(device, memory, { vectors: device.queueCount + 1 })
  let level = false
  const irq = { msix: (v: number) => assert.ok(v < pci.vectors), intx: (on: boolean) => void (level = on) }
  pci.connectIrq(irq)
  const image = (): string => {
    const all = new Uint8Array(CONFIG_LEN)
    pci.readConfig(0, all)
    return Buffer.from(all).toString('hex')
  }
  const first = image()
  const capabilities = capabilityIds(pci)
  for (let i = 0; i < OPS && !r.ended; i++) {
    r.step()
    const bar = r.chance(80) ? r.pick([1, 4]) : r.below(7)
    const edge = pci.barSizes[bar] ?? 0
    const offset = r.pick([r.below(0x40), r.below(0x40), 0x1000, 0x2000 + r.below(16), 0x3000 + 4 * r.below(12)])
    const at = r.chance(80) ? offset : r.chance(50) ? edge - r.below(9) : r.word()
    const width = r.pick(WIDTHS)
    switch (r.below(12)) {
      case 0:
      case 1:
        pci.writeConfig(r.chance(80) ? r.below(CONFIG_LEN) : r.word(), r.bytes(width))
        break
      case 2:
        pci.readConfig(r.chance(80) ? r.below(CONFIG_LEN) : r.word(), new Uint8Array(width))
        break
      case 3: {
        const out = new Uint8Array(width + 8).fill(0xa5)
        pci.readBar(bar, at, out.subarray(0, width))
        assert.ok(
          out.subarray(width).every((b) => b === 0xa5),
          'a read wrote past its end',
        )
        break
      }
      case 4:
        pci.writeConfig(COMMAND, Uint8Array.of(r.pick([0, 2, 4, 6, 7]), r.pick([0, 4])))
        break
      case 5:
        if (r.chance(20)) pci.connectIrq(r.chance(50) ? irq : undefined)
        break
      case 6:
        if (r.chance(10)) pci.reset()
        break
      case 7:
        if (r.chance(20)) await toggle(device, r.below(PORTS))
        break
      default:
        pci.writeBar(bar, at, r.chance(60) ? Uint8Array.of(r.below(32), 0, 0, 0).subarray(0, width) : r.bytes(width))
    }
    const now = Buffer.from(image(), 'hex')
    const before = Buffer.from(first, 'hex')
    for (const byte of FIXED) assert.equal(now[byte], before[byte], `configuration byte ${byte}`)
  }
  assert.deepEqual(capabilityIds(pci), capabilities)
  await settle(1)
  pci.connectIrq(irq)
  pci.reset()
  assert.equal(image(), first, 'after a reset configuration space is as new')
  assert.equal(level, false, 'a reset lets the pin go')
  const status = new Uint8Array(1)
  pci.readBar(4, 0x14, status)
  assert.equal(status[0], 0, 'device status is 0 after a reset')
  device.close()
  return OPS
}

async function toggle(device: ConsoleDevice, id: number): Promise<void> {
  if (device.port(id)) device.removePort(id)
  else await device.addPort({ ...PORT_DEFAULTS, id, console: id === 0 }, async (end) => new MemoryChardev(end))
}

/** Walks the list of capabilities, as a guest does at boot. */
function capabilityIds(pci: VirtioPci): number[] {
  const ids: number[] = []
  const byte = (at: number): number => {
    const out = new Uint8Array(1)
    pci.readConfig(at, out)
    return out[0]!
  }
  for (let at = byte(0x34); at !== 0; at = byte(at + 1)) {
    ids.push(byte(at))
    assert.ok(ids.length < 48, 'the list of capabilities goes round')
  }
  return ids
}

export const PCI: FuzzTarget = simple('pci', 'accesses of any width and order to configuration space and BARs', episode)
