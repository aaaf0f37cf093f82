/** What a person sees of our device with lspci: a golden file, checked with our decoder and with the real lspci. */

import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { ensureShellTool } from '../../lab/fetch/shell-tools.ts'
import { ConsoleDevice } from '../../src/device/console.ts'
import { VirtioPci } from '../../src/device/pci/virtio-pci.ts'
import { GuestMemory } from '../../src/mem/guest-memory.ts'
import { hexDump } from './dump.ts'
import { decode } from './lspci.ts'

const golden = (name: string): string => readFileSync(new URL(`./${name}.txt`, import.meta.url), 'utf8')

function lspci(program: string, dump: string): string {
  const dir = mkdtempSync(join(tmpdir(), 'lspci-'))
  writeFileSync(join(dir, 'dump'), dump)
  const { stdout, status } = spawnSync(program, ['-F', join(dir, 'dump'), '-n', '-vv'], { encoding: 'utf8' })
  rmSync(dir, { recursive: true })
  expect(status).toBe(0) // it may complain that there are no kernel modules
  return stdout
}

for (const [name, maxPorts] of [
  ['lspci-31-ports', 31],
  ['lspci-1-port', 1],
  ['lspci-511-ports', 511],
] as const)
  describe(name, () => {
    const fn = new VirtioPci(new ConsoleDevice({ maxPorts }), new GuestMemory())
    const dump = hexDump(fn)
    const bytes = new Uint8Array(256)
    fn.readConfig(0, bytes)

    it('our decoder prints the golden text', () => {
      expect(decode(bytes)).toBe(golden(name))
    })

    it('the real lspci prints the same', async () => {
      const text = lspci(await ensureShellTool('lspci'), dump)
      // Versions of lspci differ in whether they know the name of the configuration access window.
      const same = text.trimEnd().replace(/(\[84\] Vendor Specific Information: VirtIO: ).*/, '$1<unknown>')
      expect(`${same}\n`).toBe(golden(name))
    })

    it('the structures lie inside their BARs, apart from each other, and each BAR is a power of two', () => {
      const { layout, barSizes } = fn
      for (const size of barSizes) expect(size & (size - 1)).toBe(0)
      const spans = [layout.common, layout.isr, layout.device, layout.notify].toSorted((a, b) => a.offset - b.offset)
      for (const [i, span] of spans.entries())
        expect(span.offset + span.len).toBeLessThanOrEqual(spans[i + 1]?.offset ?? layout.size)
      expect(layout.msix.vectors * 16).toBeLessThanOrEqual(layout.msix.pba)
      expect(layout.msix.pba + Math.ceil(layout.msix.vectors / 64) * 8).toBeLessThanOrEqual(layout.msix.size)
    })
  })
