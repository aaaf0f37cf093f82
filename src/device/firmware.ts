/**
 * Recognises a firmware's driver, before whose end no program of the guest can have a port open.
 *
 * EDK2's VirtioSerialDxe (OVMF) answers every PORT_OPEN of the device with one of its own and posts receive buffers for
 * every port, but reads consoles only. Bytes that it is given for another port are lost when the operating system takes
 * over. Used by console.ts.
 */

import type { DeviceQueue } from '../ring/device-queue.ts'
import { portOfQueue } from '../spec/console.ts'
import {
  VIRTIO_CONSOLE_F_MULTIPORT,
  VIRTIO_CONSOLE_F_SIZE,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from '../spec/features.ts'

/** Every known driver of an operating system accepts one of these; EDK2's accepts none. */
const BY_OPERATING_SYSTEMS = VIRTIO_RING_F_EVENT_IDX | VIRTIO_RING_F_INDIRECT_DESC | VIRTIO_CONSOLE_F_SIZE

/**
 * To be asked at DRIVER_OK. An operating system's driver has set up its virtqueues by then (§3.1.1, step 7); EDK2's
 * enables the queues of a port when it hears of the port.
 */
export function isFirmware(accepted: bigint, enabled: Iterable<DeviceQueue>): boolean {
  if ((accepted & VIRTIO_CONSOLE_F_MULTIPORT) === 0n || (accepted & BY_OPERATING_SYSTEMS) !== 0n) return false
  for (const queue of enabled) if (portOfQueue(queue.index) !== undefined) return false
  return true
}
