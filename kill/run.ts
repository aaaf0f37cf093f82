/**
 * Lives one after the other. In each, the device process is killed at one stop of every step: at the first in the first
 * life, and so on until no step has a stop that was not tried. After every takeover everything is compared with the
 * model. Called by main.ts.
 */

import { check } from './check.ts'
import { LIFE, type Step } from './life.ts'
import { Rig } from './rig.ts'
import type { Death, Tracer } from './tracer.ts'

const IDLE_MS = 6
/** A process that has waited for so long has been loaded. */
const LOADED_MS = 60
const STEP_MS = 30_000
/** How often a step that can be done again is done in one life. */
const REPEATS = 8
/** Kills from one line about them to the next. */
const NOTED = 50
/** Most steps have so many stops or fewer. */
const SAMPLE_STOPS = 40

export interface Plan {
  seed: number
  /** Only steps whose name has this in it. */
  only: string
  /** The stops of each step to be killed at. */
  from: number
  to: number
  every: number
  /** Instructions to go on for after the stop; drawn anew each time, at most so many. */
  instructions: number
  /** 0: all of these. Else in so many of a hundred steps the process is killed, at a stop that is drawn. */
  sample: number
  /** The line interrupt in place of MSI-X. */
  intx: boolean
  /** Ends the run after so many lives, and after so many seconds. */
  lives: number
  seconds: number
  note(text: string): void
}

export interface StepReport {
  name: string
  points: number
  failed: number
  /** Stops that the step has, where that was found out. */
  stops: number | undefined
}

export interface Failure {
  step: string
  /** Where the process was killed; undefined where it was not. */
  death: Death | undefined
  why: string
  log: string
}

export interface Report {
  lives: number
  seconds: number
  points: number
  steps: StepReport[]
  failures: Failure[]
  /** Connections that died with the process that had just accepted them. */
  lost: number
  /** Whether every stop was tried. */
  complete: boolean
}

interface Progress extends StepReport {
  readonly step: Step
  next: number
  done: boolean
}

export async function killEverywhere(tracer: Tracer, plan: Plan): Promise<Report> {
  const begun = performance.now()
  const end = begun + plan.seconds * 1000
  const all: Progress[] = LIFE.map((step) => ({
    ...{ step, name: step.name, points: 0, failed: 0, stops: undefined, next: plan.from },
    done: step.sparse === 0 || !step.name.includes(plan.only),
  }))
  const report: Report = { lives: 0, seconds: 0, points: 0, steps: all, failures: [], lost: 0, complete: false }
  let rig: Rig | undefined
  try {
    while (performance.now() < end && report.lives < plan.lives && all.some(({ done }) => !done)) {
      rig ??= await Rig.start(plan.seed + report.lives, plan.intx)
      const failure = await live(rig, tracer, plan, all, end)
      report.lives++
      plan.note(
        `life ${report.lives}: ${all.reduce((sum, { points }) => sum + points, 0)} kills, ` +
          `${all.filter(({ done }) => !done).length} steps to go, ${report.failures.length} failures`,
      )
      if (!failure && rig.deaths < 200) continue
      if (failure) {
        report.failures.push(failure)
        const { death, step, why } = failure
        plan.note(
          `FAILED: ${step}, ${death ? `stop ${death.stop}, ${death.at} of system call ${death.call}` : 'no kill'}: ${why}`,
        )
      }
      report.lost += rig.lostPeers + rig.guest.lostConnections
      await rig.close()
      rig = undefined
    }
  } finally {
    if (rig) {
      report.lost += rig.lostPeers + rig.guest.lostConnections
      await rig.close()
    }
  }
  report.points = all.reduce((sum, { points }) => sum + points, 0)
  report.seconds = Math.round((performance.now() - begun) / 1000)
  report.complete = all.every(({ done }) => done)
  report.steps = all.map(({ name, points, failed, stops }) => ({ name, points, failed, stops }))
  return report
}

/** One life; the first thing that is wrong ends it. */
async function live(
  rig: Rig,
  tracer: Tracer,
  plan: Plan,
  all: readonly Progress[],
  end: number,
): Promise<Failure | undefined> {
  rig.guest.eventIdx = rig.random.chance(50)
  for (const progress of inOrder(all, plan.sample === 0 ? REPEATS : 1)) {
    const { step } = progress
    const kill = !progress.done && performance.now() < end && (plan.sample === 0 || rig.random.chance(plan.sample))
    if (plan.sample > 0) progress.next = 1 + rig.random.below(SAMPLE_STOPS)
    let death: Death | undefined
    const noted = rig.log.length
    try {
      if (kill) await (step.successor ? watchSuccessor(rig, tracer) : watch(rig, tracer, rig.devicePid))
      if (kill)
        await tracer.arm(
          plan.to === 0 ? 0 : progress.next,
          plan.instructions === 0 ? 0 : rig.random.below(plan.instructions),
        )
      rig.mayDie = () => tracer.death !== undefined || (step.successor ?? false)
      await within(step.run(rig), step.name)
      if (kill) {
        const stops = await finish(rig, tracer, step)
        death = tracer.death
        advance(progress, plan, stops)
        const points = all.reduce((sum, each) => sum + each.points, 0)
        if (death && points % NOTED === 0) plan.note(`${points} kills`)
      } else if (step.successor) await takenOver(rig, rig.deaths + 1)
      await check(rig, { full: death !== undefined || (step.successor ?? false) })
    } catch (error) {
      death = tracer.death
      await tracer.release()
      if (kill) {
        if (death) progress.points++
        progress.next += plan.every
        progress.failed++
        if (!death) progress.done = true
      }
      return { step: step.name, death, why: describe(error), log: rig.log.slice(noted).slice(-2000) }
    } finally {
      rig.mayDie = () => false
    }
  }
  return undefined
}

/** All steps, those that lead back to their beginning again while one of them is not done. */
function* inOrder(all: readonly Progress[], repeats: number): Generator<Progress> {
  for (let at = 0; at < all.length;) {
    const word = all[at]!.step.repeats
    let next = at + 1
    while (word !== undefined && all[next]?.step.repeats === word) next++
    const group = all.slice(at, next)
    const most = word === undefined ? 1 : repeats
    for (let i = 0; i < most && (i === 0 || group.some(({ done }) => !done)); i++) yield* group
    at = next
  }
}

/**
 * The step is done; so many stops it had, or undefined where the process was killed: then its successor is there now.
 */
async function finish(rig: Rig, tracer: Tracer, step: Step): Promise<number | undefined> {
  const before = rig.deaths + (step.successor ? 1 : 0)
  if (step.successor) await takenOver(rig, before)
  const stops = await tracer.idle(IDLE_MS)
  if (tracer.death) await takenOver(rig, before + 1)
  else await tracer.release()
  return tracer.death ? undefined : stops
}

export async function takenOver(rig: Rig, deaths: number): Promise<void> {
  const deadline = performance.now() + STEP_MS
  for (;;) {
    const { restarts, devicePid } = await rig.control(async (client) => client.hello)
    if (restarts! >= deaths) {
      rig.deaths = restarts!
      rig.devicePid = devicePid!
      return
    }
    if (performance.now() > deadline) throw new Error('nobody takes over')
    await new Promise((resolve) => setTimeout(resolve, 3))
  }
}

function advance(progress: Progress, plan: Plan, stops: number | undefined): void {
  if (stops !== undefined) {
    progress.stops = stops
    progress.done = plan.sample === 0
    return
  }
  progress.points++
  progress.next += plan.every * (progress.step.sparse ?? 1)
  if (progress.next > plan.to) progress.done = true
}

async function watch(rig: Rig, tracer: Tracer, pid: number): Promise<void> {
  await tracer.trace(pid)
  if ((await tracer.idle(IDLE_MS)) === undefined) throw new Error('the device process has died by itself')
}

/** Follows the process that will take over. */
async function watchSuccessor(rig: Rig, tracer: Tracer): Promise<void> {
  let spare: number | undefined
  for (const deadline = performance.now() + STEP_MS; spare === undefined;) {
    spare = rig.spares()[0]
    if (performance.now() > deadline) throw new Error('there is no process to take over')
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  await tracer.trace(spare)
  await tracer.idle(LOADED_MS)
}

export async function within(work: Promise<void>, what: string): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no end: ${what}`)), STEP_MS)
  })
  try {
    await Promise.race([work, late])
  } finally {
    clearTimeout(timer)
    work.catch(() => {})
  }
}

function describe(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
