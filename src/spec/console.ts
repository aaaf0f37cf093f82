/** The console device, virtio 1.3 §5.3: queues, configuration layout, control messages. */

/** Ports a device can have: ids 0…510. 511 pairs and the control pair are 1024 queues, all that the notify page holds. */
export const CONSOLE_PORTS_MAX = 511
export const CONSOLE_PORTS_DEFAULT = 31

// §5.3.2: 0 receiveq(port 0), 1 transmitq(port 0), 2 control receiveq, 3 control transmitq, then a pair per port
export const CONTROL_RECEIVEQ = 2
export const CONTROL_TRANSMITQ = 3

/** Index of the receiveq of a port. */
export function receiveqOf(port: number): number {
  return port === 0 ? 0 : 2 * port + 2
}

/** Index of the transmitq of a port. */
export function transmitqOf(port: number): number {
  return receiveqOf(port) + 1
}

/** The port that a data queue belongs to; undefined for the two control queues. */
export function portOfQueue(queue: number): number | undefined {
  if (queue < 2) return 0
  return queue < 4 ? undefined : (queue >> 1) - 1
}

/** Queues of a device with MULTIPORT and ports 0 … ports - 1. */
export function queuesFor(ports: number): number {
  return ports === 1 ? 4 : receiveqOf(ports - 1) + 2
}

// struct virtio_console_config, §5.3.4: le16 cols, le16 rows, le32 max_nr_ports, le32 emerg_wr
export const CONSOLE_CONFIG_COLS = 0
export const CONSOLE_CONFIG_ROWS = 2
export const CONSOLE_CONFIG_MAX_NR_PORTS = 4
export const CONSOLE_CONFIG_EMERG_WR = 8
export const CONSOLE_CONFIG_SIZEOF = 12

// struct virtio_console_control, §5.3.6.2: le32 id, le16 event, le16 value
export const CONSOLE_CONTROL_SIZEOF = 8
/** Id of messages that concern no port. */
export const CONSOLE_BAD_ID = 0xffffffff

/** The text of §5.3.6.2 says PORT_ADD where its table says DEVICE_ADD; they are event 1. */
export const VIRTIO_CONSOLE_DEVICE_READY = 0
export const VIRTIO_CONSOLE_DEVICE_ADD = 1
export const VIRTIO_CONSOLE_DEVICE_REMOVE = 2
export const VIRTIO_CONSOLE_PORT_READY = 3
export const VIRTIO_CONSOLE_CONSOLE_PORT = 4
export const VIRTIO_CONSOLE_RESIZE = 5
export const VIRTIO_CONSOLE_PORT_OPEN = 6
export const VIRTIO_CONSOLE_PORT_NAME = 7

export const CONTROL_EVENT_NAMES: readonly string[] = [
  'DEVICE_READY',
  'DEVICE_ADD',
  'DEVICE_REMOVE',
  'PORT_READY',
  'CONSOLE_PORT',
  'RESIZE',
  'PORT_OPEN',
  'PORT_NAME',
]

/** Longest port name, bytes of UTF-8: with the header it must fit the 128-byte control buffers of FreeBSD. */
export const CONSOLE_NAME_MAX = 120

export interface ControlMessage {
  id: number
  event: number
  value: number
}

/** The first 8 bytes of a control message; undefined when there are fewer. */
export function decodeControl(bytes: Uint8Array): ControlMessage | undefined {
  if (bytes.length < CONSOLE_CONTROL_SIZEOF) return undefined
  const view = new DataView(bytes.buffer, bytes.byteOffset, CONSOLE_CONTROL_SIZEOF)
  return { id: view.getUint32(0, true), event: view.getUint16(4, true), value: view.getUint16(6, true) }
}

/** A control message with what follows it: a name, or the two halves of a size. */
export function encodeControl(id: number, event: number, value: number, tail?: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(CONSOLE_CONTROL_SIZEOF + (tail?.length ?? 0))
  const view = new DataView(bytes.buffer)
  view.setUint32(0, id, true)
  view.setUint16(4, event, true)
  view.setUint16(6, value, true)
  if (tail) bytes.set(tail, CONSOLE_CONTROL_SIZEOF)
  return bytes
}

/**
 * The order of the two halves of RESIZE. The specification says cols, rows; Linux before about 6.15 reads rows, cols,
 * and no feature bit tells them apart.
 */
export type ResizeOrder = 'cols-rows' | 'rows-cols'

/** What follows the header of RESIZE: two le16. */
export function encodeSize(cols: number, rows: number, order: ResizeOrder): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(4)
  const view = new DataView(bytes.buffer)
  view.setUint16(0, order === 'cols-rows' ? cols : rows, true)
  view.setUint16(2, order === 'cols-rows' ? rows : cols, true)
  return bytes
}

/** The two le16 of RESIZE, and of the configuration (always cols, rows); undefined when there are fewer bytes. */
export function decodeSize(bytes: Uint8Array, order: ResizeOrder): { cols: number; rows: number } | undefined {
  if (bytes.length < 4) return undefined
  const view = new DataView(bytes.buffer, bytes.byteOffset, 4)
  const [first, second] = [view.getUint16(0, true), view.getUint16(2, true)]
  return order === 'cols-rows' ? { cols: first, rows: second } : { cols: second, rows: first }
}
