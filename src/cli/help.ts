/** `vmchannel help`: a command, or a topic. */

import { nearest } from '../chardev/options.ts'
import { VmchannelError } from '../errors.ts'
import { findCommand, ROOT } from './commands.ts'
import { commandHelp } from './help-text.ts'
import { print } from './print.ts'
import type { Run } from './table.ts'
import { definitions, wrap } from './text.ts'
import { TOPICS, type Topic } from './topics.ts'

export const helpCommand: Run = async ({ args }) => {
  const topic = args.length === 1 ? TOPICS.find(({ name }) => name === args[0]) : undefined
  if (topic) {
    print(topicText(topic))
    return
  }
  const row = findCommand(args)
  if (row) {
    print(commandHelp(args, row, process.stdout))
    return
  }
  const words = [...TOPICS.map(({ name }) => name), ...(ROOT.commands ?? []).map(({ name }) => name)]
  const near = nearest(args[0] ?? '', words)
  throw new VmchannelError('ERR_VMCHANNEL_USAGE', `there is no help on "${args.join(' ')}"`, {
    hint: near ? `did you mean "vmchannel help ${near}"?` : `there is help on: ${words.join(', ')}`,
  })
}

function topicText(topic: Topic): string {
  const width = Math.min(process.stdout.columns ?? 80, 100)
  const parts = topic.parts.map((part) => {
    if (typeof part !== 'string') return `${definitions(part, width)}\n`
    return part.startsWith('  ') ? `${part}\n` : `${wrap(part, width)}\n`
  })
  return `${wrap(`${topic.name}: ${topic.title}`, width)}\n\n${parts.join('\n')}`
}
