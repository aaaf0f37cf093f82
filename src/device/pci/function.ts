/**
 * The contract between a PCI function of ours and whatever brings it to a machine (vfio-user, loopback, an emulator).
 *
 * An attachment forwards the guest's accesses and owns memory and interrupt lines; the function owns every register.
 * Nothing that the guest writes can throw out of these calls.
 */

export interface PciFunction {
  /** Size in bytes of BAR 0…5, 0 where there is none. A 64-bit BAR takes two entries, the second 0. */
  readonly barSizes: readonly number[]
  /** Bytes of configuration space, 256 or 4096. */
  readonly configSize: number
  /** Entries of the MSI-X table. The table itself is the attachment's (QEMU keeps it); the function only names vectors. */
  readonly vectors: number
  /** Whether an INTx pin exists. */
  readonly intx: boolean

  /** Reads `out.length` bytes of configuration space at `offset`; what lies outside reads as 0. */
  readConfig(offset: number, out: Uint8Array): void
  writeConfig(offset: number, data: Uint8Array): void
  /** Reads a BAR register; any width and offset, what lies outside or is not a register reads as 0. */
  readBar(bar: number, offset: number, out: Uint8Array): void
  writeBar(bar: number, offset: number, data: Uint8Array): void
  /** Function reset (machine reset): as after power-on. */
  reset(): void
  /** Goes on with what another process left in the registers: memory and interrupts are there. */
  resume?(): void
  /** Connects the interrupt lines; undefined takes them away. Interrupts raised meanwhile are lost, as on hardware. */
  connectIrq(irq: PciIrq | undefined): void
}

export interface PciIrq {
  /** Fires MSI-X vector n (n < vectors). */
  msix(vector: number): void
  /** Level of the INTx pin: true from the moment the ISR register is non-zero until the guest has read it. */
  intx(level: boolean): void
}
