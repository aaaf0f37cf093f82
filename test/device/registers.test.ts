/** The registers behind PCI: what a driver may do with them, and what it may not and does all the same. */

import { describe, expect, it } from 'vitest'
import { ConsoleDevice } from '../../src/device/console.ts'
import { VirtioPci } from '../../src/device/pci/virtio-pci.ts'
import { GuestMemory } from '../../src/mem/guest-memory.ts'
import { PCI_COMMAND, PCI_BASE_ADDRESS_0, VIRTIO_MSI_NO_VECTOR } from '../../src/spec/pci.ts'
import { queuesFor, receiveqOf, transmitqOf } from '../../src/spec/console.ts'
import { BASIC, RawDriver } from '../support/raw-driver.ts'

/** A driver and short ways to the common configuration, in the order of the structure. */
function registers(options = {}) {
  const raw = new RawDriver(options)
  const { common, device } = raw.transport.structures
  const r = raw.registers
  return {
    raw,
    get8: (at: number) => r.bar8(common.bar, common.offset + at),
    get16: (at: number) => r.bar16(common.bar, common.offset + at),
    get32: (at: number) => r.bar32(common.bar, common.offset + at),
    set8: (at: number, v: number) => r.setBar8(common.bar, common.offset + at, v),
    set16: (at: number, v: number) => r.setBar16(common.bar, common.offset + at, v),
    set32: (at: number, v: number) => r.setBar32(common.bar, common.offset + at, v),
    config: (offset: number, len: number) => {
      const out = new Uint8Array(len)
      raw.pci.readBar(device!.bar, device!.offset + offset, out)
      return Buffer.from(out)
    },
  }
}

const SELECT = 0x16
const SIZE = 0x18
const VECTOR = 0x1a
const ENABLE = 0x1c
const NOTIFY_OFF = 0x1e
const DESC = 0x20
const RESET = 0x3a
const STATUS = 0x14

describe('features and status', () => {
  it('device_feature shows the selected word, and 0 beyond the second', () => {
    const { get32, set32, raw } = registers()
    const words = [0, 1, 2, 31, 0xffffffff].map((word) => {
      set32(0, word)
      return get32(4)
    })
    expect(BigInt(words[0]!) | (BigInt(words[1]!) << 32n)).toBe(raw.device.features)
    expect(words.slice(2)).toEqual([0, 0, 0])
  })

  it('a subset is accepted, what was not offered is refused, and what is written later changes nothing', () => {
    const { get32, set32, raw } = registers()
    raw.negotiate(BASIC)
    expect(raw.status).toBe(11)
    raw.transport.writeDriverFeatures(BASIC | (1n << 29n))
    set32(8, 0)
    expect(get32(0xc)).toBe(Number(BASIC & 0xffffffffn))
    for (const bad of [BASIC | (1n << 34n), BASIC & ~(1n << 32n), 0n, BASIC | (1n << 63n)]) {
      raw.negotiate(bad)
      expect(raw.status).toBe(3)
      // Without FEATURES_OK nothing starts.
      raw.transport.writeStatus(7)
      expect(raw.device.started).toBe(false)
    }
    raw.start()
    expect(raw.device.started).toBe(true)
  })

  it('driver_ok edge fires exactly once, and only after FEATURES_OK', () => {
    const edges: boolean[] = []
    const { raw } = registers({ device: { maxPorts: 4, onDriver: (on: boolean) => void edges.push(on) } })
    raw.transport.writeStatus(7)
    expect(edges).toEqual([])
    raw.start()
    for (const status of [15, 15, 0xff, 15]) raw.transport.writeStatus(status)
    expect(edges).toEqual([true])
    raw.reset()
    raw.reset()
    expect(edges).toEqual([true, false])
  })

  it('no bit is taken back by writing less, NEEDS_RESET cannot be written, and 0 takes everything back', () => {
    const { raw, get16, set16, get32 } = registers()
    raw.start()
    raw.transport.writeStatus(1)
    expect(raw.status).toBe(15)
    raw.transport.writeStatus(0x4f)
    expect(raw.needsReset).toBe(false)
    raw.transport.writeStatus(0x80)
    expect(raw.status).toBe(0x8f)
    raw.transport.writeStatus(0)
    expect(raw.status).toBe(0)
    for (let queue = 0; queue < 8; queue++) {
      set16(SELECT, queue)
      expect([get16(ENABLE), get16(VECTOR), get32(DESC)]).toEqual([0, VIRTIO_MSI_NO_VECTOR, 0])
    }
    expect(get16(0x10)).toBe(VIRTIO_MSI_NO_VECTOR)
  })
})

describe('queues', () => {
  it('num_queues register counts queues, not entries', () => {
    for (const maxPorts of [1, 2, 4, 31, 511]) {
      const { raw, get16, set16 } = registers({ device: { maxPorts } })
      const queues = maxPorts === 1 ? 2 : queuesFor(maxPorts)
      expect(get16(0x12)).toBe(queues)
      for (const queue of [0, queues - 1]) {
        set16(SELECT, queue)
        expect(get16(SIZE)).toBe(maxPorts > 1 && (queue === 2 || queue === 3) ? 64 : 128)
        expect(get16(NOTIFY_OFF)).toBe(queue)
      }
      set16(SELECT, queues)
      expect([get16(SIZE), get16(VECTOR), get16(ENABLE), get16(NOTIFY_OFF), get32AtZero(raw)]).toEqual([
        0, 0xffff, 0, 0, 0,
      ])
    }
    function get32AtZero(raw: RawDriver): number {
      const { common } = raw.transport.structures
      return raw.registers.bar32(common.bar, common.offset + DESC)
    }
  })

  it('queue_select past the end: every register of it reads as nothing and takes nothing', () => {
    const { raw, get16, set16, set32 } = registers()
    raw.negotiate(BASIC)
    for (const queue of [10, 0x7fff, 0xffff]) {
      set16(SELECT, queue)
      for (const at of [SIZE, VECTOR, ENABLE, RESET]) set16(at, 1)
      for (let at = DESC; at < 0x38; at += 4) set32(at, 0x1000)
      expect([get16(SIZE), get16(VECTOR), get16(ENABLE)]).toEqual([0, VIRTIO_MSI_NO_VECTOR, 0])
    }
    set16(SELECT, 0)
    expect(get16(SIZE)).toBe(128)
  })

  for (const size of [0, 3, 100, 129, 256, 32768, 0xffff])
    it(`queue size ${size} is not enabled, and says so with NEEDS_RESET`, () => {
      const { raw, get16, set16 } = registers()
      raw.negotiate(BASIC)
      const region = raw.machine.allocate(65536)
      set16(SELECT, 4)
      set16(SIZE, size)
      const { common } = raw.transport.structures
      for (const [i, at] of [0, 0x8000, 0xa000].entries()) {
        raw.registers.setBar32(common.bar, common.offset + DESC + 8 * i, (region.base + at) % 2 ** 32)
        raw.registers.setBar32(common.bar, common.offset + DESC + 4 + 8 * i, Math.floor(region.base / 2 ** 32))
      }
      set16(ENABLE, 1)
      expect(get16(ENABLE)).toBe(0)
      expect(raw.needsReset).toBe(true)
      raw.start()
      expect(raw.needsReset).toBe(false)
    })

  it('rings that lie outside memory, at odd addresses, or past 2^53 are not enabled', () => {
    const { raw, get16, set16, set32 } = registers()
    const good = raw.machine.allocate(65536)
    const bad: [number, number, number][] = [
      [0, 0, 0],
      [good.base + 8, good.base + 0x8000, good.base + 0xa000],
      [good.base, good.base + 0x8001, good.base + 0xa000],
      [good.base, good.base + 0x8000, good.base + 0xa002],
      [good.base + 65536 - 16, good.base, good.base],
      [good.base, good.base + 65536, good.base + 0xa000],
      [good.base, good.base + 0x8000, good.base + 65536 - 4],
      [2 ** 63, 2 ** 63, 2 ** 63],
    ]
    for (const [desc, avail, used] of bad) {
      raw.negotiate(BASIC)
      set16(SELECT, 4)
      for (const [i, address] of [desc, avail, used].entries()) {
        set32(DESC + 8 * i, address % 2 ** 32)
        set32(DESC + 4 + 8 * i, Math.floor(address / 2 ** 32))
      }
      set16(ENABLE, 1)
      expect(get16(ENABLE), `${desc} ${avail} ${used}`).toBe(0)
    }
  })

  it('a queue that is enabled keeps its size and its rings whatever is written (CVE-2026-5747)', async () => {
    const { raw, get16, get32, set16, set32 } = registers()
    const { chardev } = await raw.host()
    raw.start().ready().open(1)
    set16(SELECT, transmitqOf(1))
    const before = [get16(SIZE), get32(DESC), get32(DESC + 8), get32(DESC + 16)]
    set16(SIZE, 2)
    for (let at = DESC; at < 0x38; at += 4) set32(at, 0xfffff000)
    expect([get16(SIZE), get32(DESC), get32(DESC + 8), get32(DESC + 16)]).toEqual(before)
    set16(ENABLE, 0)
    expect(get16(ENABLE)).toBe(1)
    raw.send(transmitqOf(1), Buffer.from('same ring'))
    expect(chardev.text).toBe('same ring')
  })

  it('a queue cannot be enabled before FEATURES_OK', () => {
    const { raw, get16, set16 } = registers()
    raw.reset()
    raw.transport.writeStatus(3)
    set16(SELECT, 0)
    set16(ENABLE, 1)
    expect(get16(ENABLE)).toBe(0)
  })

  it('RING_RESET of one queue: back to its defaults, the others go on; and it can be enabled anew', async () => {
    const { raw, get16, get32, set16 } = registers()
    const { chardev } = await raw.host({ policy: 'block' })
    const { chardev: other } = await raw.host()
    raw
      .start(BASIC | (1n << 40n))
      .ready()
      .open(1)
      .open(2)
    chardev.room = 1
    raw.send(transmitqOf(1), Buffer.from('abc'))
    set16(SELECT, transmitqOf(1))
    set16(RESET, 1)
    expect([get16(RESET), get16(ENABLE), get16(SIZE), get16(VECTOR), get32(DESC)]).toEqual([0, 0, 128, 0xffff, 0])
    // Nothing of what was in it is touched again.
    chardev.setRoom(Infinity)
    raw.queue(transmitqOf(1)).notify()
    expect(chardev.text).toBe('a')
    raw.send(transmitqOf(2), Buffer.from('other'))
    expect(other.text).toBe('other')
    raw.enable(transmitqOf(1), 16)
    raw.send(transmitqOf(1), Buffer.from('again'))
    expect(chardev.text).toBe('aagain')
    expect(raw.needsReset).toBe(false)
  })

  it('RING_RESET that was not negotiated is ignored', () => {
    const { raw, get16, set16 } = registers()
    raw.start()
    set16(SELECT, 4)
    set16(RESET, 1)
    expect(get16(ENABLE)).toBe(1)
  })
})

describe('accesses of any shape', () => {
  it('every register reads the same in bytes, halves and words, and parts can be written', () => {
    const { raw, get8, get16, get32, set8 } = registers()
    raw.start()
    for (let at = 0; at < 0x3c; at += 4) {
      const word = get32(at)
      expect(get16(at) + get16(at + 2) * 65536).toBe(word)
      expect([0, 1, 2, 3].reduce((sum, i) => sum + get8(at + i) * 256 ** i, 0)).toBe(word)
    }
    raw.negotiate(BASIC)
    for (let i = 0; i < 8; i++) set8(DESC + i, 0x10 + i)
    expect([get32(DESC), get32(DESC + 4)]).toEqual([0x13121110, 0x17161514])
  })

  it('odd widths and places, anywhere in the BARs and in configuration space, are survived', () => {
    const { raw } = registers()
    raw.start()
    for (let bar = 0; bar < 8; bar++)
      for (const offset of [
        0,
        1,
        3,
        0x13,
        0x39,
        0x3b,
        0x3f,
        0xfff,
        0x1000,
        0x1fff,
        0x2000,
        0x2003,
        0x200b,
        0x2fff,
        0x3000,
        0x3001,
        0x7fff,
        2 ** 31,
      ])
        for (const len of [0, 1, 2, 3, 4, 5, 8, 64, 4096]) {
          if (offset === 0x13 || offset === 0x10) continue
          raw.pci.readBar(bar, offset, new Uint8Array(len))
          if (offset >= 0x1000) raw.pci.writeBar(bar, offset, new Uint8Array(len).fill(0xff))
          raw.pci.readConfig(offset, new Uint8Array(len))
        }
    expect(raw.device.started).toBe(true)
  })

  it('notify slots past the last queue are nobody', () => {
    const { raw } = registers()
    raw.start()
    const { notify } = raw.transport.structures
    for (const queue of [10, 11, 500, 1000])
      raw.pci.writeBar(notify.bar, notify.offset + 4 * queue, Uint8Array.of(0, 0))
    expect(raw.needsReset).toBe(false)
  })

  it('config read beyond the struct returns zeros', () => {
    const { raw, config } = registers()
    expect(config(0, 12).toString('hex')).toBe('000000000400000000000000')
    expect(config(4, 4).readUInt32LE()).toBe(4)
    expect(config(11, 200).equals(Buffer.alloc(200))).toBe(true)
    const out = new Uint8Array(64).fill(0xee)
    raw.device.readConfig(0, out)
    expect(Buffer.from(out.subarray(12)).equals(Buffer.alloc(52))).toBe(true)
    raw.device.readConfig(4096, out)
    expect(Buffer.from(out).equals(Buffer.alloc(64))).toBe(true)
  })

  it('configuration is readable before any status is written, and only emerg_wr can be written', async () => {
    const { raw, config } = registers()
    const { chardev } = await raw.host({ console: true, policy: 'drop-oldest' })
    const { device } = raw.transport.structures
    raw.pci.writeBar(device!.bar, device!.offset, Buffer.alloc(8, 0xff))
    expect(config(0, 12).toString('hex')).toBe('000000000400000000000000')
    for (const letter of 'panic')
      raw.registers.setBar32(device!.bar, device!.offset + 8, letter.charCodeAt(0) + 0x12345600)
    expect(chardev.text).toBe('panic')
  })
})

describe('configuration space', () => {
  it('BARs answer the sizing dance; what is read-only stays', () => {
    const { raw } = registers()
    const space = (at: number) => raw.registers.config32(at)
    const before = Array.from({ length: 64 }, (_, i) => space(4 * i))
    raw.pci.writeConfig(PCI_BASE_ADDRESS_0, new Uint8Array(24).fill(0xff))
    expect(space(PCI_BASE_ADDRESS_0)).toBe(0)
    expect(space(PCI_BASE_ADDRESS_0 + 4) >>> 0).toBe(0xfffff000)
    expect(space(PCI_BASE_ADDRESS_0 + 16) & 15).toBe(0xc)
    const size = -(space(PCI_BASE_ADDRESS_0 + 16) & ~15)
    expect(size).toBe(raw.pci.barSizes[4])
    raw.pci.writeConfig(0, new Uint8Array(4).fill(0xff))
    raw.pci.writeConfig(0x34, new Uint8Array(4).fill(0xff))
    raw.pci.writeConfig(0x40, new Uint8Array(0x44).fill(0xff))
    for (const at of [0, 8, 0x2c, 0x34, 0x40, 0x48, 0x50, 0x64, 0x74]) expect(space(at)).toBe(before[at / 4])
  })

  it('the PCI_CFG window reaches every register, and nothing but the registers', async () => {
    const { raw } = registers()
    await raw.host()
    raw.start().ready().open(1)
    const window = 0x84
    const set = (bar: number, offset: number, len: number): void => {
      raw.pci.writeConfig(window + 4, Uint8Array.of(bar))
      const words = new DataView(new ArrayBuffer(8))
      words.setUint32(0, offset, true)
      words.setUint32(4, len, true)
      raw.pci.writeConfig(window + 8, new Uint8Array(words.buffer))
    }
    set(4, 0x12, 2)
    expect(raw.registers.config16(window + 16)).toBe(10)
    set(4, STATUS, 1)
    expect(raw.registers.config8(window + 16)).toBe(15)
    // Notify by way of the window, then reset.
    raw.queue(transmitqOf(1)).desc(0, raw.queue(transmitqOf(1)).pageAddress(0), 4, 0)
    raw.queue(transmitqOf(1)).avail(0)
    set(4, 0x3000 + 4 * transmitqOf(1), 2)
    raw.pci.writeConfig(window + 16, Uint8Array.of(transmitqOf(1), 0))
    expect(raw.queue(transmitqOf(1)).usedIdx).toBe(1)
    for (const [bar, offset, len] of [
      [4, 0x13, 2],
      [4, 0, 3],
      [4, 1, 4],
      [4, 0, 0],
      [4, 0, 8],
      [4, 0x10000000, 4],
      [1, 0, 4],
      [0, 0, 4],
      [6, 0, 4],
      [255, 0, 4],
      [4, 0xfffffffc, 4],
      [4, 0xffffffff, 1],
    ] as const) {
      set(bar, offset, len)
      raw.pci.writeConfig(window + 16, new Uint8Array(4))
      raw.pci.readConfig(window + 16, new Uint8Array(4))
    }
    expect(raw.status).toBe(15)
    set(4, STATUS, 1)
    raw.pci.writeConfig(window + 16, Uint8Array.of(0))
    expect(raw.status).toBe(0)
  })

  it('bus master off: no ring is touched, nothing is lost, and on again everything goes on', async () => {
    const { raw } = registers()
    const { chardev } = await raw.host()
    raw.start().ready().open(1)
    const command = raw.registers.config16(PCI_COMMAND)
    raw.registers.setConfig16(PCI_COMMAND, command & ~4)
    raw.queue(receiveqOf(1)).postPage(0)
    const rings = () => Buffer.concat(Array.from({ length: 10 }, (_, i) => raw.queue(i).region.bytes))
    raw.queue(transmitqOf(1)).page(0).set(Buffer.from('waits'))
    raw.queue(transmitqOf(1)).desc(0, raw.queue(transmitqOf(1)).pageAddress(0), 5, 0)
    raw.queue(transmitqOf(1)).avail(0)
    const before = Buffer.from(rings())
    raw.queue(transmitqOf(1)).notify()
    raw.queue(receiveqOf(1)).notify()
    chardev.send('to the guest')
    await raw.host({ name: 'new' })
    expect(rings().equals(before)).toBe(true)
    expect(chardev.text).toBe('')
    raw.registers.setConfig16(PCI_COMMAND, command)
    expect(chardev.text).toBe('waits')
    expect(raw.queue(receiveqOf(1)).takeUsed()).toEqual([{ id: 0, len: 12 }])
    expect(raw.messages()).toContain('DEVICE_ADD 2 1')
    expect(raw.needsReset).toBe(false)
  })

  it('queues that are enabled while the bus master is off are served when it is on', async () => {
    const { raw } = registers()
    await raw.host()
    const command = raw.registers.config16(PCI_COMMAND)
    raw.registers.setConfig16(PCI_COMMAND, command & ~4)
    raw.start(BASIC | (1n << 40n)).ready()
    expect(raw.queue(3).usedIdx).toBe(0)
    raw.registers.setConfig16(PCI_COMMAND, command)
    expect(raw.queue(3).usedIdx).toBe(1)
    expect(raw.messages()).toEqual(['DEVICE_ADD 1 1'])
  })

  it('the function is no bus master before it is told so: after power-on, and after a reset', () => {
    const device = new ConsoleDevice()
    const calls: boolean[] = []
    const setBusMaster = device.setBusMaster.bind(device)
    device.setBusMaster = (on) => {
      calls.push(on)
      setBusMaster(on)
    }
    const pci = new VirtioPci(device, new GuestMemory())
    expect(calls.at(-1)).toBe(false)
    pci.writeConfig(PCI_COMMAND, Uint8Array.of(6, 0))
    expect(calls.at(-1)).toBe(true)
    pci.reset()
    expect(calls.at(-1)).toBe(false)
  })
})
