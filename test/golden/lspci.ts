/** Decodes a configuration space as `lspci -n -vv` prints it, as far as a virtio function has it. */

export function decode(bytes: Uint8Array, slot = '00:05.0'): string {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const u8 = (at: number): number => view.getUint8(at)
  const u16 = (at: number): number => view.getUint16(at, true)
  const u32 = (at: number): number => view.getUint32(at, true)
  const hex = (n: number, width: number): string => n.toString(16).padStart(width, '0')
  const flags = (word: number, names: readonly (readonly [string, number])[]): string =>
    names.map(([name, bit]) => `${name}${word & (1 << bit) ? '+' : '-'}`).join(' ')
  const lines = [
    `${slot} ${hex(u16(10), 4)}: ${hex(u16(0), 4)}:${hex(u16(2), 4)} (rev ${hex(u8(8), 2)})`,
    `\tSubsystem: ${hex(u16(0x2c), 4)}:${hex(u16(0x2e), 4)}`,
    `\tControl: ${flags(u16(4), CONTROL)}`,
    `\tStatus: ${flags(u16(6), STATUS_LOW)} DEVSEL=fast ${flags(u16(6), STATUS_HIGH)}`,
  ]
  if (u16(4) & 4) lines.push(`\tLatency: ${u8(13)}`)
  if (u8(0x3d)) lines.push(`\tInterrupt: pin ${' ABCD'[u8(0x3d)]} routed to IRQ ${u8(0x3c)}`)
  for (let bar = 0; bar < 6; bar++) {
    const low = u32(0x10 + 4 * bar)
    const wide = (low & 6) === 4
    const address = (wide ? u32(0x14 + 4 * bar) * 2 ** 32 : 0) + (low & ~15 ? (low & ~15) >>> 0 : 0)
    if (low === 0 || address === 0) continue
    const kind = `${wide ? 64 : 32}-bit, ${low & 8 ? '' : 'non-'}prefetchable`
    lines.push(`\tRegion ${bar}: Memory at ${hex(address, 8)} (${kind})`)
    if (wide) bar++
  }
  for (let at = u8(0x34); at; at = u8(at + 1)) {
    if (u8(at) === 9) {
      lines.push(
        `\tCapabilities: [${hex(at, 2)}] Vendor Specific Information: VirtIO: ${TYPES[u8(at + 3)] ?? '<unknown>'}`,
      )
      const multiplier = u8(at + 3) === 2 ? ` multiplier=${hex(u32(at + 16), 8)}` : ''
      lines.push(`\t\tBAR=${u8(at + 4)} offset=${hex(u32(at + 8), 8)} size=${hex(u32(at + 12), 8)}${multiplier}`)
    } else if (u8(at) === 0x11) {
      const control = u16(at + 2)
      const mask = flags(control, [['Masked', 14]])
      lines.push(
        `\tCapabilities: [${hex(at, 2)}] MSI-X: ${flags(control, [['Enable', 15]])} Count=${(control & 0x7ff) + 1} ${mask}`,
      )
      for (const [name, offset] of [
        ['Vector table', 4],
        ['PBA', 8],
      ] as const)
        lines.push(`\t\t${name}: BAR=${u32(at + offset) & 7} offset=${hex((u32(at + offset) & ~7) >>> 0, 8)}`)
    } else lines.push(`\tCapabilities: [${hex(at, 2)}] #${hex(u8(at), 2)}`)
  }
  return `${lines.join('\n')}\n`
}

const TYPES = [undefined, 'CommonCfg', 'Notify', 'ISR', 'DeviceCfg']
const CONTROL = [
  ['I/O', 0],
  ['Mem', 1],
  ['BusMaster', 2],
  ['SpecCycle', 3],
  ['MemWINV', 4],
  ['VGASnoop', 5],
  ['ParErr', 6],
  ['Stepping', 7],
  ['SERR', 8],
  ['FastB2B', 9],
  ['DisINTx', 10],
] as const
const STATUS_LOW = [
  ['Cap', 4],
  ['66MHz', 5],
  ['UDF', 6],
  ['FastB2B', 7],
  ['ParErr', 8],
] as const
const STATUS_HIGH = [
  ['>TAbort', 11],
  ['<TAbort', 12],
  ['<MAbort', 13],
  ['>SERR', 14],
  ['<PERR', 15],
  ['INTx', 3],
] as const
