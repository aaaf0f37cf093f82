/** A firmware's driver (EDK2's VirtioSerialDxe, as seen with OVMF 2025.02) and who comes after it in the same boot. */

import { describe, expect, it } from 'vitest'
import {
  CONTROL_RECEIVEQ,
  CONTROL_TRANSMITQ,
  receiveqOf,
  transmitqOf,
  VIRTIO_CONSOLE_PORT_OPEN,
  VIRTIO_CONSOLE_PORT_READY,
} from '../../src/spec/console.ts'
import {
  VIRTIO_CONSOLE_F_MULTIPORT,
  VIRTIO_F_VERSION_1,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from '../../src/spec/features.ts'
import { BASIC, RawDriver } from '../support/raw-driver.ts'

const EDK2 = VIRTIO_CONSOLE_F_MULTIPORT | VIRTIO_F_VERSION_1
const BUFFER_LEN = 128

/** The control queues, DRIVER_OK, and for each port its queues when the device has announced it. */
function start(raw: RawDriver, features: bigint, ids: readonly number[]): void {
  raw.negotiate(features)
  for (const queue of [CONTROL_RECEIVEQ, CONTROL_TRANSMITQ]) raw.enable(queue)
  raw.transport.writeStatus(15)
  raw.ready()
  raw.messages()
  for (const id of ids) {
    const receiveq = raw.enable(receiveqOf(id))
    raw.enable(transmitqOf(id))
    for (let i = 0; i < receiveq.size; i++) {
      receiveq.desc(i, receiveq.pageAddress(i), BUFFER_LEN, 2)
      receiveq.avail(i)
    }
    receiveq.notify()
    raw.control(id, VIRTIO_CONSOLE_PORT_READY, 1)
    // One for its own part, one as the answer to the device's.
    for (let i = 0; i < 2; i++) raw.control(id, VIRTIO_CONSOLE_PORT_OPEN, 1)
  }
}

async function ports(events: string[] = []) {
  const raw = new RawDriver({ device: { onEvent: ({ event, port }) => events.push(`${event} ${port.id}`) } })
  const generic = await raw.host({ name: 'org.test.0', id: 1 })
  const console = await raw.host({ console: true, id: 2 })
  generic.chardev.send('to the operating system')
  return { raw, generic, console }
}

describe("a firmware's driver", () => {
  it('gets nothing of a port that is not a console, and its opening is counted, not told', async () => {
    const events: string[] = []
    const { raw, generic } = await ports(events)
    start(raw, EDK2, [1, 2])
    expect(raw.queue(receiveqOf(1)).takeUsed()).toEqual([])
    expect(generic.port.guestOpen).toBe(false)
    expect(generic.port.stats()).toMatchObject({ firmwareOpens: 1, guestOpens: 0, guestCloses: 0, hostToGuestBytes: 0 })
    expect(events.filter((text) => text.startsWith('guest-'))).toEqual(['guest-open 2'])
    raw.reset()
    raw.start(BASIC).ready().open(1)
    expect(generic.port.stats()).toMatchObject({ firmwareOpens: 1, guestOpens: 1 })
    const receiveq = raw.queue(receiveqOf(1))
    receiveq.postPage(0)
    receiveq.notify()
    const [used] = receiveq.takeUsed()
    expect(Buffer.from(receiveq.page(used!.id).subarray(0, used!.len)).toString()).toBe('to the operating system')
    expect(generic.port.stats()).toMatchObject({ hostToGuestDropped: 0 })
  })

  it.each(['discard', 'keep', 'drain'] as const)('loses nothing at its reset, on-close=%s', async (onClose) => {
    const raw = new RawDriver()
    const { chardev, port } = await raw.host({ name: 'org.test.0', onClose, drainMs: 0 })
    chardev.send('kept')
    start(raw, EDK2, [1])
    raw.reset()
    await new Promise((resolve) => setTimeout(resolve, 5))
    expect(chardev.waiting).toBe(4)
    expect(port.stats()).toMatchObject({ hostToGuestDropped: 0 })
  })

  it('has its consoles, both ways', async () => {
    const { raw, console } = await ports()
    start(raw, EDK2, [1, 2])
    expect(console.port.guestOpen).toBe(true)
    expect(console.port.stats()).toMatchObject({ firmwareOpens: 0, guestOpens: 1 })
    raw.send(transmitqOf(2), Buffer.from('BdsDxe: loading'))
    expect(console.chardev.text).toBe('BdsDxe: loading')
    console.chardev.send('\u001b')
    expect(raw.queue(receiveqOf(2)).takeUsed()).toEqual([{ id: 0, len: 1 }])
  })

  it('has a port open to which it writes', async () => {
    const { raw, generic } = await ports()
    start(raw, EDK2, [1])
    raw.queue(transmitqOf(1)).notify()
    expect(generic.port.guestOpen).toBe(false)
    raw.send(transmitqOf(1), Buffer.from('a program of the firmware'))
    expect(generic.chardev.text).toBe('a program of the firmware')
    expect(generic.port.guestOpen).toBe(true)
    expect(raw.queue(receiveqOf(1)).takeUsed()).toEqual([{ id: 0, len: 23 }])
  })

  it('closes and opens again without counting twice what was open once', async () => {
    const { raw, generic } = await ports()
    start(raw, EDK2, [1])
    raw.control(1, VIRTIO_CONSOLE_PORT_OPEN, 0)
    raw.control(1, VIRTIO_CONSOLE_PORT_OPEN, 1)
    expect(generic.port.stats()).toMatchObject({ firmwareOpens: 2, guestOpens: 0, guestCloses: 0 })
  })
})

describe('no firmware', () => {
  it.each([
    ['EVENT_IDX', VIRTIO_RING_F_EVENT_IDX],
    ['INDIRECT_DESC', VIRTIO_RING_F_INDIRECT_DESC],
    ['SIZE', BASIC],
  ])('is a driver that accepts %s, however late it sets up its queues', async (_, feature) => {
    const { raw, generic } = await ports()
    start(raw, EDK2 | feature, [1])
    expect(generic.port.guestOpen).toBe(true)
    expect(generic.port.stats()).toMatchObject({ firmwareOpens: 0, guestOpens: 1, hostToGuestBytes: 23 })
  })

  it('is a driver that has set up a queue of a port before DRIVER_OK', async () => {
    const { raw, generic } = await ports()
    raw.start(EDK2).ready().open(1)
    expect(generic.port.guestOpen).toBe(true)
    // A firmware before it leaves no trace.
    raw.reset()
    start(raw, EDK2, [1])
    raw.reset()
    raw.start(EDK2).ready().open(1)
    expect(generic.port.stats()).toMatchObject({ firmwareOpens: 1, guestOpens: 2 })
  })
})
