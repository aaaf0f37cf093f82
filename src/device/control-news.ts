/**
 * Which message comes next for a port (§5.3.6.2), from what the guest was told of it and what is true. Used by
 * control.ts.
 */

import {
  encodeControl,
  encodeSize,
  VIRTIO_CONSOLE_CONSOLE_PORT,
  VIRTIO_CONSOLE_DEVICE_ADD,
  VIRTIO_CONSOLE_DEVICE_REMOVE,
  VIRTIO_CONSOLE_PORT_NAME,
  VIRTIO_CONSOLE_PORT_OPEN,
  VIRTIO_CONSOLE_RESIZE,
  type ResizeOrder,
} from '../spec/console.ts'
import type { PortNews } from './control-notes.ts'

/** The next thing to tell about a port, and what is true once it is told. `sizes`: undefined where none are told. */
export function nextNews(
  id: number,
  port: PortNews,
  restoring: boolean,
  sizes: ResizeOrder | undefined,
): { bytes: Uint8Array; done: () => void } | undefined {
  const message = (event: number, value: number, done: () => void, tail?: Uint8Array) => ({
    bytes: encodeControl(id, event, value, tail),
    done,
  })
  if (port.owesRemove)
    return message(VIRTIO_CONSOLE_DEVICE_REMOVE, 1, () => {
      port.owesRemove = false
      port.takenBack = true
    })
  if (!port.exists) return undefined
  if (!port.toldExists) {
    if (restoring && !port.takenBack) return undefined
    return message(VIRTIO_CONSOLE_DEVICE_ADD, 1, () => (port.toldExists = port.known = true))
  }
  // The driver drops anything about a port that it has not made yet.
  if (!port.ready) return undefined
  if (port.owesConsole) return message(VIRTIO_CONSOLE_CONSOLE_PORT, 1, () => (port.owesConsole = false))
  if (port.owesName) return message(VIRTIO_CONSOLE_PORT_NAME, 1, () => (port.owesName = false), port.name)
  if (port.owesSize && port.size) {
    if (!sizes || !port.console) port.owesSize = false
    else {
      const tail = encodeSize(port.size.cols, port.size.rows, sizes)
      return message(VIRTIO_CONSOLE_RESIZE, 0, () => (port.owesSize = false), tail)
    }
  }
  if (port.toldOpen && (port.owesClose || !port.open))
    return message(VIRTIO_CONSOLE_PORT_OPEN, 0, () => (port.toldOpen = port.owesClose = false))
  if (!port.toldOpen && port.open) return message(VIRTIO_CONSOLE_PORT_OPEN, 1, () => (port.toldOpen = true))
  return undefined
}
