/**
 * `npm run bench [-- --json] [--pairs N] [PART …]`: our device against QEMU's own, in one guest, in one run.
 *
 * Machines are noisy, so the two sides take turns and what counts is the ratio of each pair; above 1 ours is better.
 */
import { parseArgs } from 'node:util'
import { END_TO_END } from './cases.ts'
import { SIDES, type CaseInfo, type Session, type Side } from './case.ts'
import { NATIVE } from './native.ts'

/** Figures by name: of both sides, and with no device in between. */
type Figures = Map<string, Record<Side | 'limit', number[]>>

const { values, positionals } = parseArgs({
  options: { json: { type: 'boolean', default: false }, pairs: { type: 'string', default: '7' } },
  allowPositionals: true,
})
const pairs = Number(values.pairs)
if (!Number.isInteger(pairs) || pairs < 1) {
  process.stderr.write(`bench: --pairs ${values.pairs}: expected a number from 1\n`)
  process.exit(2)
}
const suites = [END_TO_END, NATIVE]
const wanted = ({ id }: CaseInfo): boolean =>
  positionals.length === 0 || positionals.some((part) => id.startsWith(part))
if (!suites.some(({ cases }) => cases.some(wanted))) {
  const all = suites.flatMap(({ cases }) => cases.map(({ id }) => id)).join(' ')
  process.stderr.write(`bench: no case starts with ${positionals.join(', ')}; there are ${all}\n`)
  process.exit(2)
}

for (const suite of suites) {
  const chosen = suite.cases.filter(wanted)
  if (chosen.length === 0) continue
  const session = await suite.start()
  try {
    process.stderr.write(`${session.banner}; ${pairs} pairs, medians\n`)
    for (const info of chosen) {
      for (const [name, figures] of await measure(session, info)) report(name, info, figures)
    }
  } finally {
    await session.close()
  }
}

async function measure(session: Session, info: CaseInfo): Promise<Figures> {
  const figures: Figures = new Map()
  for (let pair = 0; pair <= pairs; pair++) {
    const note = (side: Side | 'limit', result: Record<string, number>): void => {
      if (pair === 0) return // warm-up
      for (const [name, value] of Object.entries(result)) {
        const entry = figures.get(name) ?? { ours: [], qemu: [], limit: [] }
        entry[side].push(value)
        figures.set(name, entry)
      }
    }
    // Turn about, so that neither side always comes second.
    for (const side of pair % 2 ? SIDES : SIDES.toReversed()) note(side, await session.run(info, side))
    note('limit', await session.limit(info))
  }
  return figures
}

function report(id: string, { title, unit }: CaseInfo, { ours, qemu, limit }: Record<Side | 'limit', number[]>): void {
  const ratios = ours.map((value, i) => (unit === 'us' ? qemu[i]! / value : value / qemu[i]!))
  const line = { case: id, unit, ours: round(median(ours)), qemu: round(median(qemu)), ratio: round(median(ratios)) }
  const most = limit.length > 0 ? { limit: round(median(limit)) } : {}
  if (values.json) process.stdout.write(`${JSON.stringify({ ...line, ...most, runs: ours.length })}\n`)
  else {
    const spread = `${round(Math.min(...ratios))}…${round(Math.max(...ratios))}`
    const row = [id.padEnd(18), `${line.ours}`.padStart(8), `${line.qemu}`.padStart(8), unit.padEnd(5)]
    const bound = 'limit' in most ? `, limit ${most.limit}` : ''
    process.stdout.write(`${row.join(' ')} ratio ${`${line.ratio}`.padStart(5)} (${spread})${bound}  ${title}\n`)
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
