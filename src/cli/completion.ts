/**
 * Completion scripts from the command table. The scripts are static: pressing TAB starts no Node, but for names of
 * ports and VMs, which `vmchannel port list --json` knows.
 */

import { VmchannelError } from '../errors.ts'
import { bashCompletion } from './completion-bash.ts'
import { fishCompletion } from './completion-fish.ts'
import { zshCompletion } from './completion-zsh.ts'
import { print } from './print.ts'
import type { Run } from './table.ts'

export const SHELLS: Readonly<Record<string, () => string>> = {
  bash: bashCompletion,
  zsh: zshCompletion,
  fish: fishCompletion,
}

export const completionCommand: Run = async ({ args }) => {
  const make = SHELLS[args[0]!]
  if (!make)
    throw new VmchannelError('ERR_VMCHANNEL_USAGE', `there is no completion for "${args[0]}"`, {
      hint: `there is one for: ${Object.keys(SHELLS).join(', ')}`,
    })
  print(make())
}
