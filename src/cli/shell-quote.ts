/**
 * Words for a shell to read: as they are where they are harmless, else in single quotes; with what a terminal would
 * obey as bash, zsh and busybox write it.
 */

import { escapeLine } from '../escape.ts'

export function shellQuote(word: string): string {
  if (/^[A-Za-z0-9_@%+=:,./-]+$/.test(word)) return word
  if (escapeLine(word) === word) return `'${word.replaceAll("'", `'\\''`)}'`
  const bytes = [...Buffer.from(word)].map((byte) =>
    byte < 0x20 || byte > 0x7e || byte === 0x27 || byte === 0x5c
      ? `\\${byte.toString(8).padStart(3, '0')}`
      : String.fromCharCode(byte),
  )
  return `$'${bytes.join('')}'`
}
