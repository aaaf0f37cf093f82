/**
 * Locks the guest's screen when the last viewer has gone. Part of the library (`lockOnDisconnect`); used by
 * `vmchannel screenlock`. Never unlocks.
 *
 * The wish to lock is kept until it is fulfilled: a guest whose agent cannot be reached is asked again and again, also
 * when somebody looks at the screen by then.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import type { AgentOptions } from '../agent/connect.ts'
import { aborted } from '../client/abort.ts'
import { describeError, VmchannelError } from '../errors.ts'
import { connectQmp, type QmpClient } from '../qmp/client.ts'
import { vncClient, vncServers, type VncClient } from '../qmp/protocol.ts'
import { agentLocker, hasOwnPort, ownPortLocker, type Locker } from './locker.ts'
import { lockable, type LockedSession } from './sessions.ts'
import { isViewerEvent, Viewers } from './viewers.ts'

export type ScreenLockEvent =
  /** Once, when all is ready. */
  | { event: 'watching'; viewers: number; via: 'agent' | 'port' }
  | { event: 'viewers'; viewers: number }
  /** The sessions have been told to lock; whether they are is looked at next. `ms` since the last viewer left. */
  | { event: 'asked'; ms: number }
  /** `ms` since the last viewer left. */
  | { event: 'locked'; sessions: LockedSession[]; ms: number }
  /** Asked as often as is sensible, and something is not locked; or nobody is there to be locked out. */
  | { event: 'not-locked'; sessions: LockedSession[]; why: string }
  /** The guest cannot be asked; it is tried again. Said once for each reason. */
  | { event: 'waiting'; why: string }

export interface ScreenLockOptions extends Omit<AgentOptions, 'timeout' | 'stream'> {
  /** Path of QEMU's QMP socket (-qmp unix:PATH,server=on,wait=off). */
  qmp: string
  /** qemu-guest-agent, or our own agent's port. Default: the port where the VM has one named org.vmchannel.lock.0. */
  via?: 'agent' | 'port' | undefined
  /** How long a viewer may take to come back before the screen is locked; default 200 ms. */
  delayMs?: number | undefined
  onEvent?: ((event: ScreenLockEvent) => void) | undefined
}

const DELAY_MS = 200
/** Attempts where the guest answers, and a session stays unlocked all the same. */
const ATTEMPTS = 5
const RETRY_FIRST_MS = 200
const RETRY_LAST_MS = 5000
/** How long a port that somebody else has is no news. */
const BUSY_MS = 1000
const BUSY_PAUSE_MS = 30

/** Resolves when QEMU ends; rejects when the signal comes, or where there is nothing to watch. */
export async function lockOnDisconnect(options: ScreenLockOptions): Promise<void> {
  const { signal } = options
  const qmp = await connectQmp(options.qmp, { signal })
  const stop = new AbortController()
  const abort = (): void => stop.abort(signal?.reason)
  signal?.addEventListener('abort', abort, { once: true })
  let locker: Locker | undefined
  try {
    const via = options.via ?? ((await hasOwnPort(options)) ? 'port' : 'agent')
    locker = via === 'port' ? ownPortLocker(options) : agentLocker(options)
    const watch = new Watch(qmp, locker, options, stop.signal)
    await watch.run(via)
  } finally {
    signal?.removeEventListener('abort', abort)
    stop.abort()
    locker?.close()
    qmp.close()
  }
  if (signal?.aborted) throw aborted('watching the viewers', signal)
}

class Watch {
  readonly #qmp: QmpClient
  readonly #locker: Locker
  readonly #delayMs: number
  readonly #signal: AbortSignal
  readonly #say: (event: ScreenLockEvent) => void
  #viewers = new Viewers()
  #said = 0
  /** When the last viewer left, while the wish to lock is open. */
  #since: number | undefined
  #locking = false
  #timer: NodeJS.Timeout | undefined
  /** The look at the start; it makes way for the first lock. */
  readonly #check = new AbortController()
  #checking: Promise<void> = Promise.resolve()

  constructor(qmp: QmpClient, locker: Locker, options: ScreenLockOptions, signal: AbortSignal) {
    this.#qmp = qmp
    this.#locker = locker
    this.#delayMs = options.delayMs ?? DELAY_MS
    this.#signal = signal
    this.#say = options.onEvent ?? ((): void => {})
  }

  /** Until QEMU or the signal ends it. */
  async run(via: 'agent' | 'port'): Promise<void> {
    // Asked first and listened to from here on: QEMU answers in order.
    const present = await this.#present()
    const ended = new Promise<void>((resolve) => {
      this.#qmp.once('close', resolve)
      this.#signal.addEventListener('abort', () => resolve(), { once: true })
      if (this.#qmp.closed || this.#signal.aborted) resolve()
    })
    this.#viewers = new Viewers(present)
    this.#said = this.#viewers.count
    this.#qmp.on('event', ({ event, data }) => {
      if (isViewerEvent(event)) this.#changed(this.#viewers.take(event, vncClient(data['client'])), event)
    })
    this.#say({ event: 'watching', viewers: this.#said, via })
    this.#checking = this.#tryOnce()
    await ended
    clearTimeout(this.#timer)
  }

  async #present(): Promise<VncClient[]> {
    const answer = await this.#qmp.execute('query-vnc-servers').catch((error: unknown) => {
      if (this.#qmp.closed) throw error
      return []
    })
    const servers = vncServers(answer)
    if (servers.length > 0) return servers.flatMap(({ clients }) => clients)
    throw new VmchannelError('ERR_VMCHANNEL_QEMU', 'this QEMU has no VNC display: there are no viewers to watch', {
      hint: 'start it with -vnc, e.g. -vnc 127.0.0.1:0',
    })
  }

  #changed(lastLeft: boolean, event: string): void {
    const count = this.#viewers.count
    if (count !== this.#said) {
      this.#said = count
      this.#say({ event: 'viewers', viewers: count })
    }
    if (lastLeft) this.#left()
    // An event that was missed, or one that could be either's.
    if (event === 'VNC_DISCONNECTED' && count > 0)
      this.#present().then(
        (present) => this.#changed(this.#viewers.correct(present), ''),
        () => {},
      )
  }

  #left(): void {
    const since = Date.now()
    clearTimeout(this.#timer)
    if (!this.#locking) {
      this.#check.abort()
      void this.#checking.then(() => this.#locker.prepare(this.#signal))
    }
    this.#timer = setTimeout(() => {
      if (this.#viewers.count > 0 || this.#signal.aborted) return this.#locker.release()
      this.#since = since
      void this.#lock()
    }, this.#delayMs)
  }

  /** Says early when nothing will come of a wish to lock. */
  async #tryOnce(): Promise<void> {
    try {
      await this.#locker.check(AbortSignal.any([this.#signal, this.#check.signal]))
    } catch (error) {
      if (!this.#check.signal.aborted && !this.#signal.aborted)
        this.#say({ event: 'waiting', why: describeError(error) })
    }
  }

  /** One at a time; a wish that comes meanwhile is taken up by the one that runs. */
  async #lock(): Promise<void> {
    if (this.#locking) return
    this.#locking = true
    let why = ''
    this.#check.abort()
    await this.#checking
    try {
      for (let pause = RETRY_FIRST_MS, tries = 0; this.#since !== undefined && !this.#signal.aborted;) {
        const since = this.#since
        try {
          let asked = false
          const sessions = await this.#locker.lock(this.#signal, () => {
            if (!asked && tries === 0) this.#say({ event: 'asked', ms: Date.now() - since })
            asked = true
          })
          const open = verdict(sessions)
          if (open === undefined || ++tries >= ATTEMPTS || sessions.filter(lockable).length === 0) {
            if (this.#since === since) this.#since = undefined
            tries = 0
            if (open === undefined) this.#say({ event: 'locked', sessions, ms: Date.now() - since })
            else this.#say({ event: 'not-locked', sessions, why: open })
            continue
          }
        } catch (error) {
          if (this.#signal.aborted) return
          // Whoever had the port may be about to leave it: ourselves, a moment ago.
          const busy = error instanceof VmchannelError && error.code === 'ERR_VMCHANNEL_IN_USE'
          if (busy && Date.now() - since < BUSY_MS) {
            await sleep(BUSY_PAUSE_MS)
            continue
          }
          const text = describeError(error)
          if (text !== why) this.#say({ event: 'waiting', why: text })
          why = text
        }
        await sleep(pause, undefined, { signal: this.#signal }).catch(() => {})
        pause = Math.min(pause * 1.7, RETRY_LAST_MS)
      }
    } finally {
      this.#locking = false
    }
  }
}

/** What is not as it should be; undefined where all that can be locked is. */
function verdict(sessions: readonly LockedSession[]): string | undefined {
  const graphical = sessions.filter(lockable)
  const open = graphical.filter(({ locked }) => !locked)
  if (open.length > 0) {
    const names = open.map(({ id, user, type }) => `${id} of ${user} (${type})`).join(', ')
    return `session ${names} does not say that it is locked: does a locker run there (xss-lock, light-locker, a desktop's)?`
  }
  if (graphical.length > 0) return undefined
  return sessions.length === 0
    ? 'nobody is logged in'
    : 'only text consoles are logged in, and nothing can lock those (run "vlock -a" there)'
}
