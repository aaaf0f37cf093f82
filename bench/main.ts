/**
 * `npm run bench [-- --json] [--pairs N] [PART …]`: our device against QEMU's own, in one guest, in one run.
 *
 * Machines are noisy, so the two sides take turns and what counts is the ratio of each pair; above 1 ours is better.
 */
import { parseArgs } from 'node:util'
import { CASES } from './cases.ts'
import { Rig, SIDES, type Side } from './rig.ts'

const { values, positionals } = parseArgs({
  options: { json: { type: 'boolean', default: false }, pairs: { type: 'string', default: '7' } },
  allowPositionals: true,
})
const pairs = Number(values.pairs)
if (!Number.isInteger(pairs) || pairs < 1) {
  process.stderr.write(`bench: --pairs ${values.pairs}: expected a number from 1\n`)
  process.exit(2)
}
const chosen = CASES.filter((c) => positionals.length === 0 || positionals.some((part) => c.id.startsWith(part)))
if (chosen.length === 0) {
  process.stderr.write(
    `bench: no case starts with ${positionals.join(', ')}; there are ${CASES.map((c) => c.id).join(' ')}\n`,
  )
  process.exit(2)
}

const rig = await Rig.start()
try {
  process.stderr.write(`QEMU ${rig.qemuVersion}, guest Linux ${rig.kernelVersion}, TCG; ${pairs} pairs, medians\n`)
  for (const measured of chosen) {
    const { id, title, unit } = measured
    const figures = new Map<string, Record<Side, number[]>>()
    for (let pair = 0; pair <= pairs; pair++) {
      // Turn about, so that neither side always comes second.
      for (const side of pair % 2 ? SIDES : SIDES.toReversed()) {
        const result = await measured.run(rig, side)
        if (pair === 0) continue // warm-up
        for (const [name, value] of Object.entries(result)) {
          const entry = figures.get(name) ?? { ours: [], qemu: [] }
          entry[side].push(value)
          figures.set(name, entry)
        }
      }
    }
    for (const [name, { ours, qemu }] of figures) report(name || id, title, unit, ours, qemu)
  }
} finally {
  await rig.close()
}

function report(id: string, title: string, unit: string, ours: number[], qemu: number[]): void {
  const ratios = ours.map((value, i) => (unit === 'us' ? qemu[i]! / value : value / qemu[i]!))
  const line = { case: id, unit, ours: round(median(ours)), qemu: round(median(qemu)), ratio: round(median(ratios)) }
  if (values.json) process.stdout.write(`${JSON.stringify({ ...line, runs: ours.length })}\n`)
  else {
    const spread = `${round(Math.min(...ratios))}…${round(Math.max(...ratios))}`
    const row = [id.padEnd(18), `${line.ours}`.padStart(8), `${line.qemu}`.padStart(8), unit.padEnd(5)]
    process.stdout.write(`${row.join(' ')} ratio ${`${line.ratio}`.padStart(5)} (${spread})  ${title}\n`)
  }
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

function round(n: number): number {
  return Number(n.toPrecision(n >= 100 ? 4 : 3))
}
