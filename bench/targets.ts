/** What each case is to reach, and a Markdown table of results against it, for docs/performance.md. */
import { better, type Line } from './measure.ts'

interface Target {
  /** Least ratio to QEMU's device (or what stands there). */
  ratio?: number
  /** Least part of the limit. */
  limit?: number
  /** Least or most of our own figure. */
  least?: number
  most?: number
}

const TARGETS: Readonly<Record<string, Target>> = {
  'ring.small': { least: 5 },
  'ring.4k': { least: 10 },
  'native.g2h.32k': { ratio: 1.5, limit: 0.8 },
  'native.g2h.64b': { ratio: 2 },
  'native.h2g.bulk': { ratio: 4, limit: 0.8 },
  'e2e.g2h.32k': { ratio: 1 },
  'e2e.g2h.4k': { ratio: 1 },
  'e2e.g2h.64b': { ratio: 1 },
  'e2e.g2h.splice': { ratio: 1.5 },
  'e2e.h2g.bulk': { ratio: 1 },
  'e2e.rtt.1b.p50': { ratio: 1 },
  'e2e.rtt.1b.p99': { ratio: 1 },
  'e2e.rtt.64b.p50': { ratio: 1 },
  'e2e.rtt.64b.p99': { ratio: 1 },
  'e2e.cpu.g2h': { ratio: 1 },
  'e2e.cpu.h2g': { ratio: 1 },
  'e2e.hvc': { ratio: 1 },
  'usernet.g2h': { ratio: 4 },
  'usernet.h2g': { ratio: 4 },
  'usernet.rtt': { ratio: 1.5 },
  'usernet.link.g2h': { ratio: 4 },
  'usernet.link.h2g': { ratio: 4 },
  'usernet.link.rtt': { ratio: 1.5 },
  'guest.inproc.write': { ratio: 1 },
  'guest.inproc.read': { ratio: 1 },
  'guest.cuse.write': { ratio: 0.5 },
  'guest.cuse.read': { ratio: 0.5 },
  'guest.cuse.rtt': { ratio: 0.33 },
  'scale.ports.511': { limit: 1 / 1.1 },
  'scale.ports.511.spread': { limit: 1 / 1.1 },
  'scale.ports.idle': { most: 16 },
  'scale.vms.32': { most: 4 },
  'scale.vms.32.cpu': { most: 0 },
  'scale.vms.32.apart.cpu': { most: 0 },
}

/** Part of the limit that was reached, in costs as in rates. */
function reached({ unit, ours, limit }: Line): number | undefined {
  return limit === null ? undefined : better(unit, ours, limit)
}

function goals(line: Line): { words: string; met: boolean }[] {
  const { ratio, limit, least, most } = TARGETS[line.case] ?? {}
  const goals = []
  if (ratio !== undefined) goals.push({ words: `ratio ≥ ${ratio}`, met: (line.ratio ?? 0) >= ratio })
  if (limit !== undefined) goals.push({ words: `${limit.toFixed(2)} of limit`, met: (reached(line) ?? 0) >= limit })
  if (least !== undefined) goals.push({ words: `≥ ${least}`, met: line.ours >= least })
  if (most !== undefined) goals.push({ words: `≤ ${most}`, met: line.ours <= most })
  return goals
}

export function markdown(lines: readonly Line[]): string {
  const rows = lines.map((line) => {
    const { ours, qemu, unit, ratio, spread, limit, runs } = line
    const compared = ratio === null ? `– (${spread.join('…')} ${unit})` : `${ratio} (${spread.join('…')})`
    const most = limit === null ? '' : `${limit} (${reached(line)!.toFixed(2)})`
    const target = goals(line)
      .map(({ words, met }) => `${words} ${met ? '✓' : '**missed**'}`)
      .join(', ')
    return `| \`${line.case}\` | ${ours} ${unit} | ${qemu ?? '–'} | ${compared} | ${most} | ${runs} | ${target} |`
  })
  const head = '| case | ours | theirs | ratio (spread) | limit (part reached) | runs | target |'
  return [head, '|---|---|---|---|---|---|---|', ...rows].join('\n')
}
