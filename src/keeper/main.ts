/**
 * Entry of the keeper: starts the device process, holds what it gives to it to hold, and starts another one when it dies
 * of anything but its own decision. Does nothing else, so that it has nothing to die of itself.
 *
 * Started by client/start.ts in place of the device process: same configuration on standard input, same answer on
 * standard output (the device process gives it), same end. When the keeper is killed the device goes on without one.
 */

import { spawn, type ChildProcess, type IOType } from 'node:child_process'
import { DEVICE_FLAGS } from '../daemon/protocol.ts'
import { openStderr } from '../daemon/stderr.ts'
import { readConfigText } from '../daemon/stdin.ts'
import { inheritedFds } from '../ffi/exec.ts'
import { closeFd } from '../ffi/libc.ts'
import { exitNow, silence } from '../ffi/local-socket.ts'
import { Watch } from '../ffi/poll.ts'
import { packetPair } from '../ffi/socket-calls.ts'
import { PacketReader, sendPacket } from './channel.ts'
import { CrashLimit } from './crash-limit.ts'
import { Shelf } from './shelf.ts'

/** The device process says so when it has met a bug of ours. */
const FAILED = 70
const RETRY_MS = 5

const inherited = inheritedFds()
const stderr = openStderr()
const shelf = new Shelf()
const reader = new PacketReader()
const crashes = new CrashLimit()
let config: Record<string, unknown> | undefined
let text = ''
let child: ChildProcess | undefined
let channel: { fd: number; watch: Watch } | undefined
let ending = false
let restarts = 0

function start(why: string, diedAt: number): void {
  const pair = packetPair()
  const top = Math.max(2, ...inherited) + 1
  const stdio: (IOType | number)[] = ['pipe', restarts === 0 ? 1 : 'ignore', 2]
  while (stdio.length < top) stdio.push(inherited.includes(stdio.length) ? stdio.length : 'ignore')
  stdio.push(pair.theirs)
  const withParent = config?.['exitWith'] === 'parent'
  if (withParent) stdio.push(0)
  const keeper = { channel: top, ...(withParent ? { input: top + 1 } : {}) }
  const entry = decodeURIComponent(new URL('../daemon/main.js', import.meta.url).pathname)
  const device = (child = spawn(process.execPath, [...DEVICE_FLAGS, entry], { stdio }))
  closeFd(pair.theirs)
  const { stdin } = device
  stdin!.on('error', () => {})
  stdin!.end(config === undefined ? text : `${JSON.stringify({ ...config, keeper })}\n`)
  const waiting = [...shelf.items.keys()]
  const watch = new Watch(pair.ours, () => give())
  channel = { fd: pair.ours, watch }
  /** All that is held goes to the new process, as fast as it takes it; then its packets are read. */
  const give = (): void => {
    for (let name = waiting[0]; name !== undefined; name = waiting[0]) {
      const held = shelf.items.get(name)!
      const sent = sendPacket(pair.ours, 'K', name, held.note, held.fds)
      if (sent === 'gone') return watch.want(false, false)
      if (sent === 'full') {
        // Full of bytes: writable says when. Full of descriptors: nothing does.
        watch.want(false, false)
        setTimeout(() => channel?.fd === pair.ours && watch.want(false, true), RETRY_MS)
        return
      }
      waiting.shift()
    }
    if (!given) sendPacket(pair.ours, 'E', '', JSON.stringify({ restarts, why, diedAt }))
    given = true
    watch.want(true, false)
    if (!receive(pair.ours)) watch.want(false, false)
  }
  let given = false
  give()
  device.on('error', (error) => ended(device, FAILED, null, String(error)))
  device.on('exit', (status, signal) => ended(device, status, signal, signal ?? `status ${status}`))
}

/** Takes what the device process has sent; false at the end. */
function receive(fd: number): boolean {
  for (;;) {
    const packet = reader.read(fd)
    if (packet === undefined) return true
    if (packet === null) return false
    if (packet.operation === 'R') crashes.ready(performance.now())
    else shelf.take(packet)
  }
}

function ended(device: ChildProcess, status: number | null, signal: string | null, why: string): void {
  if (device !== child || !channel) return
  const diedAt = Date.now()
  // What it sent before it died counts.
  receive(channel.fd)
  channel.watch.close()
  closeFd(channel.fd)
  channel = undefined
  const crashed = signal !== null || status === FAILED
  // Nothing to take over: it did not even start.
  if (ending || !crashed || shelf.items.size === 0) return exitNow(signal === null ? (status ?? FAILED) : 128)
  const limit = crashes.tooMany(performance.now())
  if (limit !== undefined) {
    say(`error: the device process has died ${limit}, the last time by ${why}: giving up`)
    return exitNow(FAILED)
  }
  restarts++
  say(`warn: the device process ${device.pid} has died (${why}): starting another`)
  start(why, diedAt)
}

function say(line: string): void {
  stderr(new TextEncoder().encode(`vmchannel[${process.pid}]: ${line}\n`))
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
    child?.kill('SIGTERM')
  })
process.title = 'vmchannel keeper'
start('', 0)
// The caller's pipes are the device's business now.
silence(1)
if (config?.['exitWith'] !== 'parent') silence(0)
