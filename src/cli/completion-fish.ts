/** Completion for fish: one line for each word and option. */

import { completionRows, LIST_NAMES, type CompletionRow } from './completion-rows.ts'
import { longFlag, valueName, type Completion, type OptionRow } from './table.ts'

export function fishCompletion(): string {
  const lines = ['# fish completion for vmchannel; made by "vmchannel completion fish"', 'complete -c vmchannel -f']
  for (const row of completionRows()) {
    const when = condition(row)
    for (const { word, text } of row.words) lines.push(`complete -c vmchannel -n ${when} -a ${word} -d ${quote(text)}`)
    for (const option of row.options) lines.push(`complete -c vmchannel -n ${when} ${optionWords(option)}`)
    if (row.argument) lines.push(`complete -c vmchannel -n ${when} ${values(row.argument)}`)
    if (row.row.verbatim) lines.push(`complete -c vmchannel -n ${when} -F`)
  }
  return `${lines.join('\n')}\n`
}

function condition({ path, row }: CompletionRow): string {
  if (path === '') return '__fish_use_subcommand'
  const seen = path.split(' ').map((word) => `__fish_seen_subcommand_from ${word}`)
  if (row.commands) seen.push(`not __fish_seen_subcommand_from ${row.commands.map(({ name }) => name).join(' ')}`)
  return quote(seen.join('; and '))
}

function optionWords(option: OptionRow): string {
  const short = /^-([a-zA-Z]),/.exec(option.flags)?.[1]
  const parts = [
    ...(short === undefined ? [] : [`-s ${short}`]),
    `-l ${longFlag(option).slice(2)}`,
    `-d ${quote(option.text)}`,
  ]
  if (valueName(option) !== undefined) {
    if (option.choices) parts.push(`-x -a ${quote(option.choices.join(' '))}`)
    else parts.push(option.complete ? values(option.complete) : '-x')
  }
  return parts.join(' ')
}

function values(complete: Completion): string {
  if (complete === 'file') return '-r -F'
  if (complete === 'directory') return "-x -a '(__fish_complete_directories)'"
  return `-x -a ${quote(`(${LIST_NAMES[complete]})`)}`
}

/** Within single quotes fish reads only \\ and \'. */
function quote(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`
}
