#!/usr/bin/env node
/**
 * `vmchannel guest`: drives a virtio-serial device of this guest in user space until it is told to end. The command
 * line calls `runGuest`; the file is also a program of its own, for images that hold nothing else.
 */

import { realpathSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { cut, escapeText } from '../escape.ts'
import { describeError, EXIT_CODES, VmchannelError } from '../errors.ts'
import { LineLimit, LOG_LINE_MAX, SILENT, type Log } from '../log.ts'
import { PortBoard } from './board.ts'
import { startSession, type SessionOptions } from './session.ts'
import { startUsernet, type UsernetOptions } from './usernet.ts'

const USAGE =
  'usage: node main.js [--device 0000:00:03.0] [--driver uio|vfio] [--share] [--force] [--quiet], ' +
  'or node main.js --usernet [--address 10.118.109.100:7644] [--share] [--quiet]'
const ENDINGS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

export interface GuestOptions extends SessionOptions, UsernetOptions {
  /** Several programs may have a port open at a time. */
  share?: boolean
  /** Over a connection of user networking rather than a device. */
  usernet?: boolean
}

/** Runs until a signal, or until the device is gone. Rejects with VmchannelError. */
export async function runGuest(options: GuestOptions = {}): Promise<void> {
  const { share = false, log = SILENT, usernet = false } = options
  for (const key of ['device', 'driver', 'force', 'address'] as const)
    if (options[key] && usernet !== (key === 'address'))
      throw new VmchannelError('ERR_VMCHANNEL_USAGE', `--${key} goes ${usernet ? 'without' : 'with'} --usernet`)
  const view = new PortBoard({ log, share })
  const session = usernet ? await startUsernet(options, view) : startSession(options, view)
  const stop = (): void => void session.stop()
  for (const signal of ENDINGS) process.on(signal, stop)
  try {
    await session.ended
    await session.stop()
  } finally {
    for (const signal of ENDINGS) process.off(signal, stop)
  }
}

/** A line break is that of a hint. */
function sayLine(text: string): void {
  const safe = escapeText(text)
  process.stderr.write(`vmchannel guest: ${safe.length > LOG_LINE_MAX ? `${cut(safe, LOG_LINE_MAX)}…` : safe}\n`)
}

/** Lines on stderr, in a bounded number: a device can add and remove ports without end. */
export function stderrLog(quiet = false): Log {
  const limit = new LineLimit()
  const say = (level: string) => (message: string) => {
    if (!limit.admit()) return
    const left = limit.takeLeft()
    if (left > 0) sayLine(`warning: ${left} log lines were left out here`)
    sayLine(`${level}${message}`)
  }
  return { error: say('error: '), warn: say('warning: '), info: quiet ? () => {} : say(''), debug: () => {} }
}

async function main(): Promise<void> {
  try {
    await runGuest(parse(process.argv.slice(2)))
  } catch (error) {
    sayLine(describeError(error))
    process.exitCode = error instanceof VmchannelError ? EXIT_CODES[error.code] : 1
  }
}

function parse(words: string[]): GuestOptions {
  try {
    const flag = { type: 'boolean' } as const
    const { values } = parseArgs({
      args: words,
      options: {
        ...{ device: { type: 'string' }, driver: { type: 'string' }, address: { type: 'string' } },
        ...{ share: flag, force: flag, quiet: flag, usernet: flag },
      },
    })
    const { quiet, driver, ...rest } = values
    if (driver !== undefined && driver !== 'uio' && driver !== 'vfio')
      throw new RangeError(`--driver: "${driver}" is neither uio nor vfio`)
    return { ...rest, ...(driver === undefined ? {} : { driver }), log: stderrLog(quiet) }
  } catch (cause) {
    throw new VmchannelError('ERR_VMCHANNEL_USAGE', (cause as Error).message, { cause, hint: USAGE })
  }
}

const program = process.argv[1]
if (program !== undefined && realpathSync(program) === import.meta.filename) await main()
