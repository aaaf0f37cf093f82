/**
 * What commands say: results on standard output, messages on standard error, tables, sizes, colours. A reader that has
 * gone away (EPIPE) ends the program without a word.
 */

import { styleText } from 'node:util'
import { VmchannelError } from '../errors.ts'

type Colour = 'red' | 'green' | 'yellow' | 'bold' | 'dim'

/** Colours text for a stream: not where the stream is no terminal or NO_COLOR is set. */
export function paint(colour: Colour, text: string, stream: NodeJS.WriteStream = process.stdout): string {
  return styleText(colour, text, { stream, validateStream: true })
}

/** A result for a program: one line. */
export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`)
}

/** A message for a person. */
export function say(text: string): void {
  process.stderr.write(`${text}\n`)
}

/** A warning: something is not as it was asked for, and the command goes on. */
export function warn(text: string): void {
  say(`vmchannel: ${paint('yellow', 'warning', process.stderr)}: ${text}`)
}

/** What went wrong, on standard error; for programs (--json) as one line of JSON. */
export function printError(error: unknown, json: boolean): void {
  const known = error instanceof VmchannelError
  const message = error instanceof Error ? error.message : String(error)
  const hint = known ? error.hint : undefined
  if (json) {
    const code = known ? error.code : 'ERR_VMCHANNEL_INTERNAL'
    say(JSON.stringify({ error: hint === undefined ? { code, message } : { code, message, hint } }))
  } else {
    const lines = [`vmchannel: ${paint('red', message, process.stderr)}`]
    if (hint !== undefined) lines.push(`  ${hint}`)
    if (!known) lines.push('  this is a mistake in vmchannel; VMCHANNEL_DEBUG=1 shows where')
    say(lines.join('\n'))
  }
  if (process.env['VMCHANNEL_DEBUG'] && error instanceof Error) say(error.stack ?? '')
}

/** 1536 → "1.5 KiB"; below 1 KiB a plain number of bytes. */
export function humanBytes(bytes: number): string {
  if (bytes < 1024) return `${bytes} B`
  const units = ['KiB', 'MiB', 'GiB', 'TiB', 'PiB']
  let value = bytes
  let unit = -1
  // What would be printed as 1024.0 belongs to the next unit.
  while (value >= 1023.95 && unit < units.length - 1) {
    value /= 1024
    unit++
  }
  return `${value.toFixed(1)} ${units[unit]}`
}
