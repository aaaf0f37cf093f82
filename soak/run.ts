/**
 * The soak itself: transfers on some ports all the time, one event after another meanwhile, for so many minutes. The
 * first wrong byte, hang or leak ends it. Called by main.ts and by its short form among the tests.
 */

import type { Socket } from 'node:net'
import { portNode } from '../lab/ports.ts'
import { vmtest } from '../lab/vmtest.ts'
import { until } from '../lab/wait.ts'
import { Random } from '../fuzz/random.ts'
import { CUT_PORT, EVENTS } from './events.ts'
import { SoakRig } from './rig.ts'
import { transfer } from './transfer.ts'

const STREAMS = ['one', 'two', 'three']
/** Between two events; the keeper gives up where devices die faster than about once a second. */
const PAUSE_MS = 1500
const GROWTH_MAX = 16 << 20
const NODE_MS = 30_000

export interface SoakReport {
  seconds: number
  up: number
  down: number
  transfers: number
  events: Record<string, number>
  restarts: number
  /** Bytes that more than one device process has sent, from the device's own counters. */
  repeated: number
  rssStart: number
  rssEnd: number
  failure: string | undefined
}

export interface SoakPlan {
  minutes: number
  seed: number
  /** Told of each event, for people who watch. */
  note(text: string): void
}

export async function soak(plan: SoakPlan): Promise<SoakReport> {
  const start = performance.now()
  const rig = await SoakRig.start([...STREAMS, CUT_PORT, 'storm'])
  const run = new Run(rig, plan)
  try {
    await run.go(start + plan.minutes * 60_000)
  } finally {
    run.report.seconds = Math.round((performance.now() - start) / 1000)
    await rig.close()
  }
  return run.report
}

class Run {
  readonly report: SoakReport = {
    seconds: 0,
    up: 0,
    down: 0,
    transfers: 0,
    events: {},
    restarts: 0,
    repeated: 0,
    rssStart: 0,
    rssEnd: 0,
    failure: undefined,
  }
  readonly #rig: SoakRig
  readonly #plan: SoakPlan
  #paused = false
  #over = false

  constructor(rig: SoakRig, plan: SoakPlan) {
    this.#rig = rig
    this.#plan = plan
  }

  async go(end: number): Promise<void> {
    const { report } = this
    const r = new Random(this.#plan.seed)
    let streams = this.#stream(r)
    // After each has run once: code is compiled, pools are filled.
    await until(() => report.transfers >= STREAMS.length || this.#over, 'the first transfers', 120_000)
    report.rssStart = (await this.#rig.deviceState()).rss
    while (performance.now() < end && !this.#over) {
      const event = r.pick(EVENTS)
      this.#plan.note(event.name)
      if (event.alone) {
        this.#paused = true
        await streams
        this.#paused = false
      }
      if (this.#over) break
      try {
        await event.run(this.#rig, r)
      } catch (error) {
        this.#fail(event.name, error)
      }
      if (event.alone && !this.#over) streams = this.#stream(r)
      report.events[event.name] = (report.events[event.name] ?? 0) + 1
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS))
    }
    this.#paused = true
    await streams
    const { rss, restarts } = await this.#rig.deviceState()
    report.rssEnd = rss
    report.restarts = restarts
    const stats = await this.#rig.ask((client) => client.request('port.stats', {}))
    report.repeated = stats.reduce((sum, { counters }) => sum + (counters.guestToHostRepeated ?? 0), 0)
    if (rss - report.rssStart > GROWTH_MAX)
      this.#fail('memory', new Error(`the device process grew from ${report.rssStart} to ${rss} bytes`))
  }

  /** Transfers on every stream port until paused; resolves when all have stopped. */
  async #stream(r: Random): Promise<void> {
    const rig = this.#rig
    await Promise.all(
      STREAMS.map(async (name) => {
        const own = new Random(r.word())
        let socket: Socket | undefined
        try {
          socket = await rig.peer(name)
          const node = await portNode(rig.machine, name, NODE_MS)
          const heard = async (): Promise<boolean> =>
            (await vmtest(rig.machine, 'poll', [node, 0])).revents.every((event) => event !== 'HUP')
          await until(heard, `${name}: the guest has heard of the peer`)
          while (!this.#paused && !this.#over) {
            const { direction, bytes } = await transfer(rig, own, node, socket)
            this.report[direction] += bytes
            this.report.transfers++
          }
        } catch (error) {
          this.#fail(name, error)
        } finally {
          socket?.destroy()
        }
      }),
    )
  }

  #fail(where: string, error: unknown): void {
    this.#over = true
    this.report.failure ??= `${where}: ${error instanceof Error ? error.message : String(error)}\n${this.#rig.log.slice(-3000)}`
  }
}
