/** Laying out plain text: paragraphs, lists of terms, tables. Used by help and by commands that print tables. */

import { escapeLine } from '../escape.ts'
import { plain, restyled } from './style.ts'

/** Breaks a paragraph at blanks. */
export function wrap(text: string, width: number): string {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(/\s+/)) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line)
      line = word
    } else line = line === '' ? word : `${line} ${word}`
  }
  return [...lines, line].join('\n')
}

export function indent(text: string, by: number): string {
  return text.replaceAll(/^(?=.)/gm, ' '.repeat(by))
}

/** Terms on the left, what they mean on the right; a long term has a line of its own. */
export function definitions(rows: readonly (readonly [string, string])[], width: number): string {
  const left = Math.min(Math.max(...rows.map(([term]) => term.length)), 26)
  const margin = ' '.repeat(left + 4)
  const entries = rows.map(([term, text]) => {
    const head = term.length > left ? `  ${term}\n${margin}` : `  ${term.padEnd(left)}  `
    return head + wrap(text, width - left - 4).replaceAll('\n', `\n${margin}`)
  })
  return entries.join('\n')
}

/**
 * Rows as aligned columns, those in `right` to the right; two blanks between, none at the end of a line. A cell may be
 * somebody else's text: it stays in its line.
 */
export function columns(table: readonly (readonly string[])[], right: readonly number[] = []): string {
  const rows = table.map((row) => row.map((cell) => restyled(cell, escapeLine)))
  const count = Math.max(0, ...rows.map((row) => row.length))
  const widths = Array.from({ length: count }, (_, at) => Math.max(...rows.map((row) => visible(row[at] ?? ''))))
  const lines = rows.map((row) => {
    const cells = widths.map((width, at) => {
      const cell = row[at] ?? ''
      const blanks = ' '.repeat(width - visible(cell))
      return right.includes(at) ? blanks + cell : cell + blanks
    })
    return `${cells.join('  ').trimEnd()}\n`
  })
  return lines.join('')
}

function visible(text: string): number {
  return plain(text).length
}
