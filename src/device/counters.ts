/** What one port has moved, dropped and seen. Plain numbers: exact up to 2^53 bytes. */

export interface PortCounters {
  /** Bytes the guest wrote and the chardev took. */
  guestToHostBytes: number
  /** Bytes the host sent and the guest's buffers took. */
  hostToGuestBytes: number
  /** Bytes the guest wrote that no host peer will see: policy, or left at close. */
  guestToHostDropped: number
  /** Bytes the host sent that no guest program will see: left at close. */
  hostToGuestDropped: number
  /** Bytes waiting in the hold buffer now. */
  held: number
  /** Buffers (descriptor chains) consumed. */
  transmitBuffers: number
  receiveBuffers: number
  notifications: number
  interrupts: number
  guestOpens: number
  guestCloses: number
  hostConnects: number
  hostDisconnects: number
  /** Times the guest had to wait for the host, and the host for the guest. */
  transmitStalls: number
  receiveStalls: number
}

export function newCounters(): PortCounters {
  return {
    guestToHostBytes: 0,
    hostToGuestBytes: 0,
    guestToHostDropped: 0,
    hostToGuestDropped: 0,
    held: 0,
    transmitBuffers: 0,
    receiveBuffers: 0,
    notifications: 0,
    interrupts: 0,
    guestOpens: 0,
    guestCloses: 0,
    hostConnects: 0,
    hostDisconnects: 0,
    transmitStalls: 0,
    receiveStalls: 0,
  }
}
