/**
 * What commands say: results on standard output, messages on standard error, sizes, colours. All of it is written here,
 * and escaped here: what a guest, a disk or another program says never steers the terminal. Who quotes it within a line
 * takes `escapeLine` or a table; line breaks in text that is printed are ours.
 *
 * A reader that has gone away (EPIPE) ends the program without a word.
 */

import { styleText } from 'node:util'
import { VmchannelError } from '../errors.ts'
import { cut, escapeJson, escapeLine, escapeText } from '../escape.ts'
import { CLEAR_LINE, CLEAR_SCREEN, styled, unstyled } from './style.ts'

type Colour = 'red' | 'green' | 'yellow' | 'bold' | 'dim'

/** Colours text for a stream: not where the stream is no terminal or NO_COLOR is set. */
export function paint(colour: Colour, text: string, stream: NodeJS.WriteStream = process.stdout): string {
  return styled(colour, text, styleText(colour, 'x', { stream, validateStream: true }) !== 'x')
}

/** A result for a person, or for a program that reads text; with its line breaks. */
export function print(text: string): void {
  process.stdout.write(unstyled(text, escapeText))
}

/** A result for a program: one line. */
export function printJson(value: unknown): void {
  process.stdout.write(`${escapeJson(value)}\n`)
}

/** A message for a person: one line, whatever is quoted in it. */
export function say(line: string): void {
  process.stderr.write(`${unstyled(line, escapeLine)}\n`)
}

/** Lines of our own. */
export function sayLines(text: string): void {
  for (const line of text.trimEnd().split('\n')) say(line)
}

/** A line that the next one takes the place of, cut to the width of the terminal. */
export function sayOver(line: string): void {
  const text = cut(escapeLine(line), (process.stderr.columns ?? 80) - 1)
  process.stderr.write(`\r${text}${CLEAR_LINE}`)
}

export function clearScreen(): void {
  process.stdout.write(CLEAR_SCREEN)
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
    say(escapeJson({ error: hint === undefined ? { code, message } : { code, message, hint } }))
  } else {
    say(`vmchannel: ${paint('red', message, process.stderr)}`)
    if (hint !== undefined) say(`  ${hint}`)
    if (!known) say('  this is a mistake in vmchannel; VMCHANNEL_DEBUG=1 shows where')
  }
  if (process.env['VMCHANNEL_DEBUG'] && error instanceof Error) sayLines(error.stack ?? '')
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
