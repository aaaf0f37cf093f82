/**
 * The supervisor in place of the device process: killed at points of a life, after which the device goes on without it;
 * or stopped for the length of a step, after which the device process is killed. Called by main.ts.
 */

import { check } from './check.ts'
import { LIFE } from './life.ts'
import { Rig } from './rig.ts'
import { takenOver, within, type Failure, type Plan, type Report, type StepReport } from './run.ts'
import type { Tracer } from './tracer.ts'

const IDLE_MS = 10

/** The supervisor is killed at one stop of one step in each life. */
export async function killSupervisor(tracer: Tracer, plan: Plan): Promise<Report> {
  const run = new Run(plan)
  const points: { step: number; stop: number }[] = []
  await run.life(async (rig, step, work) => {
    await tracer.trace(rig.device.pid)
    await tracer.idle(IDLE_MS)
    await tracer.arm(0)
    await work()
    const stops = (await tracer.idle(IDLE_MS))!
    await tracer.release()
    run.steps[step]!.stops = stops
    const { name, sparse = 1 } = LIFE[step]!
    if (sparse === 0 || !name.includes(plan.only)) return
    for (let stop = plan.from; stop <= Math.min(stops, plan.to); stop++) points.push({ step, stop })
  })
  for (const point of points.filter((_, i) => i % plan.every === 0)) {
    if (run.over) break
    await run.life(async (rig, step, work) => {
      if (step !== point.step) return work()
      run.steps[step]!.points++
      rig.expected = /keeper|supervisor/
      await tracer.trace(rig.device.pid)
      await tracer.idle(IDLE_MS)
      await tracer.arm(point.stop)
      await work()
      await tracer.idle(IDLE_MS)
      if (!tracer.death) await tracer.release()
      await check(rig, { full: true })
    })
  }
  return run.report()
}

/** The supervisor is stopped while a step runs, and goes on; then the device process is killed. */
export async function stopSupervisor(plan: Plan): Promise<Report> {
  const run = new Run(plan)
  await run.life(async (rig, step, work) => {
    const { sample } = plan
    if (LIFE[step]!.successor || run.over || (sample > 0 && !rig.random.chance(sample))) return work()
    run.steps[step]!.points++
    process.kill(rig.device.pid, 'SIGSTOP')
    try {
      await work()
      await check(rig, { full: false })
    } finally {
      process.kill(rig.device.pid, 'SIGCONT')
    }
    rig.mayDie = () => true
    process.kill(rig.devicePid, 'SIGKILL')
    await takenOver(rig, rig.deaths + 1)
    await check(rig, { full: true })
  })
  return run.report()
}

type Act = (rig: Rig, step: number, work: () => Promise<void>) => Promise<void>

class Run {
  readonly steps: StepReport[] = LIFE.map(({ name }) => ({ name, points: 0, failed: 0, stops: undefined }))
  readonly #plan: Plan
  readonly #failures: Failure[] = []
  readonly #begun = performance.now()
  #lives = 0
  #lost = 0

  constructor(plan: Plan) {
    this.#plan = plan
  }

  get over(): boolean {
    return performance.now() - this.#begun > this.#plan.seconds * 1000
  }

  async life(act: Act): Promise<void> {
    const rig = await Rig.start(this.#plan.seed + this.#lives++, this.#plan.intx)
    for (const [i, step] of LIFE.entries()) {
      const noted = rig.log.length
      try {
        await act(rig, i, () => (step.successor ? Promise.resolve() : within(step.run(rig), step.name)))
        await check(rig, { full: false })
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error)
        this.steps[i]!.failed++
        this.#failures.push({ step: step.name, death: undefined, why, log: rig.log.slice(noted).slice(-2000) })
        this.#plan.note(`FAILED: ${step.name}: ${why}`)
        break
      } finally {
        rig.mayDie = () => false
      }
    }
    this.#lost += rig.lostPeers + rig.guest.lostConnections
    await rig.close()
    const points = this.steps.reduce((sum, step) => sum + step.points, 0)
    this.#plan.note(`life ${this.#lives}: ${points} points, ${this.#failures.length} failures`)
  }

  report(): Report {
    return {
      lives: this.#lives,
      seconds: Math.round((performance.now() - this.#begun) / 1000),
      points: this.steps.reduce((sum, { points }) => sum + points, 0),
      steps: this.steps,
      failures: this.#failures,
      lost: this.#lost,
      complete: !this.over,
    }
  }
}
