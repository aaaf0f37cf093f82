/**
 * The log of the device process: lines for people, or pino's JSON, on standard error; with priorities for the journal.
 *
 * A guest can cause messages: they come in a bounded number, for each VM, so that none hides what is said of another;
 * and control bytes never reach a terminal.
 */

import { cut, escapeText } from '../escape.ts'
import { LineLimit, LOG_LINE_MAX, type Log } from '../log.ts'
import { isJournal, openStderr } from './stderr.ts'
import type { DaemonConfig } from './protocol.ts'

export type LogLevel = DaemonConfig['logLevel']

const LEVELS: readonly LogLevel[] = ['error', 'warn', 'info', 'debug']
/** syslog's numbers, in the order of LEVELS. */
const PRIORITIES = [3, 4, 6, 7]

export interface LogOptions {
  level: LogLevel
  format: 'text' | 'json'
  /** Where lines go; tests put theirs here. */
  write?: (line: Uint8Array) => number
}

/** Makes the log. pino is loaded for JSON only: it is 5 MiB. */
export async function openLog({ level, format, write = openStderr() }: LogOptions): Promise<Log> {
  const prefix = isJournal()
  const gate = new Gate(write)
  const emit = format === 'json' ? await jsonEmitter(gate, prefix) : textEmitter(gate, prefix)
  const last = LEVELS.indexOf(level)
  const make = (head: string): Log => {
    const limit = new LineLimit()
    const method = (index: number): ((message: string) => void) => {
      if (index > last) return () => {}
      return (message) => {
        if (!limit.admit()) return
        const left = limit.takeLeft() + gate.takeLeft()
        if (left > 0) emit(1, `${head}${left} log lines were left out here`)
        emit(index, clean(head + message))
      }
    }
    return { error: method(0), warn: method(1), info: method(2), debug: method(3) }
  }
  return { ...make(''), scope: (name) => make(`${name}: `) }
}

type Emit = (level: number, message: string) => void

function textEmitter(gate: Gate, journal: boolean): Emit {
  const encoder = new TextEncoder()
  const name = `vmchannel[${process.pid}]`
  return (level, message) => {
    // A message may have a hint on a line of its own: each line gets the prefix, so that none looks like another's.
    const head = journal ? `<${PRIORITIES[level]}>` : `${name}: ${level < 2 ? `${LEVELS[level]}: ` : ''}`
    const text = message.split('\n').map((line, i) => `${head}${journal && i > 0 ? '  ' : ''}${line}\n`)
    gate.write(encoder.encode(text.join('')))
  }
}

async function jsonEmitter(gate: Gate, journal: boolean): Promise<Emit> {
  const { pino } = await import('pino')
  const encoder = new TextEncoder()
  let level = 0
  const stream = {
    write: (line: string) => gate.write(encoder.encode((journal ? `<${PRIORITIES[level]}>` : '') + line)),
  }
  const options = {
    level: 'debug',
    base: { pid: process.pid },
    formatters: { level: (label: string) => ({ level: label }) },
  }
  const logger = pino(options, stream)
  return (index, message) => {
    level = index
    logger[LEVELS[index]!](message)
  }
}

/** Where lines go, and the count of those that did not. */
class Gate {
  readonly #write: (line: Uint8Array) => number
  #left = 0
  #torn = false

  constructor(write: (line: Uint8Array) => number) {
    this.#write = write
  }

  /** Lines left out since the last time. */
  takeLeft(): number {
    const left = this.#left
    this.#left = 0
    return left
  }

  write(line: Uint8Array): void {
    // The rest of a line that was cut off is gone; the next one starts on a line of its own.
    const whole = this.#torn ? Buffer.concat([NEWLINE, line]) : line
    const done = this.#write(whole)
    if (done <= 0) this.#left++
    else this.#torn = done < whole.length
  }
}

const NEWLINE = Uint8Array.of(10)

/** Line breaks are those of a hint: each line gets the prefix. */
function clean(message: string): string {
  const safe = escapeText(message)
  return safe.length > LOG_LINE_MAX ? `${cut(safe, LOG_LINE_MAX)}…` : safe
}
