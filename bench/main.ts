/**
 * `npm run bench [-- --json] [--pairs N] [PART …]`: our device against QEMU's own, in one run.
 *
 * A part is a case id or the start of one. The two sides take turns; above 1 ours is better.
 */
import { parseArgs } from 'node:util'
import { measure, type Result } from './measure.ts'
import { ALL_IDS, chosen, chosenCases, SUITES } from './suites.ts'

const { values, positionals } = parseArgs({
  options: { json: { type: 'boolean', default: false }, pairs: { type: 'string', default: '7' } },
  allowPositionals: true,
})
const pairs = Number(values.pairs)
if (!Number.isInteger(pairs) || pairs < 1) usage(`--pairs ${values.pairs}: expected a number from 1`)
for (const part of positionals)
  if (!ALL_IDS.some((id) => id.startsWith(part))) usage(`no case starts with ${part}; there are ${ALL_IDS.join(' ')}`)

for (const suite of SUITES) {
  const cases = chosenCases(suite, positionals)
  if (cases.length === 0) continue
  const session = await suite.start()
  try {
    process.stderr.write(`${session.banner}; ${pairs} pairs, medians\n`)
    for (const info of cases)
      for (const result of await measure(session, info, pairs))
        if (chosen(result.line.case, positionals)) report(result)
  } finally {
    await session.close()
  }
}

function report({ line, title }: Result): void {
  if (values.json) return void process.stdout.write(`${JSON.stringify(line)}\n`)
  const { ours, qemu, unit, ratio, limit, spread } = line
  const figures = [`${ours}`.padStart(8), `${qemu ?? '-'}`.padStart(8), unit.padEnd(5)].join(' ')
  const compared = `${ratio ?? ''}`.padStart(5)
  const bounds = `(${spread.join('…')})${limit === null ? '' : `, limit ${limit}`}`
  process.stdout.write(`${line.case.padEnd(20)} ${figures} ratio ${compared} ${bounds.padEnd(30)} ${title}\n`)
}

function usage(message: string): never {
  process.stderr.write(`bench: ${message}\n`)
  process.exit(2)
}
