/**
 * Keeps one device process running: holds what it gives to it to hold, and starts another one when it dies of anything
 * but its own decision, or hangs. Made by main.ts.
 *
 * Starting Node and loading the device's code takes longer than all the rest of a takeover: a spare process has done
 * both, and waits for its configuration.
 */

import { ChannelEnd } from './channel-end.ts'
import type { Packet } from './channel.ts'
import { Child } from './child.ts'
import { CrashLimit, UNLIMITED } from './crash-limit.ts'
import { Heartbeat } from './heartbeat.ts'
import { Shelf } from './shelf.ts'

/** The device process says so when it has met a bug of ours. */
const FAILED = 70
/** A process that was killed. */
const KILLED = 128
/** From a process that is ready to the start of its spare: most machines that end soon never need one. */
const FIRST_SPARE_MS = UNLIMITED ? 0 : 2000
const SPARE_MS = UNLIMITED ? 0 : 300
/** Where none could be started. */
const RETRY_MS = 1000
/** A process that closes its channel in its death is dead by then. */
const DYING_MS = 1000
/** From SIGABRT, which may leave a core dump, to SIGKILL. */
const ABORT_MS = 1000
/** How long a device process may take to end when it is asked to. */
const END_MS = 3000

export interface SupervisorOptions {
  /** The configuration as it came, and what it says, where it says anything. */
  text: string
  config: Record<string, unknown> | undefined
  inherited: readonly number[]
  /** Whether a process that hangs is ended. */
  heartbeat: boolean
  say(line: string): void
  end(status: number): void
}

interface Current {
  child: Child
  channel: ChannelEnd
  heartbeat: Heartbeat | undefined
  ready: boolean
  /** Why it was killed. */
  hung?: { why: string; since: number }
}

export class Supervisor {
  readonly #options: SupervisorOptions
  readonly #shelf = new Shelf()
  readonly #crashes = new CrashLimit()
  #current: Current | undefined
  #spare: Child | undefined
  #ending = false
  /** A device process has been ready, and so had its answer. */
  #started = false
  /** Nothing may be started from what is held: it is not all there was. */
  #lost = false
  #restarts = 0

  constructor(options: SupervisorOptions) {
    this.#options = options
  }

  start(): void {
    this.#run(this.#load(true), '', 0)
  }

  /** The device process is to end; within a few seconds it has, whatever it does. */
  terminate(): void {
    if (this.#ending) return
    this.#ending = true
    this.#current?.heartbeat?.stop()
    this.#current?.child.process.kill('SIGTERM')
    setTimeout(() => {
      this.#options.say(`error: the device process has not ended within ${END_MS / 1000} s: SIGKILL`)
      this.#current?.child.process.kill('SIGKILL')
      // One that waits for a device in the kernel ends when that lets it go.
      setTimeout(() => this.#end(KILLED), DYING_MS)
    }, END_MS)
    if (!this.#current) this.#end(KILLED)
  }

  /** Makes a loaded process the device process. */
  #run(child: Child, why: string, diedAt: number): void {
    const { config, text, heartbeat } = this.#options
    child.configure(config === undefined ? text : `${JSON.stringify({ ...config, keeper: child.place })}\n`)
    const channel = new ChannelEnd(
      child.channel,
      {
        packet: (packet) => this.#packet(packet),
        ended: () => this.#channelEnded(child),
        noRoom: (on) =>
          this.#options.say(
            on
              ? 'error: the limit of open files is too low for what the device process has: until it is raised or something is removed, the devices end if that process dies'
              : 'warn: there is room for what the device process has again: another process takes over if it dies',
          ),
      },
      { copies: false, patienceMs: 0 },
    )
    const { pid } = child.process
    const beat =
      heartbeat && pid !== undefined
        ? new Heartbeat(pid, this.#shelf.sockets, {
            ask: () => channel.post('P', 'P'),
            hangs: (state, since) => this.#hangs(child, state, since),
          })
        : undefined
    this.#current = { child, channel, heartbeat: beat, ready: false }
    // All that is held goes to the new process, as fast as it takes it; that it was all is one more packet behind it.
    for (const [name, { note, fds }] of this.#shelf.items) channel.post(`K${name}`, 'K', name, note, fds)
    channel.post('E', 'E', '', JSON.stringify({ restarts: this.#restarts, why, diedAt }))
    channel.post('P', 'P')
  }

  #load(answers = false): Child {
    const { config, inherited } = this.#options
    const child = new Child({ inherited, answers, json: config?.['logFormat'] === 'json' })
    child.process.on('error', (error) => this.#ended(child, FAILED, null, String(error)))
    child.process.on('exit', (status, signal) => this.#ended(child, status, signal, signal ?? `status ${status}`))
    return child
  }

  #packet(packet: Packet): void {
    const { operation } = packet
    if (operation === 'R') this.#ready()
    else if (operation === 'P') this.#current?.heartbeat?.answered()
    else this.#shelf.take(packet)
  }

  #ready(): void {
    this.#started = true
    this.#crashes.ready(performance.now())
    if (this.#current) this.#current.ready = true
    this.#current?.heartbeat?.ready()
    this.#loadSpare(this.#restarts === 0 ? FIRST_SPARE_MS : SPARE_MS)
  }

  #loadSpare(delay: number): void {
    const load = (): void => {
      if (this.#spare || this.#ending) return
      try {
        this.#spare = this.#load()
      } catch (error) {
        this.#options.say(`warn: no spare process can be started, a takeover will take longer: ${String(error)}`)
      }
    }
    setTimeout(load, delay).unref()
  }

  /** The channel has ended. Either so has the process, or it lives and cannot tell any more what a successor needs. */
  #channelEnded(child: Child): void {
    const drop = (): void => {
      if (this.#current?.child !== child || this.#lost) return
      this.#lost = true
      this.#shelf.clear()
      this.#options.say(
        `error: the device process ${child.process.pid} has closed its channel: if it dies, so do its devices`,
      )
    }
    setTimeout(drop, DYING_MS)
  }

  #hangs(child: Child, state: string, since: number): void {
    if (this.#current?.child !== child || this.#ending) return
    const why = `hanging (state ${state})`
    this.#current.hung = { why, since }
    const seconds = Math.round((performance.now() - since) / 1000)
    this.#options.say(
      `error: the device process ${child.process.pid} hangs (state ${state}), for ${seconds} s: it is ended`,
    )
    child.process.kill(state === 'T' ? 'SIGKILL' : 'SIGABRT')
    setTimeout(() => this.#current?.child === child && child.process.kill('SIGKILL'), ABORT_MS)
  }

  #ended(child: Child, status: number | null, signal: string | null, why: string): void {
    if (child === this.#spare) {
      this.#spare = undefined
      child.page.close()
    }
    const current = this.#current
    if (!current || child !== current.child) return
    // What it sent before it died counts.
    const lost = this.#lost || current.channel.drain() === 'no room' || child.page.behind
    const { hung } = current
    current.heartbeat?.stop()
    current.channel.close()
    child.page.close()
    this.#current = undefined
    // A successor that ends before it was one has decided nothing: its files may have been replaced.
    const early = this.#started && !current.ready && status !== 0
    const crashed = signal !== null || status === FAILED || early
    // Nothing to take over: it did not even start.
    if (this.#ending || !crashed || !this.#started) return this.#end(signal === null ? (status ?? FAILED) : KILLED)
    const what = `the device process ${child.process.pid} has died (${hung?.why ?? why})`
    if (lost) {
      this.#options.say(`error: ${what}, and what is held here is not all it had: nothing takes over, its devices end`)
      return this.#end(FAILED)
    }
    this.#replace(what, hung?.why ?? why, hung?.since ?? performance.now(), Date.now())
  }

  #replace(what: string, why: string, lastAt: number, diedAt: number): void {
    const limit = this.#crashes.tooMany(lastAt)
    if (limit !== undefined) {
      this.#options.say(
        `error: the device process has died ${limit}, the last time by ${why}: giving up, its devices end`,
      )
      return this.#end(FAILED)
    }
    let next = this.#spare
    this.#spare = undefined
    try {
      next ??= this.#load()
    } catch (error) {
      this.#options.say(`error: ${what}, and no other can be started: ${String(error)}; tried again`)
      setTimeout(() => !this.#ending && this.#replace(what, why, lastAt, diedAt), RETRY_MS)
      return
    }
    this.#restarts++
    this.#run(next, why, diedAt)
    this.#options.say(`warn: ${what}: ${next.process.pid} takes over`)
  }

  #end(status: number): void {
    this.#spare?.process.kill('SIGKILL')
    this.#options.end(status)
  }
}
