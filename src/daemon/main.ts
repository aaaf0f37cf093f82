/**
 * Entry of the device process. Reads its configuration from standard input, makes everything or nothing, says so in one
 * line on standard output, and serves until it is told to end, its VMM has gone, or its parent has.
 *
 * Started by client/start.ts (library, `vmchannel qemu`) and by `vmchannel serve`.
 */

import { writeSync } from 'node:fs'
import { EXIT_CODES, VmchannelError, type ErrorCode } from '../errors.ts'
import { closeFd } from '../ffi/libc.ts'
import { duplicate, exitNow, redirect, silence } from '../ffi/local-socket.ts'
import { shortSlices } from '../ffi/slice.ts'
import { SILENT } from '../log.ts'
import { DeviceProcess } from './device-process.ts'
import { Exit } from './exit.ts'
import { KeeperLink } from './keeper-link.ts'
import { openLog } from './log.ts'
import { checkConfig } from './params.ts'
import type { DaemonConfig, DaemonReady } from './protocol.ts'
import { onInputEnd, readConfigText } from './stdin.ts'

const FAILED = 70
const CONNECT_TIMEOUT_MS = 60_000
/** The least that the kernel gives: a turn of a round trip is about as long, the slices of others are much longer. */
const SLICE_US = 100

async function main(): Promise<void> {
  const exit = new Exit(SILENT)
  // Kept away from the numbers that ports may use: nothing but the one line goes there.
  const answer = duplicate(1)
  let log = SILENT
  let link: KeeperLink | undefined
  let supervised = false
  try {
    // A spare loads what a takeover will need before it is one: files may be gone by then.
    if (process.argv[2] === 'json') await import('pino')
    const config = checkConfig(await readConfigText())
    supervised = config.keeper !== undefined
    takeStdio(config)
    shortSlices(SLICE_US)
    log = await openLog({ level: config.logLevel, format: config.logFormat ?? 'text' })
    let waiting: NodeJS.Timeout | undefined
    link = config.keeper && new KeeperLink(config.keeper, log)
    if (link) exit.keep()
    const device = new DeviceProcess(log, link, {
      stop: () => exit.now(0),
      deserted: () => {
        // Whatever is on its way in this turn is still done.
        if (config.exitWith === 'vmm') setImmediate(() => !device.attached && exit.now(0))
      },
    })
    exit.use(log, () => device.close())
    if (config.exitWith === 'parent') onInputEnd(() => exit.now(0), config.parent)
    if (config.lifeline !== undefined) onInputEnd(() => exit.now(0), config.lifeline)
    await device.start(config)
    say(answer, {
      ready: { pid: device.pid, stateDir: device.stateDir, controlSocket: device.controlSocket, vms: device.vms },
    })
    process.title = `vmchannel ${device.vms.map(({ vm }) => vm).join(' ')}`
    // Who holds the lifeline may take its time.
    if (config.exitWith !== 'vmm' || config.lifeline !== undefined) return
    const limit = config.connectTimeoutMs ?? CONNECT_TIMEOUT_MS
    waiting = setTimeout(() => {
      if (device.attached) return
      log.error(`no VMM has connected within ${limit / 1000} s: ending`)
      exit.now(EXIT_CODES.ERR_VMCHANNEL_TIMEOUT)
    }, limit)
    waiting.unref()
  } catch (error) {
    const known = error instanceof VmchannelError
    const code: ErrorCode = known ? error.code : 'ERR_VMCHANNEL_INTERNAL'
    const message = known ? error.message : error instanceof Error ? (error.stack ?? error.message) : String(error)
    if (supervised && (!link || link.resumed)) {
      // Nobody hears the answer of a successor. Nothing is removed: the next one may have more luck.
      log.error(`cannot take over: ${message}${known && error.hint !== undefined ? `\n${error.hint}` : ''}`)
      if (link) return exitNow(FAILED)
    }
    say(answer, { error: { code, message, ...(known && error.hint !== undefined ? { hint: error.hint } : {}) } })
    exit.now(EXIT_CODES[code])
  }
}

/** The caller's pipes are let go of, and stand-ins for a stdio port put in their place. */
function takeStdio({ exitWith, terminal, parent }: DaemonConfig): void {
  silence(1)
  if (exitWith !== 'parent' || parent !== undefined) silence(0)
  if (!terminal) return
  if (exitWith === 'parent' && parent === undefined)
    throw new VmchannelError(
      'ERR_VMCHANNEL_USAGE',
      'configuration, terminal: standard input is the parent, it cannot be a port',
    )
  redirect(terminal.input, 0)
  redirect(terminal.output, 1)
  for (const fd of new Set([terminal.input, terminal.output])) if (fd > 2) closeFd(fd)
}

/** The caller may be gone already; that is found out elsewhere. */
function say(fd: number, message: DaemonReady): void {
  try {
    writeSync(fd, `${JSON.stringify(message)}\n`)
  } catch {
    // EPIPE
  }
  closeFd(fd)
}

await main()
