/** What the completion scripts of all shells are made of: each command with its words. Called by completion-*.ts. */

import { ROOT } from './commands.ts'
import { longFlag, valueName, type CommandRow, type Completion, type OptionRow } from './table.ts'
import { TOPICS } from './topics.ts'

export interface CompletionRow {
  /** "port add"; empty for the root. */
  path: string
  row: CommandRow
  /** Names that may follow: commands, or the choices of the first argument. */
  words: { word: string; text: string }[]
  options: readonly OptionRow[]
  /** What the first argument is, where it is not a list of words. */
  argument: Completion | undefined
}

export function completionRows(): CompletionRow[] {
  const rows: CompletionRow[] = []
  const visit = (path: readonly string[], row: CommandRow): void => {
    const [argument] = row.args ?? []
    const words = (row.commands ?? []).map(({ name, summary }) => ({ word: name, text: summary }))
    for (const choice of argument?.choices ?? []) words.push({ word: choice, text: argument!.text })
    if (row.name === 'help') words.push(...helpWords())
    rows.push({ path: path.join(' '), row, words, options: row.options ?? [], argument: argument?.complete })
    for (const sub of row.commands ?? []) visit([...path, sub.name], sub)
  }
  visit([], ROOT)
  return rows
}

function helpWords(): { word: string; text: string }[] {
  const commands = (ROOT.commands ?? []).map(({ name, summary }) => ({ word: name, text: summary }))
  return [...TOPICS.map(({ name, title }) => ({ word: name, text: title })), ...commands]
}

/** "--vm" and "-c" of "-c, --config <file>". */
export function allFlags(option: OptionRow): string[] {
  const short = /^-[a-zA-Z](?=,)/.exec(option.flags)?.[0]
  return short === undefined ? [longFlag(option)] : [short, longFlag(option)]
}

/** Options that have a value. */
export function withValue(options: readonly OptionRow[]): OptionRow[] {
  return options.filter((option) => valueName(option) !== undefined)
}

/** Shell words that print names of ports or VMs, one a line, and nothing where no device runs. */
export const LIST_NAMES: Readonly<Record<'port' | 'vm', string>> = {
  port: `vmchannel port list --json 2>/dev/null | tr '{' '\\n' | sed -n 's/.*"name":"\\([^"\\\\]*\\)".*/\\1/p'`,
  vm: `vmchannel port list --json 2>/dev/null | tr '{' '\\n' | sed -n 's/.*"vm":"\\([^"\\\\]*\\)".*/\\1/p' | sort -u`,
}
