/**
 * Colours in text that is going to be escaped: a mark stands for them that nobody else can write, a random number of
 * this process. Used by print.ts, which turns marks into escape sequences at the very end, and text.ts, which measures.
 */

import { randomBytes } from 'node:crypto'

const SEQUENCES = {
  red: ['31', '39'],
  green: ['32', '39'],
  yellow: ['33', '39'],
  bold: ['1', '22'],
  dim: ['2', '22'],
} as const

export const CLEAR_LINE = '\u001b[K'
export const CLEAR_SCREEN = '\u001b[H\u001b[2J'

/** Ends with what no number has. */
const MARK = `\u001b${randomBytes(8).toString('hex')}:`
const MARKS = new RegExp(`${MARK}(\\d+)m`)

export function styled(colour: keyof typeof SEQUENCES, text: string, on: boolean): string {
  if (!on) return text
  const [begin, end] = SEQUENCES[colour]
  return `${MARK}${begin}m${text}${MARK}${end}m`
}

/** What stands between marks made fit by `escape`, and the marks made escape sequences. */
export function unstyled(text: string, escape: (text: string) => string): string {
  // With a group in it, split gives the numbers at the odd places.
  return text
    .split(MARKS)
    .map((part, at) => (at % 2 === 0 ? escape(part) : `\u001b[${part}m`))
    .join('')
}

/** The same, but marks stay marks. */
export function restyled(text: string, escape: (text: string) => string): string {
  return text
    .split(MARKS)
    .map((part, at) => (at % 2 === 0 ? escape(part) : `${MARK}${part}m`))
    .join('')
}

/** Without its marks. */
export function plain(text: string): string {
  return text
    .split(MARKS)
    .filter((_, at) => at % 2 === 0)
    .join('')
}
