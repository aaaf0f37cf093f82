/**
 * `npm run kill [-- OPTION...]`: the device process is killed at every system call of a life; or its supervisor is, or
 * is stopped. Exit status 1 where something was wrong afterwards.
 */

import { parseArgs } from 'node:util'
import { killEverywhere, type Plan } from './run.ts'
import { killSupervisor, stopSupervisor } from './supervisor.ts'
import { Tracer, underTracer } from './tracer.ts'

const USAGE = `Usage: npm run kill -- [OPTION...]
  --victim device|supervisor|stopped   who is killed, or that the supervisor is stopped during each step
  --only TEXT                          steps with this in their name
  --from N --to N --every N            the stops of each step: two a system call, its entry and its exit
  --sample PERCENT                     so many of the steps only, at a stop that is drawn, in each of --lives
  --intx                               the line interrupt in place of MSI-X
  --instructions N                     go on for up to N instructions after the stop
  --lives N --seconds N                end after so many
  --seed N --json
`

const { values } = parseArgs({
  options: {
    only: { type: 'string', default: '' },
    from: { type: 'string', default: '1' },
    to: { type: 'string', default: '1000000' },
    every: { type: 'string', default: '1' },
    sample: { type: 'string', default: '0' },
    instructions: { type: 'string', default: '0' },
    lives: { type: 'string', default: '1000000' },
    victim: { type: 'string', default: 'device' },
    seconds: { type: 'string', default: '1000000' },
    seed: { type: 'string', default: '1' },
    intx: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
})
if (values.help) {
  process.stdout.write(USAGE)
  process.exit(0)
}
const number = (name: 'from' | 'to' | 'every' | 'sample' | 'instructions' | 'lives' | 'seconds' | 'seed'): number => {
  const value = Number(values[name])
  if (Number.isInteger(value) && value >= 0) return value
  process.stderr.write(`kill: --${name} is a number\n${USAGE}`)
  process.exit(2)
}
const begun = Date.now()
const plan: Plan = {
  only: values.only,
  intx: values.intx,
  from: Math.max(1, number('from')),
  to: number('to'),
  every: Math.max(1, number('every')),
  sample: number('sample'),
  instructions: number('instructions'),
  lives: number('lives'),
  seconds: number('seconds'),
  seed: number('seed'),
  note: (text) => void process.stderr.write(`${`${Math.round((Date.now() - begun) / 1000)}`.padStart(5)} s  ${text}\n`),
}

const status = await underTracer(process.argv[1]!, process.argv.slice(2))
if (status !== undefined) process.exit(status)
const tracer = new Tracer()
const report =
  values.victim === 'stopped'
    ? await stopSupervisor(plan)
    : await (values.victim === 'supervisor' ? killSupervisor : killEverywhere)(tracer, plan)
for (const { step, log } of report.failures) if (log !== '') plan.note(`${step}, the log:\n${log}`)
if (values.json) process.stdout.write(`${JSON.stringify(report)}\n`)
else {
  for (const { name, points, failed, stops } of report.steps)
    process.stdout.write(
      `${String(points).padStart(6)} kills ${String(failed).padStart(4)} failed ${String(stops ?? '?').padStart(6)} stops  ${name}\n`,
    )
  process.stdout.write(
    `${report.points} kills in ${report.lives} lives, ${report.seconds} s; ${report.lost} connections lost with the process ` +
      `that had just accepted them; ${report.failures.length} failures\n`,
  )
}
process.exit(report.failures.length > 0 ? 1 : 0)
