/**
 * `npm run fuzz [-- --seconds N] [--seed N] [--once] [--json] [TARGET …]`: random input of every kind, reproducible.
 * A finding says how to see it again; exit status 1.
 */

import { parseArgs } from 'node:util'
import { fuzz, type FuzzResult } from './run.ts'
import { TARGETS } from './targets.ts'

const HELP = `Usage: npm run fuzz -- [options] [TARGET …]

Options:
  --seconds N   how long in all (default 60)
  --seed N      the first seed of each target (default: from the clock)
  --once        one episode of each target only: what a finding is seen again with
  --json        a line of JSON for each target

Targets:
${TARGETS.map(({ name, title }) => `  ${name.padEnd(12)}${title}`).join('\n')}
`

const { values, positionals } = parseArgs({
  options: {
    seconds: { type: 'string', default: '60' },
    seed: { type: 'string' },
    once: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
  allowPositionals: true,
})
if (values.help) {
  process.stdout.write(HELP)
  process.exit(0)
}
const seconds = number('--seconds', values.seconds, 1, 1e6)
const seed = values.seed === undefined ? Date.now() >>> 0 : number('--seed', values.seed, 0, 0xffff_ffff)
const unknown = positionals.find((name) => !TARGETS.some((target) => target.name === name))
if (unknown !== undefined)
  usage(`there is no target ${unknown}; there are ${TARGETS.map(({ name }) => name).join(' ')}`)
const targets = positionals.length === 0 ? TARGETS : TARGETS.filter(({ name }) => positionals.includes(name))

process.on('unhandledRejection', (error) => {
  process.stderr.write(`fuzz: a promise was rejected and nobody listened: ${String(error)}\n`)
  process.exit(1)
})
const results = await fuzz({ targets, seconds, seed, once: values.once }, report)
const cases = results.reduce((sum, result) => sum + result.cases, 0)
const findings = results.filter(({ finding }) => finding).length
if (!values.json) process.stdout.write(`${cases} cases, ${findings} findings\n`)
process.exitCode = findings > 0 ? 1 : 0

function report({ target, episodes, cases: count, seconds: took, from, finding }: FuzzResult): void {
  if (values.json) {
    const line = {
      target,
      cases: count,
      episodes,
      seconds: Number(took.toFixed(1)),
      from,
      status: finding ? 'fail' : 'pass',
    }
    const why = finding ? { seed: finding.seed, why: finding.message } : {}
    return void process.stdout.write(`${JSON.stringify({ ...line, ...why })}\n`)
  }
  const rate = Math.round(count / took)
  process.stdout.write(`${target.padEnd(12)}${`${count}`.padStart(9)} cases, ${rate} a second, seeds ${from} on\n`)
  if (!finding) return
  process.stdout.write(`\n${finding.stack}\n${String((finding.cause as Error)?.stack)}\n`)
  process.stdout.write(`Again: npm run fuzz -- --once --seed ${finding.seed} ${target}\n\n`)
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
