/**
 * Compares everything that can be seen of a device with the model: VM and ports over the control socket, what the guest
 * was told, registers, memory map, bytes that nobody sent, lines in the log. Throws with what is different.
 */

import { deepStrictEqual } from 'node:assert'
import { CONTROL_RECEIVEQ, CONTROL_TRANSMITQ } from '../src/spec/console.ts'
import {
  VIRTIO_PCI_COMMON_GF,
  VIRTIO_PCI_COMMON_GFSELECT,
  VIRTIO_PCI_COMMON_MSIX,
  VIRTIO_PCI_COMMON_Q_DESCLO,
  VIRTIO_PCI_COMMON_Q_SELECT,
  VIRTIO_PCI_COMMON_STATUS,
} from '../src/spec/pci.ts'
import { QUEUES, QUEUE_SIZE } from './driver.ts'
import { MAPS, type MapName } from './guest.ts'
import type { Rig } from './rig.ts'
import { guestToHost, hostToGuest } from './transfer.ts'

const NO_VECTOR = 0xffff
const CONTROL_QUEUE_SIZE = 64
const PING = 40
const ERROR = /\b(?:error|fatal)\b/i

export interface Depth {
  /** Registers and memory map too, and a few bytes through every port: after a takeover. */
  full: boolean
}

export async function check(rig: Rig, { full }: Depth): Promise<void> {
  await checkControl(rig)
  checkGuest(rig)
  if (full && rig.attached) {
    await checkMemory(rig)
    await checkRegisters(rig)
    for (const { id, connected } of rig.ports.values())
      if (connected && rig.driver.isOpen(id)) {
        await hostToGuest(rig, id, PING)
        await guestToHost(rig, id, PING)
      }
  }
  const { received } = { received: [...rig.ports.values()].filter(({ peer }) => (peer?.received.length ?? 0) > 0) }
  if (received.length > 0) throw new Error(`port ${received[0]!.id}: the host got bytes that nobody sent`)
  for (const [id, bytes] of rig.driver.inbox)
    if (bytes.length > 0) throw new Error(`port ${id}: the guest got ${bytes.length} bytes that nobody sent`)
  const line = rig.log.split('\n').find((each) => ERROR.test(each) && !rig.expected?.test(each))
  if (line !== undefined) throw new Error(`in the log: ${line}`)
}

async function checkControl(rig: Rig): Promise<void> {
  const { driver } = rig
  const expected = [...rig.ports.values()]
    .toSorted((a, b) => a.id - b.id)
    .map(({ id, name, console, connected }) => ({
      ...{ port: id, name, console, place: rig.places.get(id) ?? null },
      ...{ guestReady: driver.ports.has(id), guestOpen: driver.isOpen(id), hostConnected: connected },
    }))
  // The device hears of a peer's end, and of the guest's, in its own time.
  let difference: unknown
  for (const deadline = performance.now() + 5000; ;) {
    const [vms, ports, stats] = await rig.control(async (client) => [
      await client.request('vm.list', {}),
      await client.request('port.list', {}),
      await client.request('port.stats', {}),
    ])
    for (const { port, counters } of stats) rig.counters.set(port, counters)
    const found = ports.map(({ port, name, console, place, guestReady, guestOpen, hostConnected }) => ({
      ...{ port, name, console, place, guestReady, guestOpen, hostConnected },
    }))
    try {
      deepStrictEqual(found, expected)
      const { attached, started, problem } = vms[0]!
      deepStrictEqual(
        { vms: vms.length, attached, started, problem },
        { vms: 1, attached: rig.attached, started: (driver.status & 4) !== 0, problem: null },
      )
      break
    } catch (error) {
      difference = error
    }
    if (performance.now() > deadline) throw difference
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  for (const { id, lossy } of rig.ports.values()) {
    const { guestToHostRepeated, hostToGuestDropped } = rig.counters.get(id)!
    if (!lossy && guestToHostRepeated + hostToGuestDropped > 0)
      throw new Error(`port ${id}: ${guestToHostRepeated} bytes counted as repeated, ${hostToGuestDropped} as lost`)
  }
}

/** What the guest was told. */
function checkGuest({ guest, driver, ports, attached }: Rig): void {
  if (guest.fault !== undefined) throw new Error(guest.fault)
  if (driver.wrong.length > 0) throw new Error(driver.wrong[0])
  if (!attached || driver.ports.size === 0) return
  for (const { id, name, console, openForGuest } of ports.values()) {
    const known = driver.ports.get(id)
    if (!known) throw new Error(`the guest was not told of port ${id}`)
    const { size: _, ...found } = known
    deepStrictEqual(found, { console, name, hostOpen: openForGuest }, `port ${id} as the guest knows it`)
  }
  for (const id of driver.ports.keys()) if (!ports.has(id)) throw new Error(`the guest still has port ${id}`)
}

/** Control queues have a size of their own. */
function sizeMax(index: number): number {
  return index === CONTROL_RECEIVEQ || index === CONTROL_TRANSMITQ ? CONTROL_QUEUE_SIZE : QUEUE_SIZE
}

async function checkMemory({ guest, maps }: Rig): Promise<void> {
  for (const name of Object.keys(MAPS) as MapName[])
    if ((await guest.isMapped(name)) !== maps.has(name))
      throw new Error(`guest memory "${name}" is ${maps.has(name) ? 'not mapped' : 'still mapped'}`)
}

async function checkRegisters({ guest, driver }: Rig): Promise<void> {
  for (const [offset, value] of guest.selects) {
    const len = offset === VIRTIO_PCI_COMMON_Q_SELECT ? 2 : 4
    const found = await guest.readNumber(offset, len)
    if (found !== value) throw new Error(`register ${offset} has ${found}, ${value} was written`)
  }
  const status = await guest.readNumber(VIRTIO_PCI_COMMON_STATUS, 1)
  if (status !== driver.status) throw new Error(`device_status is ${status}, expected ${driver.status}`)
  if (status < 11) return
  const selects = [...guest.selects]
  const { features } = driver
  for (const word of [0, 1]) {
    await guest.write(VIRTIO_PCI_COMMON_GFSELECT, word, 4)
    const wanted = Number((features >> BigInt(32 * word)) & 0xffffffffn)
    const found = await guest.readNumber(VIRTIO_PCI_COMMON_GF, 4)
    if (found !== wanted) throw new Error(`driver_feature ${word} is ${found}, expected ${wanted}`)
  }
  const vector = await guest.readNumber(VIRTIO_PCI_COMMON_MSIX, 2)
  if (vector !== 0) throw new Error(`config_msix_vector is ${vector}`)
  for (let index = 0; index < QUEUES; index++) {
    await guest.write(VIRTIO_PCI_COMMON_Q_SELECT, index, 2)
    const queue = guest.queues.get(index)
    const words = await guest.read(VIRTIO_PCI_COMMON_Q_SELECT, 8)
    const found = [1, 2, 3].map((i) => words.readUInt16LE(2 * i))
    deepStrictEqual(
      found,
      queue ? [QUEUE_SIZE, queue.vector, 1] : [sizeMax(index), NO_VECTOR, 0],
      `size, vector and enable of queue ${index}`,
    )
    const places = await guest.read(VIRTIO_PCI_COMMON_Q_DESCLO, 24)
    const at = queue ? [queue.raw.at.desc, queue.raw.at.avail, queue.raw.at.used] : [0, 0, 0]
    deepStrictEqual(
      [0, 8, 16].map((offset) => Number(places.readBigUInt64LE(offset))),
      at,
      `addresses of queue ${index}`,
    )
  }
  for (const [offset, value] of selects) await guest.write(offset, value, offset === VIRTIO_PCI_COMMON_Q_SELECT ? 2 : 4)
}
