/**
 * Entry of the keeper: starts the device process, holds what it gives to it to hold, and starts another one when it dies
 * of anything but its own decision. Does nothing else, so that it has nothing to die of itself.
 *
 * Started by client/start.ts in place of the device process: same configuration on standard input, same answer on
 * standard output (the device process gives it), same end. When the keeper is killed the device goes on without one.
 *
 * Starting Node and loading the device's code takes longer than all the rest of a takeover: a spare process has done
 * both, and waits for its configuration.
 */

import { openStderr } from '../daemon/stderr.ts'
import { escapeLine } from '../escape.ts'
import { readConfigText } from '../daemon/stdin.ts'
import { inheritedFds } from '../ffi/exec.ts'
import { exitNow, silence } from '../ffi/local-socket.ts'
import { Watch } from '../ffi/poll.ts'
import { PacketReader, sendPacket } from './channel.ts'
import { Child } from './child.ts'
import { CrashLimit, UNLIMITED } from './crash-limit.ts'
import { Shelf } from './shelf.ts'

/** The device process says so when it has met a bug of ours. */
const FAILED = 70
const RETRY_MS = 5
/** From a process that is ready to the start of its spare: most machines that end soon never need one. */
const FIRST_SPARE_MS = UNLIMITED ? 0 : 2000
const SPARE_MS = UNLIMITED ? 0 : 300

const inherited = inheritedFds()
const stderr = openStderr()
const shelf = new Shelf()
const reader = new PacketReader()
const crashes = new CrashLimit()
let config: Record<string, unknown> | undefined
let text = ''
let current: { child: Child; watch: Watch } | undefined
let spare: Child | undefined
let ending = false
let restarts = 0

/** Makes a loaded process the device process. */
function start(child: Child, why: string, diedAt: number): void {
  const { channel } = child
  child.configure(config === undefined ? text : `${JSON.stringify({ ...config, keeper: child.place })}\n`)
  const waiting = [...shelf.items.keys()]
  const watch = new Watch(channel, () => give())
  current = { child, watch }
  /** All that is held goes to the new process, as fast as it takes it; then its packets are read. */
  const give = (): void => {
    for (let name = waiting[0]; name !== undefined; name = waiting[0]) {
      const held = shelf.items.get(name)!
      const sent = sendPacket(channel, 'K', name, held.note, held.fds)
      if (sent === 'gone') return watch.want(false, false)
      if (sent === 'full') {
        // Full of bytes: writable says when. Full of descriptors: nothing does.
        watch.want(false, false)
        setTimeout(() => current?.child === child && watch.want(false, true), RETRY_MS)
        return
      }
      waiting.shift()
    }
    if (!given) sendPacket(channel, 'E', '', JSON.stringify({ restarts, why, diedAt }))
    given = true
    watch.want(true, false)
    if (!receive(channel)) watch.want(false, false)
  }
  let given = false
  give()
}

function load(answers = false): Child {
  const child = new Child({ inherited, answers, withParent: config?.['exitWith'] === 'parent' })
  child.process.on('error', (error) => ended(child, FAILED, null, String(error)))
  child.process.on('exit', (status, signal) => ended(child, status, signal, signal ?? `status ${status}`))
  return child
}

/** Takes what the device process has sent; false at the end. */
function receive(fd: number): boolean {
  for (;;) {
    const packet = reader.read(fd)
    if (packet === undefined) return true
    if (packet === null) return false
    if (packet.operation === 'R') ready()
    else shelf.take(packet)
  }
}

function ready(): void {
  crashes.ready(performance.now())
  const delay = setTimeout(() => (spare ??= ending ? undefined : load()), restarts === 0 ? FIRST_SPARE_MS : SPARE_MS)
  delay.unref()
}

function ended(child: Child, status: number | null, signal: string | null, why: string): void {
  if (child === spare) {
    spare = undefined
    child.close()
  }
  if (child !== current?.child) return
  const diedAt = Date.now()
  // What it sent before it died counts.
  receive(child.channel)
  current.watch.close()
  child.close()
  current = undefined
  const crashed = signal !== null || status === FAILED
  // Nothing to take over: it did not even start.
  if (ending || !crashed || shelf.items.size === 0) return end(signal === null ? (status ?? FAILED) : 128)
  const limit = crashes.tooMany(performance.now())
  if (limit !== undefined) {
    say(`error: the device process has died ${limit}, the last time by ${why}: giving up`)
    return end(FAILED)
  }
  restarts++
  const next = spare ?? load()
  spare = undefined
  start(next, why, diedAt)
  say(`warn: the device process ${child.process.pid} has died (${why}): ${next.process.pid} takes over`)
}

function end(status: number): void {
  spare?.process.kill('SIGKILL')
  exitNow(status)
}

function say(line: string): void {
  stderr(new TextEncoder().encode(`vmchannel[${process.pid}]: ${escapeLine(line)}\n`))
}

text = await readConfigText()
try {
  config = JSON.parse(text) as Record<string, unknown>
} catch {
  // The device process says what is wrong with it.
}
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT'] as const)
  process.on(signal, () => {
    ending = true
    current?.child.process.kill('SIGTERM')
  })
process.title = 'vmchannel keeper'
start(load(true), '', 0)
// The caller's pipes are the device's business now.
silence(1)
if (config?.['exitWith'] !== 'parent') silence(0)
