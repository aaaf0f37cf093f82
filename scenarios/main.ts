/**
 * `npm run scenarios [-- --json] [ours|qemu] [ID…]`: what the field tests of a virtio console, on our device and on
 * QEMU's own in one stock guest. Ends with 1 when ours fails; what QEMU's fails is told and is no failure of ours.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { KERNEL_SERIES, type KernelSeries } from '../lab/fetch/kernel.ts'
import { SCENARIOS } from './list/all.ts'
import { runScenarios } from './run.ts'
import type { DeviceName, Scenario, ScenarioResult } from './scenario.ts'
import { row, rows, table } from './table.ts'

const HELP = `usage: npm run scenarios -- [options] [ours|qemu] [ID ...]

  ours, qemu      one device only; default both, in one guest
  ID              scenarios to run, or how their ids start; default all
  --short         the short form, that of npm test
  --kernel K      of the guest: ${KERNEL_SERIES.join(', ')}; default 6.1
  --json          one JSON object a line: id, title, device, status, why, seconds, on
  --table         writes docs/scenarios.md
  --from FILE     with --table: of lines that --json has printed before, nothing is run; may be given more than once
  --list          ids and titles, nothing is run
`
const TABLE = join(import.meta.dirname, '../../docs/scenarios.md')
const DEVICES: readonly DeviceName[] = ['ours', 'qemu']

interface Wish {
  scenarios: Scenario[]
  devices: DeviceName[]
  kernel: KernelSeries
  json: boolean
  table: boolean
  list: boolean
  from: string[]
}

function read(args: string[]): Wish | undefined {
  try {
    const flag = { type: 'boolean', default: false } as const
    const options = { json: flag, table: flag, list: flag, short: flag, help: { ...flag, short: 'h' } } as const
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: {
        ...options,
        kernel: { type: 'string', default: '6.1' },
        from: { type: 'string', multiple: true, default: [] },
      },
    })
    if (values.help) {
      process.stdout.write(HELP)
      return undefined
    }
    const kernel = KERNEL_SERIES.find((series) => series === values.kernel)
    if (!kernel) throw new RangeError(`--kernel ${values.kernel}: expected one of ${KERNEL_SERIES.join(', ')}`)
    const named = DEVICES.filter((device) => positionals.includes(device))
    const ids = positionals.filter((word) => !DEVICES.includes(word as DeviceName))
    const means = (word: string, { id }: Scenario): boolean => id === word || id.startsWith(`${word}.`)
    for (const word of ids)
      if (!SCENARIOS.some((scenario) => means(word, scenario)))
        throw new RangeError(`${word}: there is no such scenario`)
    const scenarios = SCENARIOS.filter(
      (scenario) =>
        (ids.length === 0 || ids.some((word) => means(word, scenario))) && (!values.short || scenario.short),
    )
    return {
      ...{ scenarios, devices: named.length > 0 ? named : [...DEVICES], kernel },
      ...{ json: values.json, table: values.table, list: values.list, from: values.from },
    }
  } catch (error) {
    process.stderr.write(`scenarios: ${(error as Error).message}\n\n${HELP}`)
    process.exitCode = 2
    return undefined
  }
}

async function main({ scenarios, devices, kernel, json, table: wanted, list, from }: Wish): Promise<void> {
  if (list) return void process.stdout.write(scenarios.map(({ id, title }) => `${id.padEnd(24)}${title}\n`).join(''))
  if (from.length > 0) return tableOf(from, devices)
  const results: ScenarioResult[] = []
  let banner = ''
  if (!json)
    process.stdout.write(row(['id', 'scenario', ...devices]) + row(['---', '---', ...devices.map(() => '---')]))
  await runScenarios(scenarios, {
    ...{ devices, kernel },
    banner: (text) => void (banner = text),
    report(result) {
      results.push(result)
      const { log: _, ...line } = result
      if (json) process.stdout.write(`${JSON.stringify({ ...line, on: banner })}\n`)
      else if (result.device === devices.at(-1)) process.stdout.write(rows(results, devices).at(-1)!)
      if (result.status === 'fail')
        process.stderr.write(`${result.id} on ${result.device}: ${(result.log ?? []).join('\n')}\n`)
    },
  })
  if (wanted) writeFileSync(TABLE, table(results, devices, banner))
  for (const device of devices) {
    const count = (status: string): number => results.filter((r) => r.device === device && r.status === status).length
    process.stderr.write(`${device}: ${count('pass')} pass, ${count('fail')} fail, ${count('n/a')} not applicable\n`)
  }
  if (results.some(({ device, status }) => device === 'ours' && status === 'fail')) process.exitCode = 1
}

/** The table of runs that were made before, in the order of the list. */
function tableOf(files: readonly string[], devices: readonly DeviceName[]): void {
  const lines = files.flatMap((file) => readFileSync(file, 'utf8').split('\n').filter(Boolean))
  const results = lines.map((line) => JSON.parse(line) as ScenarioResult & { on: string })
  const ordered = SCENARIOS.flatMap(({ id }) => results.filter((result) => result.id === id))
  const banner = [...new Set(results.map(({ on }) => on).filter(Boolean))].join('; ')
  writeFileSync(TABLE, table(ordered, devices, banner))
}

const wish = read(process.argv.slice(2))
if (wish) await main(wish)
