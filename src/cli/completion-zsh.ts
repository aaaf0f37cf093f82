/** Completion for zsh: a function for each command, with _arguments. */

import { allFlags, completionRows, LIST_NAMES, type CompletionRow } from './completion-rows.ts'
import { valueName, type Completion, type OptionRow } from './table.ts'

export function zshCompletion(): string {
  const rows = completionRows()
  return `#compdef vmchannel
# zsh completion for vmchannel; made by "vmchannel completion zsh"
${rows.map(functionOf).join('\n')}
_vmchannel_names() {
  local -a names
  names=(\${(f)"$(eval $1)"})
  compadd -a names
}

_vmchannel "$@"
`
}

function functionName(path: string): string {
  return path === '' ? '_vmchannel' : `_vmchannel_${path.replaceAll(' ', '_')}`
}

function functionOf({ path, row, words, options, argument }: CompletionRow): string {
  const specs = [...options.flatMap(optionSpecs), "'(-h --help)'{-h,--help}'[print help]'"]
  if (row.commands) {
    const list = words.map(({ word, text }) => quote(`${word}:${text.replaceAll(':', '\\:')}`)).join(' ')
    const cases = row.commands.map(({ name }) => `        ${name}) ${functionName(`${path} ${name}`.trim())} ;;`)
    return `${functionName(path)}() {
  local curcontext=$curcontext state line
  local -a commands
  commands=(${list})
  _arguments -C ${specs.join(' ')} '1: :->command' '*:: :->rest'
  case $state in
    command) _describe command commands ;;
    rest)
      case $line[1] in
${cases.join('\n')}
      esac
      ;;
  esac
}
`
  }
  if (row.verbatim) specs.push("'*: :_files'")
  else if (words.length > 0) specs.push(quote(`*: :(${words.map(({ word }) => word).join(' ')})`))
  else if (argument) specs.push(quote(`1: :${action(argument)}`))
  return `${functionName(path)}() {
  _arguments ${specs.join(' ')}
}
`
}

function optionSpecs(option: OptionRow): string[] {
  const text = option.text.replaceAll(/[[\]:\\]/g, (char) => `\\${char}`)
  const value = valueName(option)
  const does = option.choices ? `(${option.choices.join(' ')})` : option.complete ? action(option.complete) : ' '
  const tail = value === undefined ? '' : `:${value}:${does}`
  const many = option.many ? '*' : ''
  return allFlags(option).map((flag) => quote(`${many}${flag}[${text}]${tail}`))
}

function action(complete: Completion): string {
  if (complete === 'file') return '_files'
  if (complete === 'directory') return '_files -/'
  return `_vmchannel_names ${quote(LIST_NAMES[complete])}`
}

function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`
}
