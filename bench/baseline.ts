/**
 * The regression guard: results against those of a committed run. Ratios are compared, never times, so that it may run
 * on another machine; a case falls when its ratio is below the worst pair of the baseline by a tenth more. By hand or
 * nightly, never in CI. Called by main.ts.
 */
import { readFile, writeFile } from 'node:fs/promises'
import { VmchannelError } from '../src/errors.ts'
import { better, type Line } from './measure.ts'

/** What is below the baseline's worst pair by less is noise. */
const TOLERANCE = 0.9

/** A case's ratio to QEMU's device, or where there is none, to the limit; undefined where there is neither. */
export function comparable({ unit, ours, ratio, limit }: Line): number | undefined {
  if (ratio !== null) return ratio
  return limit === null ? undefined : better(unit, ours, limit)
}

/** The least that a case has to reach. */
function floor(line: Line): number | undefined {
  const value = comparable(line)
  if (value === undefined || line.ratio === null) return value === undefined ? undefined : value * TOLERANCE ** 3
  return Math.min(line.spread[0], value) * TOLERANCE
}

export interface Fall {
  id: string
  ratio: number
  least: number
}

/** The cases of `lines` that fell; those that the baseline does not have cannot. */
export function fallen(baseline: readonly Line[], lines: readonly Line[]): Fall[] {
  const before = new Map(baseline.map((line) => [line.case, line]))
  const falls: Fall[] = []
  for (const line of lines) {
    const old = before.get(line.case)
    const least = old && floor(old)
    const ratio = comparable(line)
    if (least !== undefined && ratio !== undefined && ratio < least) falls.push({ id: line.case, ratio, least })
  }
  return falls
}

export async function readBaseline(path: string): Promise<Line[]> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as Line[]
  } catch (cause) {
    throw new VmchannelError('ERR_VMCHANNEL_NOT_FOUND', `${path}: no baseline can be read from it`, {
      cause,
      hint: 'make one on a quiet machine: npm run bench -- --save',
    })
  }
}

/** Keeps the old figures of cases that were not measured now. */
export async function saveBaseline(path: string, lines: readonly Line[]): Promise<Line[]> {
  const old = await readBaseline(path).catch(() => [])
  const fresh = new Map(lines.map((line) => [line.case, line]))
  const kept = old.map((line) => fresh.get(line.case) ?? line)
  const all = [...kept, ...lines.filter((line) => !old.some((one) => one.case === line.case))]
  await writeFile(path, `[\n${all.map((line) => `  ${JSON.stringify(line)}`).join(',\n')}\n]\n`)
  return all
}
