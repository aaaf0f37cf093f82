/**
 * Lets the two sides take turns and says what came out. Machines are noisy: what counts is the ratio of each pair, and
 * the median of those. Called by main.ts.
 */
import { MORE_IS_BETTER, SIDES, type CaseInfo, type Figures, type Session, type Side, type Unit } from './case.ts'

/** One line of `--json`. */
export interface Line {
  case: string
  unit: Unit
  ours: number
  /** QEMU's own device, or what the case says stands there; null where nobody does. */
  qemu: number | null
  /** Above 1 ours is better; null where there is nobody to compare with. */
  ratio: number | null
  /** With no device in between; null where that cannot be had. */
  limit: number | null
  runs: number
  /** Smallest and largest ratio of a pair; without a ratio, of our figures. */
  spread: [number, number]
}

export interface Result {
  line: Line
  title: string
}

type Sample = Record<Side | 'limit', number[]>

export async function measure(session: Session, info: CaseInfo, pairs: number): Promise<Result[]> {
  const samples = new Map<string, Sample>()
  const { sides = SIDES, warmUp = true } = info
  const count = Math.min(pairs, info.pairsMax ?? pairs)
  for (let pair = warmUp ? 0 : 1; pair <= count; pair++) {
    const note = (side: Side | 'limit', figures: Figures): void => {
      if (pair === 0) return // warm-up
      for (const [id, value] of Object.entries(figures)) {
        const sample = samples.get(id) ?? { ours: [], qemu: [], limit: [] }
        sample[side].push(value)
        samples.set(id, sample)
      }
    }
    // Turn about, so that neither side always comes second.
    for (const side of pair % 2 ? sides : sides.toReversed()) note(side, await session.run(info, side))
    note('limit', await session.limit(info))
  }
  return [...samples].map(([id, sample]) => ({ title: info.title, line: summary(id, info, sample) }))
}

function summary(id: string, info: CaseInfo, { ours, qemu, limit }: Sample): Line {
  const unit = info.units?.[id] ?? info.unit
  const ratios = qemu.length > 0 ? ours.map((value, i) => better(unit, value, qemu[i]!)) : []
  const spread = ratios.length > 0 ? ratios : ours
  return {
    ...{ case: id, unit, ours: round(median(ours)) },
    qemu: qemu.length > 0 ? round(median(qemu)) : null,
    ratio: ratios.length > 0 ? round(median(ratios)) : null,
    limit: limit.length > 0 ? round(median(limit)) : null,
    runs: ours.length,
    spread: [round(Math.min(...spread)), round(Math.max(...spread))],
  }
}

/** How many times `ours` is better than `other`. Costs too small to be seen are equal. */
export function better(unit: Unit, ours: number, other: number): number {
  if (ours === other) return 1
  return MORE_IS_BETTER[unit] ? ours / other : other / ours
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

export function round(n: number): number {
  return Number(n.toPrecision(n >= 100 ? 4 : 3))
}
