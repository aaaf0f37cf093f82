/**
 * Runs that vmchannel leaves completely alone: questions to QEMU, and machines without devices, with which libvirt and
 * libguestfs ask what this QEMU can do. Called by plan.ts first.
 */

import { argumentOptions, describeArgument, type Argument } from './command-line.ts'
import { mergeOptions } from './memory.ts'
import { optionText } from './option.ts'
import { WITH_HELP } from './option-table.ts'

/** Why a run is left alone, or undefined. */
export function passThroughReason(list: readonly Argument[]): string | undefined {
  for (const argument of list) {
    if (argument.name === 'help' || argument.name === 'version') return `-${argument.name}`
    if (argument.name === 'dump-vmstate') return '-dump-vmstate ends before the machine runs'
    if (asksForHelp(argument)) return `${describeArgument(argument)} asks for a list`
  }
  if (optionText(mergeOptions(list, 'machine'), 'type') === 'none') return 'machine "none" has no devices'
  return undefined
}

/** "help" or "?" as a word of its own anywhere, as QEMU looks for it; also model=help of a network card. */
function asksForHelp(argument: Argument): boolean {
  if (argument.name === undefined || argument.value === undefined || argument.file !== undefined) return false
  if (!WITH_HELP.has(argument.name) || argument.value.startsWith('{')) return false
  if (/(^|,)(help|\?)(,|$)/.test(argument.value)) return true
  if (argument.name !== 'nic' && argument.name !== 'net') return false
  const option = argumentOptions(argument)
  return option !== undefined && ['help', '?'].includes(optionText(option, 'model') ?? '')
}
