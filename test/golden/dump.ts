/** Our function's configuration space as a hex dump that lspci reads (-F), BARs placed as a BIOS might. */

import type { PciFunction } from '../../src/device/pci/function.ts'

export function hexDump(fn: PciFunction): string {
  const put = (offset: number, ...bytes: number[]): void => fn.writeConfig(offset, Uint8Array.from(bytes))
  put(0x14, 0, 0x10, 0xbf, 0xfe)
  put(0x20, 0, 0, 0, 0xfe, 0, 0, 0, 0)
  put(0x04, 6, 4)
  put(0x3c, 11)
  put(0x9a, 0, 0x80)
  const bytes = new Uint8Array(256)
  fn.readConfig(0, bytes)
  const hex = (n: number, width = 2): string => n.toString(16).padStart(width, '0')
  const lines = Array.from(
    { length: 16 },
    (_, i) => `${hex(16 * i)}: ${[...bytes.subarray(16 * i, 16 * i + 16)].map((byte) => hex(byte)).join(' ')}`,
  )
  return `00:05.0 Communication controller: Red Hat, Inc. Virtio 1.0 console (rev 01)\n${lines.join('\n')}\n\n`
}
