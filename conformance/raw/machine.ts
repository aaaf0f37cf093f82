/**
 * What a case needs of a machine with a virtio-serial PCI device in it. The targets (targets/) give one for each case;
 * who has a device that is reached in another way than over qtest writes one of these.
 */

import type { PciAccess } from '../../src/driver/pci-registers.ts'
import type { Region } from '../../src/mem/guest-memory.ts'

export interface RawMachine {
  /** The function's configuration space and BARs, which are set up. */
  readonly access: PciAccess
  /** Zeroed memory that the device reaches, in whole pages. */
  allocate(len: number): Region
  /** The device was reset: all that was allocated may be given out again. */
  recycle(): void
  /** Bus addresses with nothing there: 1 GiB and more. */
  readonly hole: number
  /** Memory that can only be read; undefined where there is none. */
  readonly readOnly: number | undefined
  /** Bus address of a BAR of the device; undefined where BARs have none. */
  barAddress(bar: number): number | undefined
  /** Takes the function's interrupts: MSI-X vectors 0 … vectors - 1, or the pin for 0. Ends the connection before. */
  interrupts(vectors: number): Interrupts
  readonly host: HostSide
  /** Until the device has had every chance to act on what it was told. */
  settle(): Promise<void>
  /** A vfio-user socket of a device like this one, with nobody attached; undefined where there is none. */
  vfioUser(): Promise<VfioUserEnd | undefined>
  /** How long to wait for what has to come, in milliseconds. */
  readonly patience: number
  /** Process id of the device where it is a process of its own. */
  readonly pid: number | undefined
  /** Why the device cannot be asked any more; undefined while all is well. */
  dead(): string | undefined
  /** All host peers leave. */
  hangUp(): void
  /** Takes back what the case has done to the host's side; the device was reset. */
  end(): Promise<void>
}

export interface VfioUserEnd {
  readonly path: string
  /** Process id of the server, where it is known. */
  readonly pid: number | undefined
}

export interface Interrupts {
  /** Times that a vector has fired. At least: a machine may tell of two as of one. */
  count(vector: number): number
  /** Whether the pin is up. */
  pin(): boolean
}

/** What the host can do with the device; anything may be missing. */
export interface HostSide {
  /** Connects to a port; undefined where nobody said how. */
  connect(port: { id: number; name: string | undefined }): Promise<HostPeer | undefined>
  /** Adds a port that is no console, with nobody connected. */
  readonly addPort: ((id: number, name: string) => Promise<void>) | undefined
  readonly removePort: ((id: number, name: string) => Promise<void>) | undefined
  /** Gives a console port a size. */
  readonly resize: ((id: number, name: string | undefined, cols: number, rows: number) => Promise<void>) | undefined
}

/** The host's end of a port. */
export interface HostPeer {
  /** All that the guest has sent to this peer. */
  received(): Buffer
  write(bytes: Uint8Array): void
  /** Bytes of `write` that are still on this side. */
  waiting(): number
  /** Whether it takes what comes; from the start it does. */
  setReading(on: boolean): void
  close(): void
}
