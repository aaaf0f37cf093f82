/** The driver half on a machine of device/attach/loopback.ts: its pages, its way to the registers, its interrupts. */

import type { LoopbackMachine } from '../../device/attach/loopback.ts'
import { DmaPool, type DmaPoolOptions } from '../../mem/dma-pool.ts'
import { findMsix, setMsix } from '../capabilities.ts'
import type { PciAccess } from '../pci-registers.ts'
import { PciRegisters } from '../pci-registers.ts'
import { PciTransport } from '../pci.ts'

export interface LoopbackDriverOptions extends DmaPoolOptions {
  /** MSI-X vectors to use, at most what the function has; 0: INTx. Default: all of them. */
  vectors?: number
}

export interface LoopbackDriver {
  readonly transport: PciTransport
  readonly pool: DmaPool
  /** Takes the interrupts away. */
  detach(): void
}

export function attachLoopback(machine: LoopbackMachine, options: LoopbackDriverOptions = {}): LoopbackDriver {
  const access: PciAccess = machine.function
  const registers = new PciRegisters(access)
  const msix = findMsix(registers)
  const vectors = msix ? Math.min(options.vectors ?? msix.vectors, msix.vectors) : 0
  if (msix) setMsix(registers, msix, vectors > 0)
  const pool = new DmaPool((len) => machine.allocate(len), options)
  const transport = new PciTransport(access, { vectors })
  machine.connectCpu(transport)
  return {
    transport,
    pool,
    detach() {
      transport.connect(undefined)
      machine.connectCpu(undefined)
      if (msix) setMsix(registers, msix, false)
    },
  }
}
