/** Results as a picture: one row a case, its ratio as a point with the spread of its pairs, on one logarithmic axis. */
import type { Line } from './measure.ts'

const WIDTH = 860
const LEFT = 190
const RIGHT = 190
const ROW = 22
const TOP = 56
const TICKS = [0.25, 0.5, 1, 2, 4, 8, 16, 32]

/** Colours that can be read on white and on black; text follows the reader's scheme. */
const STYLE = `
  text { font: 12px system-ui, sans-serif; fill: #24292f }
  .grid { stroke: #8c959f; stroke-opacity: .35 }
  .one { stroke: #8c959f; stroke-width: 2 }
  .better { stroke: #1a7f37; fill: #1a7f37 }
  .worse { stroke: #bc4c00; fill: #bc4c00 }
  .spread { stroke-width: 5; stroke-opacity: .4; stroke-linecap: round }
  .dim { fill-opacity: .7 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .better { stroke: #3fb950; fill: #3fb950 }
    .worse { stroke: #f0883e; fill: #f0883e }
  }`

/** SVG of all lines that have a ratio. */
export function plot(lines: readonly Line[], caption: string): string {
  const rows = lines.flatMap((line) => (line.ratio === null ? [] : [{ ...line, ratio: line.ratio }]))
  const all = [1, ...rows.flatMap(({ ratio, spread }) => [ratio, ...spread])]
  const low = Math.log2(Math.min(...all)) - 0.1
  const high = Math.log2(Math.max(...all)) + 0.1
  const x = (ratio: number): string =>
    (LEFT + ((Math.log2(ratio) - low) / (high - low)) * (WIDTH - LEFT - RIGHT)).toFixed(1)
  const height = TOP + rows.length * ROW + 30
  const bottom = height - 26
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}">`,
    `<style>${STYLE}\n</style>`,
    text(10, 20, 'Our device against QEMU’s own: ratio of each pair of runs; to the right of 1 ours is better'),
    text(10, 38, caption, 'class="dim"'),
  ]
  for (const tick of TICKS.filter((one) => Math.log2(one) > low && Math.log2(one) < high)) {
    const at = x(tick)
    parts.push(`<line class="${tick === 1 ? 'one' : 'grid'}" x1="${at}" x2="${at}" y1="${TOP - 8}" y2="${bottom}"/>`)
    parts.push(text(at, height - 8, `${tick}×`, 'text-anchor="middle"'))
  }
  for (const [i, { case: id, unit, ours, qemu, ratio, spread }] of rows.entries()) {
    const y = TOP + i * ROW + 6
    const kind = ratio >= 1 ? 'better' : 'worse'
    parts.push(
      text(LEFT - 12, y + 4, id, 'text-anchor="end"'),
      `<line class="spread ${kind}" x1="${x(spread[0])}" x2="${x(spread[1])}" y1="${y}" y2="${y}"/>`,
      `<circle class="${kind}" cx="${x(ratio)}" cy="${y}" r="4"/>`,
      text(WIDTH - RIGHT + 12, y + 4, `${ratio}×  (${ours} / ${qemu} ${unit})`, 'class="dim"'),
    )
  }
  return `${parts.join('\n')}\n</svg>\n`
}

function text(x: number | string, y: number, words: string, more = ''): string {
  const safe = words.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
  return `<text x="${x}" y="${y}"${more && ` ${more}`}>${safe}</text>`
}
