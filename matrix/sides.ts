/** The two sides of a cell in the words of the checks; the same for every device and every driver. */
import type { Socket } from 'node:net'
import type { PortWish } from '../lab/console-host.ts'

export interface HostSide {
  addPort(name: string, wish?: PortWish): Promise<void>
  removePort(name: string): Promise<void>
  /** Whether the host knows that somebody in the guest has the port open. */
  guestOpen(name: string): Promise<boolean>
  connect(name: string): Promise<Socket>
}

export interface GuestSide {
  /** Names of the generic ports that there are. */
  names(): Promise<string[]>
  /** Numbers of the same. */
  id(name: string): Promise<number>
  /** Writes `total` bytes of the pattern, `size` at a time; the digest of what was written. */
  send(name: string, total: number, size: number): Promise<string>
  /** Opens the port for reading; the result reads `total` bytes of it and gives their digest. */
  receive(name: string, total: number): Promise<() => Promise<string>>
  /** Opens the port; the result closes it. */
  hold(name: string): Promise<() => Promise<void>>
  /** Whether the guest knows that somebody on the host is there. */
  hostOpen(name: string): Promise<boolean>
  /** Ends the driver, device reset, and starts it again. */
  restartDriver(): Promise<void>
  /** Resets the machine, and starts the driver again. */
  resetMachine(): Promise<void>
}

export interface Sides {
  host: HostSide
  guest: GuestSide
  /** The digest of what was written to the first port before power-on, by a peer that is still there. */
  early?: { peer: Socket; len: number; sha256: string }
  /** What was complained about on the way, by device or driver. */
  complaints(): string[]
  /** What device, driver and guest said last, for who has to find out. */
  lastWords(): string[]
}

/** Ports that a cell has from the start. */
export const PORTS: readonly string[] = ['org.matrix.a', 'org.matrix.b']
