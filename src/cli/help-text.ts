/**
 * Help as text, from the command table: usage, paragraphs, arguments, options, examples. Called by the parser for
 * --help and by `vmchannel help`.
 */

import { ROOT } from './commands.ts'
import { paint } from './print.ts'
import { argumentWords, valueName, type CommandRow, type OptionRow } from './table.ts'
import { definitions, indent, wrap } from './text.ts'
import { TOPICS } from './topics.ts'

const WIDTH_MAX = 100

type Paint = (text: string) => string

/** Help on the command that `words` name, `row` being its row. */
export function commandHelp(words: readonly string[], row: CommandRow, stream: NodeJS.WriteStream): string {
  const width = Math.min(stream.columns ?? 80, WIDTH_MAX)
  const bold: Paint = (text) => paint('bold', text, stream)
  const parts = [`${bold('Usage:')} ${usageLine(words, row)}`, wrap(capital(row.summary) + '.', width)]
  for (const text of row.text ?? []) parts.push(wrap(text, width))
  if (row.args?.length)
    parts.push(
      section(
        bold,
        'Arguments',
        row.args.map((arg) => [arg.name, argumentText(arg)] as const),
        width,
      ),
    )
  if (row.commands)
    parts.push(
      section(
        bold,
        'Commands',
        row.commands.map((sub) => [`${sub.name} ${argumentWords(sub)}`.trim(), sub.summary] as const),
        width,
      ),
    )
  const options = [...(row.options ?? []), ...(row === ROOT ? [] : [HELP_OPTION])]
  parts.push(
    section(
      bold,
      'Options',
      options.map((option) => [optionWords(option), optionText(option)] as const),
      width,
    ),
  )
  if (row === ROOT)
    parts.push(
      section(
        bold,
        'Topics',
        TOPICS.map(({ name, title }) => [`help ${name}`, title] as const),
        width,
      ),
    )
  if (row.examples?.length) {
    const examples = row.examples.map(({ text, command }) => `  ${text}\n${indent(command, 6)}`)
    parts.push(`${bold('Examples:')}\n${examples.join('\n')}`)
  }
  return `${parts.join('\n\n')}\n`
}

/** "vmchannel port list [options]". */
export function usageLine(words: readonly string[], row: CommandRow): string {
  const tail = row.commands ? 'COMMAND' : argumentWords(row)
  return [ROOT.name, ...words, row.options?.length ? '[options]' : '', tail].filter(Boolean).join(' ')
}

export const HELP_OPTION: OptionRow = { flags: '-h, --help', text: 'print this help' }

export function optionWords(row: OptionRow): string {
  const value = valueName(row)
  const words = value === undefined ? row.flags : row.flags.replace(`<${value}>`, value.toUpperCase())
  // Without a short form the long one stands where long ones stand.
  return words.startsWith('--') ? `    ${words}` : words
}

/** What is said of an option, with choices, default and variable. */
export function optionText(row: OptionRow): string {
  const notes: string[] = []
  if (row.choices) notes.push(`one of ${row.choices.join(', ')}`)
  if (row.default !== undefined) notes.push(`default ${row.default}`)
  if (row.env !== undefined) notes.push(`or ${row.env}`)
  return notes.length > 0 ? `${row.text} (${notes.join('; ')})` : row.text
}

export function argumentText(row: { text: string; choices?: readonly string[] }): string {
  return row.choices ? `${row.text} (one of ${row.choices.join(', ')})` : row.text
}

function section(bold: Paint, title: string, rows: readonly (readonly [string, string])[], width: number): string {
  return `${bold(`${title}:`)}\n${definitions(rows, width)}`
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1)
}
