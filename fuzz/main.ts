/**
 * `npm run fuzz [-- --seconds N] [--seed N] [--once] [--json] [TARGET …]`: coverage-guided random input of every kind,
 * reproducible (docs/fuzzing.md). A finding says how to see it again; exit status 1.
 */

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { register } from 'node:module'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { Worker } from 'node:worker_threads'
import { cacheRoot } from '../lab/paths.ts'
import { inputName } from './corpus.ts'
import { Coverage } from './coverage.ts'
import { INPUT_MAX } from './input.ts'
import { REGRESSIONS } from './regressions.ts'
import { fuzz, type Found, type FuzzResult } from './run.ts'
import { signature } from './shrink.ts'
import type { Watched } from './watchdog.ts'

const { values, positionals } = parseArgs({
  options: {
    seconds: { type: 'string', default: '60' },
    seed: { type: 'string' },
    once: { type: 'boolean', default: false },
    input: { type: 'string' },
    all: { type: 'boolean', default: false },
    'no-coverage': { type: 'boolean', default: false },
    'no-corpus': { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
  allowPositionals: true,
})

const HANG_MS = 60_000
const guided = !values['no-coverage'] && !values.once && values.input === undefined
const coverage = guided ? new Coverage().install() : undefined
// Before the targets load what they test.
if (guided) register('./loader.js', import.meta.url)
const { TARGETS } = await import('./targets.ts')

if (values.help) {
  process.stdout.write(help())
  process.exit(0)
}
const seconds = number('--seconds', values.seconds, 1, 1e6)
const seed = values.seed === undefined ? Date.now() >>> 0 : number('--seed', values.seed, 0, 0xffff_ffff)
const unknown = positionals.find((name) => !TARGETS.some((target) => target.name === name))
if (unknown !== undefined)
  usage(`there is no target ${unknown}; there are ${TARGETS.map(({ name }) => name).join(' ')}`)
if (values.input !== undefined && positionals.length !== 1) usage('--input is the input of one target: say which')
const targets = positionals.length === 0 ? TARGETS : TARGETS.filter(({ name }) => positionals.includes(name))

const folder = join(cacheRoot(), 'fuzz')
mkdirSync(join(folder, 'findings'), { recursive: true })
const storage = new Uint8Array(new SharedArrayBuffer(INPUT_MAX))
const turns = new Int32Array(new SharedArrayBuffer(8))
const watched: Watched = {
  storage,
  turns,
  names: TARGETS.map(({ name }) => name),
  folder: join(folder, 'findings'),
  hangMs: 2 * HANG_MS,
}
const watchdog = new Worker(new URL('watchdog.js', import.meta.url), { workerData: watched })
watchdog.unref()

const results = await fuzz(
  {
    targets,
    seconds,
    seed,
    once: values.once || values.input !== undefined,
    all: values.all,
    hangMs: HANG_MS,
    storage,
    onEpisode: (name) => {
      turns[1] = watched.names.indexOf(name)
      Atomics.add(turns, 0, 1)
    },
    seeds: (target) =>
      REGRESSIONS.filter((one) => one.target === target).flatMap(({ input }) =>
        input ? [Buffer.from(input, 'base64')] : [],
      ),
    ...(coverage ? { coverage } : {}),
    ...(values.input === undefined ? {} : { input: readInput(values.input) }),
    ...(values['no-corpus'] || !guided ? {} : { corpus: join(folder, 'corpus') }),
  },
  report,
)
const cases = results.reduce((sum, result) => sum + result.cases, 0)
const findings = results.reduce((sum, result) => sum + result.findings.length, 0)
if (!values.json) process.stdout.write(`${cases} cases, ${findings} findings\n`)
process.exit(findings > 0 ? 1 : 0)

function report(result: FuzzResult): void {
  const { target, episodes, cases: count, seconds: took, from, corpus, features, findings: list } = result
  const found = list.map((one) => ({ ...one, file: store(target, one) }))
  if (values.json) {
    const why = found.map(({ finding, file, again, cases: after, seconds: at }) => ({
      why: finding.message,
      kind: signature(finding.cause),
      seed: finding.seed,
      input: file,
      again,
      cases: after,
      seconds: Number(at.toFixed(1)),
    }))
    const status = found.length > 0 ? 'fail' : 'pass'
    const line = {
      target,
      cases: count,
      episodes,
      seconds: Number(took.toFixed(1)),
      from,
      corpus,
      features,
      status,
      findings: why,
    }
    return void process.stdout.write(`${JSON.stringify(line)}\n`)
  }
  const reached = coverage ? `, ${corpus} inputs reach ${features} features` : ''
  process.stdout.write(
    `${target.padEnd(12)}${`${count}`.padStart(9)} cases, ${Math.round(count / took)} a second, seeds ${from} on${reached}\n`,
  )
  for (const { finding, file, again, cases: after, seconds: at } of found) {
    const { message, cause } = finding
    process.stdout.write(`\n${message}\n${String((cause as Error)?.stack ?? cause)}\n`)
    process.stdout.write(
      `After ${after} cases, ${at.toFixed(1)} s${again ? '' : '; the same input did not find it again'}\n`,
    )
    process.stdout.write(`Again: npm run fuzz -- --input ${file} ${target}\n\n`)
  }
}

function store(target: string, { finding }: Found): string {
  const file = join(folder, 'findings', `${target}-${inputName(finding.input)}`)
  writeFileSync(file, finding.input)
  return file
}

function readInput(file: string): Uint8Array {
  try {
    return readFileSync(file)
  } catch (error) {
    usage(`--input: ${(error as Error).message}`)
  }
}

function number(option: string, text: string, min: number, max: number): number {
  const value = Number(text)
  if (text !== '' && Number.isFinite(value) && value >= min && value <= max) return value
  usage(`${option}: "${text}" is not a number from ${min} to ${max}`)
}

function usage(message: string): never {
  process.stderr.write(`fuzz: ${message}\n`)
  process.exit(2)
}

function help(): string {
  return `Usage: npm run fuzz -- [options] [TARGET …]

Options:
  --seconds N     how long in all (default 60)
  --seed N        the first seed of each target (default: from the clock)
  --once          one episode of each target only: that of --seed
  --input FILE    one episode only: what a finding is seen again with
  --all           go on after a finding: every kind once
  --no-coverage   without feedback: seeds alone, the code not instrumented
  --no-corpus     neither read nor keep inputs in the cache
  --json          a line of JSON for each target

Targets:
${TARGETS.map(({ name, title }) => `  ${name.padEnd(12)}${title}`).join('\n')}
`
}
