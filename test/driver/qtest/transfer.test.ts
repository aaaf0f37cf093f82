/** Our driver half on real devices, without a guest: bytes both ways, with every kind of interrupt and ring feature. */

import { createHash, randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { DRIVER_FEATURES } from '../../../src/driver/console-options.ts'
import { VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC } from '../../../src/spec/features.ts'
import { readBytes, until } from '../../machine/rig.ts'
import type { MemoryChardev } from '../../support/memory-chardev.ts'
import { DEVICES, QtestRig, type QtestRigOptions } from './rig.ts'

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')
const MIB = 1 << 20
const LENS = [1, 2, 3, 511, 4096, 4097, 32768, 65537, MIB]
const NAME = 'org.test.0'

const VARIANTS: Record<string, QtestRigOptions> = {
  'MSI-X': {},
  'one vector for everything': { vectors: 1 },
  INTx: { vectors: 0 },
  'no EVENT_IDX': { driver: { features: DRIVER_FEATURES & ~VIRTIO_RING_F_EVENT_IDX } },
  'no INDIRECT_DESC': { driver: { features: DRIVER_FEATURES & ~VIRTIO_RING_F_INDIRECT_DESC } },
  'INTx, neither': {
    vectors: 0,
    driver: { features: DRIVER_FEATURES & ~VIRTIO_RING_F_INDIRECT_DESC & ~VIRTIO_RING_F_EVENT_IDX },
  },
}

describe.each(DEVICES)('transfer: %s', (device) => {
  let rig: QtestRig
  beforeAll(async () => void (rig = await QtestRig.start(device, { ports: [NAME] })))
  afterAll(() => rig?.close())

  const received = (chardev: MemoryChardev): number => chardev.received.reduce((sum, { length }) => sum + length, 0)

  it.each(Object.entries(VARIANTS))('1 byte to 1 MiB both ways at once: %s', async (_, options) => {
    rig.again(options)
    expect(rig.attached.vectors).toBe(Math.min(options.vectors ?? 4, device === 'ours' ? 4 : 2)) // QEMU's has 2
    const guest = await rig.open(NAME)
    const host = await rig.connect(NAME)
    const total = LENS.reduce((sum, len) => sum + len, 0)
    const toHost = randomBytes(total)
    const toGuest = randomBytes(total)
    const fromGuest = readBytes(host, total)
    let at = 0
    for (const len of LENS) {
      guest.send(toHost.subarray(at, at + len))
      host.write(toGuest.subarray(at, at + len))
      at += len
    }
    expect(sha256(await fromGuest)).toBe(sha256(toHost))
    await until(() => received(guest) >= total, `the guest has ${total} bytes`)
    expect(sha256(Buffer.concat(guest.received))).toBe(sha256(toGuest))
    const port = await rig.port(NAME)
    expect(port.counters).toMatchObject({ sentBytes: total, receivedBytes: total, receivedDropped: 0 })
    expect(rig.driver.faults).toBe(0)
    host.destroy()
    await until(() => !port.hostOpen, 'the driver hears that the peer went')
    expect(rig.log).toEqual([])
  })
})
