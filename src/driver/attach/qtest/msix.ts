/** The MSI-X table of a function (PCI 3.0, §6.8.2): each vector gets a line of the doorbell. */

import { PCI_MSIX_ENTRY_SIZE } from '../../../spec/pci.ts'
import { setMsix, type MsixCapability } from '../../capabilities.ts'
import type { PciRegisters } from '../../pci-registers.ts'
import type { Doorbell } from './doorbell.ts'

const TABLE = 4
const BAR_MASK = 7

/** Points vectors 0 … count - 1 at the doorbell and turns MSI-X on; returns the way back. */
export function enableMsix(
  registers: PciRegisters,
  msix: MsixCapability,
  doorbell: Doorbell,
  count: number,
  onVector: (vector: number, times: number) => void,
): () => void {
  const where = registers.config32(msix.at + TABLE)
  const bar = where & BAR_MASK
  const table = where - bar
  setMsix(registers, msix, true)
  const lines = Array.from({ length: count }, (_, vector) => {
    const line = doorbell.connect((times) => onVector(vector, times))
    const entry = table + vector * PCI_MSIX_ENTRY_SIZE
    registers.setBar32(bar, entry, line.message.address)
    registers.setBar32(bar, entry + 4, 0)
    registers.setBar32(bar, entry + 8, line.message.data)
    // Unmasked.
    registers.setBar32(bar, entry + 12, 0)
    return line
  })
  return () => {
    setMsix(registers, msix, false)
    for (const line of lines) line.release()
  }
}
