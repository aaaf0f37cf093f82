/** Completion for bash: one function, no bash-completion package needed. */

import { allFlags, completionRows, LIST_NAMES, withValue } from './completion-rows.ts'
import type { Completion } from './table.ts'

export function bashCompletion(): string {
  const rows = completionRows()
  const nested = rows.filter(({ row, path }) => row.commands && path !== '').map(({ path }) => path)
  const options = rows.map(
    ({ path, options }) => `    '${path}') echo '${[...options.flatMap(allFlags), '--help'].join(' ')}' ;;`,
  )
  const words = rows
    .filter(({ words }) => words.length > 0)
    .map(({ path, words }) => `    '${path}') echo '${words.map(({ word }) => word).join(' ')}' ;;`)
  const values = new Map<string, string>()
  for (const { options } of rows)
    for (const option of withValue(options))
      for (const flag of allFlags(option)) values.set(flag, generator(option.complete, option.choices))
  const cases = [...values].map(([flag, command]) => `    ${flag}) ${command} ;;`)
  const ports = rows.filter(({ argument }) => argument === 'port').map(({ path }) => `'${path}'`)
  return `# bash completion for vmchannel; made by "vmchannel completion bash"
_vmchannel_options() {
  case $1 in
${options.join('\n')}
  esac
}

_vmchannel_words() {
  case $1 in
${words.join('\n')}
  esac
}

# Completes the value of option $1; fails where it is no option with a value.
_vmchannel_value() {
  case $1 in
${cases.join('\n')}
    *) return 1 ;;
  esac
}

_vmchannel() {
  local current=\${COMP_WORDS[COMP_CWORD]} path='' count=0 skip='' word
  COMPREPLY=()
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    if [ -n "$skip" ]; then skip=''; continue; fi
    case $word in
      -*) _vmchannel_takes_value "$word" && skip=1 ;;
      *)
        if [ -z "$path" ]; then path=$word
        elif [ $count -eq 0 ] && [[ " ${nested.join(' ')} " == *" $path "* ]]; then path="$path $word"; count=1
        elif [ "$path" = qemu ]; then COMPREPLY=($(compgen -f -- "$current")); return
        fi
        ;;
    esac
  done
  if [ -n "$skip" ]; then
    _vmchannel_value "\${COMP_WORDS[COMP_CWORD-1]}"
  elif [[ $current == -* ]]; then
    COMPREPLY=($(compgen -W "$(_vmchannel_options "$path")" -- "$current"))
  else
    COMPREPLY=($(compgen -W "$(_vmchannel_words "$path")" -- "$current"))
    case $path in
      ${ports.join(' | ')}) ${generator('port')} ;;
      qemu) COMPREPLY=($(compgen -f -- "$current")) ;;
    esac
  fi
}

_vmchannel_takes_value() {
  case $1 in
    ${[...values.keys()].join(' | ')}) return 0 ;;
  esac
  return 1
}

complete -o filenames -F _vmchannel vmchannel
`
}

function generator(complete: Completion | undefined, choices?: readonly string[]): string {
  if (choices) return `COMPREPLY=($(compgen -W '${choices.join(' ')}' -- "$current"))`
  if (complete === 'file') return `COMPREPLY=($(compgen -f -- "$current"))`
  if (complete === 'directory') return `COMPREPLY=($(compgen -d -- "$current"))`
  if (complete === 'port' || complete === 'vm')
    return `COMPREPLY=($(compgen -W "$(${LIST_NAMES[complete]})" -- "$current"))`
  return ':'
}
