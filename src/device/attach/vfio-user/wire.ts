/**
 * vfio-user on the wire: commands, flags, layouts. All numbers are little-endian; offsets count from the payload,
 * which follows a header of 16 bytes. Used by every file of this folder.
 */

export const HEADER_SIZE = 16
/** Most data in one region access or DMA message; told to the VMM. */
export const MAX_DATA_XFER: number = 2 ** 20
/** Longest message that is taken: the data, its header, the fields before the data. */
export const MAX_MESSAGE: number = MAX_DATA_XFER + 64
/** Most descriptors in one message; told to the VMM. */
export const MAX_MSG_FDS = 16

export const COMMAND = {
  VERSION: 1,
  DMA_MAP: 2,
  DMA_UNMAP: 3,
  DEVICE_GET_INFO: 4,
  DEVICE_GET_REGION_INFO: 5,
  DEVICE_GET_REGION_IO_FDS: 6,
  DEVICE_GET_IRQ_INFO: 7,
  DEVICE_SET_IRQS: 8,
  REGION_READ: 9,
  REGION_WRITE: 10,
  DMA_READ: 11,
  DMA_WRITE: 12,
  DEVICE_RESET: 13,
  REGION_WRITE_MULTI: 15,
  DEVICE_FEATURE: 16,
} as const

/** Header: u16 id, u16 command, u32 size, u32 flags, u32 errno. */
export const HEADER = { id: 0, command: 2, size: 4, flags: 8, errno: 12 } as const
export const TYPE_MASK = 0xf
export const TYPE_REQUEST = 0
export const TYPE_REPLY = 1
export const FLAG_NO_REPLY = 0x10
export const FLAG_ERROR = 0x20

export const VERSION = { major: 0, minor: 2, json: 4, size: 4 } as const
export const DMA_MAP = { argsz: 0, flags: 4, offset: 8, iova: 16, len: 24, size: 32 } as const
export const DMA_UNMAP = { argsz: 0, flags: 4, iova: 8, len: 16, size: 24 } as const
export const DMA_ACCESS = { address: 0, count: 8, data: 16, size: 16 } as const
export const DEVICE_INFO = { argsz: 0, flags: 4, regions: 8, irqs: 12, size: 16 } as const
export const REGION_INFO = { argsz: 0, flags: 4, index: 8, capOffset: 12, len: 16, offset: 24, size: 32 } as const
export const IRQ_INFO = { argsz: 0, flags: 4, index: 8, count: 12, size: 16 } as const
export const SET_IRQS = { argsz: 0, flags: 4, index: 8, start: 12, count: 16, data: 20, size: 20 } as const
export const REGION_ACCESS = { offset: 0, region: 8, count: 12, data: 16, size: 16 } as const

export const DMA_FLAG = { READ: 1, WRITE: 2 } as const
export const UNMAP_ALL = 2
export const DEVICE_FLAG = { RESET: 1, PCI: 2 } as const
export const REGION_FLAG = { READ: 1, WRITE: 2 } as const
export const IRQ_FLAG = { EVENTFD: 1, MASKABLE: 2, AUTOMASKED: 4 } as const
export const SET_IRQS_FLAG = { NONE: 1, BOOL: 2, EVENTFD: 4, MASK: 8, UNMASK: 0x10, TRIGGER: 0x20 } as const
export const SET_IRQS_DATA = 0x7
export const SET_IRQS_ACTION = 0x38

/** Regions: BAR 0…5, ROM, configuration space, VGA. */
export const REGION_CONFIG = 7
export const REGION_COUNT = 9
/** Interrupts: INTx, MSI, MSI-X, error, request. */
export const IRQ = { INTX: 0, MSI: 1, MSIX: 2, ERR: 3, REQ: 4 } as const
export const IRQ_COUNT = 5

/** What a handler returns for a failure, negative: Linux's numbers on every host. */
export const ERRNO = {
  EIO: 5,
  E2BIG: 7,
  ENOMEM: 12,
  EBUSY: 16,
  EEXIST: 17,
  EINVAL: 22,
  ENOTTY: 25,
  ENOSPC: 28,
} as const

/** One whole message in the receive buffer. A single object, reused for each: valid during the call only. */
export interface Message {
  readonly bytes: Uint8Array
  readonly view: DataView
  id: number
  command: number
  flags: number
  errno: number
  /** Where the payload starts, and how long it is. */
  at: number
  len: number
  /** Descriptors that came along. Who keeps one writes -1 over it; the others are closed after the call. */
  fds: number[]
}

/** The payload of the reply, where a handler writes it: `view` at HEADER_SIZE and after. */
export interface Reply {
  readonly bytes: Uint8Array
  readonly view: DataView
}

/** Answers one command: bytes of payload that it wrote into the reply, or -errno. */
export type Handler = (message: Message, reply: Reply) => number

/** An unsigned 64-bit field as a number; NaN where it is 2^53 or more. */
export function getU64(view: DataView, at: number): number {
  const high = view.getUint32(at + 4, true)
  return high < 0x20_0000 ? high * 0x1_0000_0000 + view.getUint32(at, true) : Number.NaN
}

export function setU64(view: DataView, at: number, value: number): void {
  const high = Math.floor(value / 0x1_0000_0000)
  view.setUint32(at, value - high * 0x1_0000_0000, true)
  view.setUint32(at + 4, high, true)
}

/** Writes a header; returns the whole size. */
export function setHeader(view: DataView, id: number, command: number, len: number, flags: number, errno = 0): number {
  view.setUint16(HEADER.id, id, true)
  view.setUint16(HEADER.command, command, true)
  view.setUint32(HEADER.size, HEADER_SIZE + len, true)
  view.setUint32(HEADER.flags, flags, true)
  view.setUint32(HEADER.errno, errno, true)
  return HEADER_SIZE + len
}
