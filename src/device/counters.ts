/**
 * What one port has moved, dropped and seen. Numbers exact up to 2^53 bytes, kept in the device's ledger: a process
 * that takes over goes on counting.
 */

export interface PortCounters {
  /** Bytes the guest wrote and the chardev took. */
  guestToHostBytes: number
  /** Bytes the host sent and the guest's buffers took. */
  hostToGuestBytes: number
  /** Bytes the guest wrote that no host peer will see: policy, or left at close. */
  guestToHostDropped: number
  /** Bytes the host sent that no guest program will see: left at close, or read when the device process died. */
  hostToGuestDropped: number
  /** Bytes waiting in the hold buffer now. */
  held: number
  /** Buffers (descriptor chains) consumed. */
  transmitBuffers: number
  receiveBuffers: number
  notifications: number
  interrupts: number
  guestOpens: number
  /** Times a firmware's driver opened the port, which is not a console: it stayed closed, see firmware.ts. */
  firmwareOpens: number
  guestCloses: number
  hostConnects: number
  hostDisconnects: number
  /** Times the guest had to wait for the host, and the host for the guest. */
  transmitStalls: number
  receiveStalls: number
  /** Bytes that the host may have got twice, because the device process died while it sent them. */
  guestToHostRepeated: number
}

const KEYS: readonly (keyof PortCounters)[] = [
  'guestToHostBytes',
  'hostToGuestBytes',
  'guestToHostDropped',
  'hostToGuestDropped',
  'held',
  'transmitBuffers',
  'receiveBuffers',
  'notifications',
  'interrupts',
  'guestOpens',
  'guestCloses',
  'hostConnects',
  'hostDisconnects',
  'transmitStalls',
  'receiveStalls',
  'guestToHostRepeated',
  'firmwareOpens',
]

/** Cells that the counters of a port take. */
export const COUNTER_CELLS: number = KEYS.length

class CounterCells {
  readonly cells: Float64Array
  constructor(cells: Float64Array) {
    this.cells = cells
  }
}

for (const [i, key] of KEYS.entries())
  Object.defineProperty(CounterCells.prototype, key, {
    get(this: CounterCells) {
      return this.cells[i]
    },
    set(this: CounterCells, value: number) {
      this.cells[i] = value
    },
  })

/** Counters in `cells`, as they are there. */
export function newCounters(cells: Float64Array = new Float64Array(COUNTER_CELLS)): PortCounters {
  return new CounterCells(cells) as unknown as PortCounters
}

/** The counters as they are now, in a plain object. */
export function copyOfCounters(counters: PortCounters): PortCounters {
  const copy: Partial<PortCounters> = {}
  for (const key of KEYS) copy[key] = counters[key]
  return copy as PortCounters
}
