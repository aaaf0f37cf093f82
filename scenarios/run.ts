/** Runs scenarios, each on every device, in one machine for as long as that is in order. */
import type { KernelSeries } from '../lab/fetch/kernel.ts'
import { describeError } from '../src/errors.ts'
import { NotHere, type DeviceName, type Scenario, type ScenarioResult } from './scenario.ts'
import type { Side } from './side.ts'
import { World } from './world.ts'

/** A scenario that is not through by then has hung. */
const LIMIT_MS = 600_000

export interface RunOptions {
  devices: readonly DeviceName[]
  kernel: KernelSeries
  report(result: ScenarioResult): void
  /** What it runs on. */
  banner?(text: string): void
}

export async function runScenarios(scenarios: readonly Scenario[], options: RunOptions): Promise<void> {
  const { devices, kernel } = options
  let world: World | undefined
  try {
    for (const scenario of scenarios)
      for (const device of devices) {
        const { id, title } = scenario
        const never = scenario.never?.[device]
        if (never !== undefined) {
          options.report({ id, title, device, status: 'n/a', why: never, seconds: 0 })
          continue
        }
        world ??= await World.start(devices, kernel)
        options.banner?.(world.banner)
        const result = await runOne(
          scenario,
          world.sides.find((side) => side.device === device)!,
          world,
        )
        options.report(result)
        // What a failure leaves behind is not for the next one.
        if (result.status === 'fail' || scenario.spoils) {
          await world.close()
          world = undefined
        }
      }
  } finally {
    await world?.close()
  }
}

async function runOne(scenario: Scenario, side: Side, world: World): Promise<ScenarioResult> {
  const { id, title } = scenario
  const result: ScenarioResult = { id, title, device: side.device, status: 'pass', why: '', seconds: 0 }
  const begun = Date.now()
  const logged = world.machine.log.length
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no end in ${LIMIT_MS / 1000} s`)), LIMIT_MS)
  })
  late.catch(() => {})
  try {
    result.why = (await Promise.race([scenario.run(side), late])) ?? ''
    await Promise.race([side.tidy(), late])
    // A guest may complain of what is done to it; a bug it must not find.
    const bug = /^.*\b(BUG:|WARNING:|soft lockup|nobody cared).*$/m.exec(world.machine.log.slice(logged))?.[0]
    if (bug !== undefined) throw new Error(`the guest's kernel: ${bug}`)
  } catch (error) {
    result.status = error instanceof NotHere ? 'n/a' : 'fail'
    result.why = describeError(error)
    if (result.status === 'fail') result.log = world.lastWords()
    else await side.tidy()
  } finally {
    clearTimeout(timer)
    result.seconds = Math.round((Date.now() - begun) / 100) / 10
  }
  return result
}
