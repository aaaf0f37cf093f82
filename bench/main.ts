/** `npm run bench`: our device against QEMU's own, in one run. `npm run bench -- --help` has the options. */
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs, type ParseArgsConfig } from 'node:util'
import { repoRoot } from '../lab/paths.ts'
import { fallen, readBaseline, saveBaseline } from './baseline.ts'
import { measure, type Line, type Result } from './measure.ts'
import { plot } from './plot.ts'
import { ALL_IDS, chosen, chosenCases, SUITES } from './suites.ts'
import { markdown } from './targets.ts'

const HELP = `npm run bench [-- OPTION … PART …]: our device against QEMU's own, in one run.

A part is a case id or the start of one. The two sides take turns; above 1 ours is better.
  --json        one line of JSON a figure
  --pairs N     pairs of runs; default 7
  --vectors N   both devices with N interrupt vectors, where the guest is stock Linux; default: each its own default
  --svg FILE    a plot of what was measured; --plot: of docs/bench.svg
  --markdown    a table against the targets
  --save        keeps the figures in bench/baseline.json
  --guard       ends with 1 and the names of the cases that fell below bench/baseline.json
  --from FILE   measures nothing, takes the lines of an earlier --json

Cases: ${ALL_IDS.join(' ')}
`

const flag = { type: 'boolean', default: false } as const
const { values, positionals } = parse({
  options: {
    ...{ help: flag, json: flag, plot: flag, save: flag, guard: flag, markdown: flag },
    ...{
      pairs: { type: 'string', default: '7' },
      vectors: { type: 'string' },
      svg: { type: 'string' },
      from: { type: 'string' },
    },
  },
  allowPositionals: true,
})
if (values.help) {
  process.stdout.write(HELP)
  process.exit()
}
const BASELINE = join(repoRoot(), 'bench', 'baseline.json')
const pairs = Number(values.pairs)
if (!Number.isInteger(pairs) || pairs < 1) usage(`--pairs ${values.pairs}: expected a number from 1`)
const vectors = values.vectors === undefined ? undefined : Number(values.vectors)
if (vectors !== undefined && !(Number.isInteger(vectors) && vectors >= 2 && vectors <= 2048))
  usage(`--vectors ${values.vectors}: expected a number from 2 to 2048`)
for (const part of positionals)
  if (!ALL_IDS.some((id) => id.startsWith(part))) usage(`no case starts with ${part}; there are ${ALL_IDS.join(' ')}`)

// Before the measuring, which takes minutes: without a baseline there is nothing to guard.
const baseline = values.guard ? await readBaseline(BASELINE) : []
const lines = values.from === undefined ? await measureAll() : await earlier(values.from)
if (values.markdown) process.stdout.write(`${markdown(lines)}\n`)
if (values.save) await saveBaseline(BASELINE, lines)
const svg = values.svg ?? (values.plot ? join(repoRoot(), 'docs', 'bench.svg') : undefined)
if (svg !== undefined)
  await writeFile(
    svg,
    plot(
      lines,
      `medians of ${Math.min(...lines.map(({ runs }) => runs))} pairs or more, bars from the worst pair to the best; right: ours / QEMU’s`,
    ),
  )
for (const { id, ratio, least } of fallen(baseline, lines)) {
  process.stderr.write(`bench: ${id} fell: ratio ${ratio.toFixed(2)}, at least ${least.toFixed(2)} was expected\n`)
  process.exitCode = 1
}

function parse<T extends ParseArgsConfig>(config: T): ReturnType<typeof parseArgs<T>> {
  try {
    return parseArgs(config)
  } catch (error) {
    return usage((error as Error).message)
  }
}

async function measureAll(): Promise<Line[]> {
  const found: Line[] = []
  for (const suite of SUITES) {
    const cases = chosenCases(suite, positionals)
    if (cases.length === 0) continue
    const session = await suite.start(vectors === undefined ? {} : { vectors })
    try {
      process.stderr.write(`${session.banner}; ${pairs} pairs, medians\n`)
      for (const info of cases)
        for (const result of await measure(session, info, pairs)) {
          if (!chosen(result.line.case, positionals)) continue
          report(result)
          found.push(result.line)
        }
    } finally {
      await session.close()
    }
  }
  return found
}

async function earlier(path: string): Promise<Line[]> {
  const text = await readFile(path, 'utf8')
  const all = text.split('\n').filter((line) => line.startsWith('{'))
  return all.map((line) => JSON.parse(line) as Line).filter((line) => chosen(line.case, positionals))
}

function report({ line, title }: Result): void {
  if (values.markdown) return
  if (values.json) return void process.stdout.write(`${JSON.stringify(line)}\n`)
  const { ours, qemu, unit, ratio, limit, spread } = line
  const figures = [`${ours}`.padStart(8), `${qemu ?? '-'}`.padStart(8), unit.padEnd(5)].join(' ')
  const compared = `${ratio ?? ''}`.padStart(5)
  const bounds = `(${spread.join('…')})${limit === null ? '' : `, limit ${limit}`}`
  process.stdout.write(`${line.case.padEnd(22)} ${figures} ratio ${compared} ${bounds.padEnd(30)} ${title}\n`)
}

function usage(message: string): never {
  process.stderr.write(`bench: ${message}\n`)
  process.exit(2)
}
