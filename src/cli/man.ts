/**
 * The man page, from the command table: vmchannel(1). man/vmchannel.1 in the package is what this gives; a test compares
 * the two, and `node dist/src/cli/generate.js` writes it.
 */

import { VERSION } from '../version.ts'
import { ROOT } from './commands.ts'
import { argumentText, optionText, usageLine } from './help-text.ts'
import { valueName, type CommandRow, type OptionRow } from './table.ts'
import { TOPICS } from './topics.ts'

export function manPage(): string {
  const lines = [
    `.\\" Made from the command table: node dist/src/cli/generate.js`,
    `.TH VMCHANNEL 1 "" "vmchannel ${VERSION}" "User Commands"`,
    '.SH NAME',
    `vmchannel, vmchannel\\-qemu \\- ${escape(ROOT.summary)}`,
    '.SH SYNOPSIS',
    ...(ROOT.commands ?? []).flatMap((row) => synopsis([row.name], row)),
    '.B vmchannel\\-qemu',
    '.RI [ QEMU-ARGUMENTS ...]',
    '.SH DESCRIPTION',
    ...paragraphs(ROOT.text ?? []),
    '.SH COMMANDS',
    ...(ROOT.commands ?? []).flatMap((row) => command([row.name], row)),
  ]
  for (const { name, title, parts } of TOPICS) {
    lines.push(`.SH ${escape(HEADINGS[name] ?? name.toUpperCase())}`, `${escape(capital(title))}.`)
    for (const part of parts) {
      if (typeof part !== 'string') lines.push(...definitions(part))
      else if (part.startsWith('  ')) lines.push('.PP', '.nf', ...literal(part), '.fi')
      else lines.push('.PP', escape(part))
    }
  }
  lines.push('.SH EXAMPLES', ...examples(ROOT), '.SH SEE ALSO', '.BR qemu (1),', '.BR udev (7)')
  return `${lines.join('\n')}\n`
}

const HEADINGS: Readonly<Record<string, string>> = {
  ports: 'PORTS',
  config: 'CONFIGURATION FILE',
  environment: 'ENVIRONMENT',
  'exit-codes': 'EXIT STATUS',
}

function synopsis(words: readonly string[], row: CommandRow): string[] {
  if (row.commands) return row.commands.flatMap((sub) => synopsis([...words, sub.name], sub))
  const rest = usageLine(words, row)
    .split(' ')
    .slice(words.length + 1)
  return [
    `.B ${escape(['vmchannel', ...words].join(' '))}`,
    ...(rest.length > 0 ? [escape(rest.join(' '))] : []),
    '.br',
  ]
}

function command(words: readonly string[], row: CommandRow): string[] {
  const lines = [
    `.SS ${escape(usageLine(words, row))}`,
    `${escape(capital(row.summary))}.`,
    ...paragraphs(row.text ?? []),
  ]
  const terms = [
    ...(row.args ?? []).map((arg) => [arg.name, argumentText(arg)] as const),
    ...(row.options ?? []).map((option) => [flags(option), optionText(option)] as const),
  ]
  lines.push(...definitions(terms), ...examples(row))
  return [...lines, ...(row.commands ?? []).flatMap((sub) => command([...words, sub.name], sub))]
}

function flags(row: OptionRow): string {
  const value = valueName(row)
  return value === undefined ? row.flags : row.flags.replace(`<${value}>`, value.toUpperCase())
}

function examples(row: CommandRow): string[] {
  return (row.examples ?? []).flatMap(({ text, command }) => [
    '.PP',
    escape(text),
    '.RS 4',
    '.nf',
    ...literal(command),
    '.fi',
    '.RE',
  ])
}

function definitions(rows: readonly (readonly [string, string])[]): string[] {
  return rows.flatMap(([term, text]) => ['.TP', `.B ${escape(term)}`, escape(text)])
}

function paragraphs(texts: readonly string[]): string[] {
  return texts.flatMap((text) => ['.PP', escape(text)])
}

function literal(text: string): string[] {
  return text.split('\n').map((line) => escape(line))
}

/** Backslashes, hyphens that are to be copied, and dots and quotes that would begin a request. */
function escape(text: string): string {
  return text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll("'", '\\(aq')
    .replaceAll('^', '\\(ha')
    .replaceAll('~', '\\(ti')
    .replace(/^\./, '\\&.')
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1)
}
