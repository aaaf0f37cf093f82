/**
 * The parser: commander, made from the command table. Called by main.ts; loads no command before it is known which one
 * runs.
 */

import { Command, CommanderError, Option } from 'commander'
import { VmchannelError } from '../errors.ts'
import { VERSION } from '../version.ts'
import { ROOT } from './commands.ts'
import { commandHelp } from './help-text.ts'
import { print, sayLines } from './print.ts'
import { valueName, type CommandRow, type OptionRow } from './table.ts'

/** Parses and runs; the result is the exit status. `argv` is what stands behind the program's name. */
export async function runProgram(argv: readonly string[]): Promise<number> {
  let status = 0
  const program = build([], ROOT, (result) => (status = result))
  program.version(VERSION, '-V, --version')
  try {
    await program.parseAsync([...argv], { from: 'user' })
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    // Help and version have been printed.
    if (error.exitCode === 0) return 0
    if (error.code === 'commander.help') return 2
    throw usageError(error, argv)
  }
  return status
}

function build(words: readonly string[], row: CommandRow, done: (status: number) => void): Command {
  const command = new Command(row.name)
  command.exitOverride()
  if (row.commands) command.enablePositionalOptions()
  // Errors are thrown, and printed by main.ts like all others.
  command.configureOutput({ outputError: () => {}, writeOut: print, writeErr: sayLines })
  command.helpCommand(false)
  command.helpOption('-h, --help')
  command.helpInformation = (context) => commandHelp(words, row, context?.error ? process.stderr : process.stdout)
  for (const sub of row.commands ?? []) command.addCommand(build([...words, sub.name], sub, done))
  if (row === ROOT) return command
  for (const option of row.options ?? []) addOption(command, option)
  if (row.verbatim) command.passThroughOptions().allowUnknownOption()
  if (row.trailing) command.passThroughOptions()
  for (const { name, optional, many } of row.args ?? []) {
    const word = many ? `${name}...` : name
    command.argument(optional ? `[${word}]` : `<${word}>`)
  }
  const { load } = row
  if (load)
    command.action(async () => {
      const run = await load()
      done((await run({ args: command.args, options: command.opts() })) ?? 0)
    })
  return command
}

function addOption(command: Command, row: OptionRow): void {
  const option = new Option(row.flags)
  if (row.env !== undefined) option.env(row.env)
  if (row.choices) option.choices(row.choices)
  if (row.many) option.argParser((value: string, before: string[] | undefined) => [...(before ?? []), value])
  // A file may stand between the flags and these: whoever reads one adds the default.
  if (row.default !== undefined && !command.name().startsWith('serve')) option.default(row.default)
  if (valueName(row) === undefined) option.default(false)
  command.addOption(option)
}

/** Commander's "error: unknown option '--foo'\n(Did you mean --for?)" as an error of this house. */
function usageError(error: CommanderError, argv: readonly string[]): VmchannelError {
  const [first, ...rest] = error.message.replace(/^error: /, '').split('\n')
  const near = rest.join(' ').replace(/^\((.*)\)$/, '$1')
  const words = argv.filter((word) => !word.startsWith('-')).slice(0, 2)
  let help = ROOT.name
  let row: CommandRow | undefined = ROOT
  for (const word of words) {
    row = row?.commands?.find(({ name }) => name === word)
    if (row) help += ` ${word}`
  }
  const hint = near === '' ? `see "${help} --help"` : near
  return new VmchannelError('ERR_VMCHANNEL_USAGE', first!, { hint, cause: error })
}
