/**
 * The command line as data. program.ts makes the parser and the help of it, man.ts the man page, completion.ts the shell
 * completions: what is not in a table does not exist, and what is there cannot be undocumented.
 */

export interface ArgumentRow {
  /** "PORT", "[SPEC]", "[TOPIC...]" without brackets. */
  name: string
  text: string
  optional?: boolean
  many?: boolean
  complete?: Completion
  choices?: readonly string[]
}

export interface OptionRow {
  /** As commander reads it: "-n, --vm <name>", "--json", "--port <spec>". */
  flags: string
  text: string
  /** May be given several times; the value is an array. */
  many?: boolean
  /** The variable that stands in for it where it is not given. */
  env?: string
  default?: string
  choices?: readonly string[]
  complete?: Completion
}

export type Completion = 'file' | 'directory' | 'port' | 'vm'

export interface Example {
  text: string
  /** Command lines, without a prompt. */
  command: string
}

/** What an action gets: the words as given, options by their names ("dryRun"). */
export interface Call {
  args: readonly string[]
  options: Readonly<Record<string, unknown>>
}

/** Runs a command; the number is the exit status, 0 where there is none. */
export type Run = (call: Call) => Promise<number | void>

export interface CommandRow {
  name: string
  summary: string
  /** Paragraphs for help and man page. */
  text?: readonly string[]
  args?: readonly ArgumentRow[]
  options?: readonly OptionRow[]
  examples?: readonly Example[]
  commands?: readonly CommandRow[]
  /** What stands behind the options is not ours to read. */
  verbatim?: boolean
  /** What stands behind the first argument belongs to it: options of a program to run. */
  trailing?: boolean
  /** Loaded when it is run: a command pays for its own code only. */
  load?: () => Promise<Run>
}

export const JSON_OPTION: OptionRow = { flags: '--json', text: 'print JSON with stable keys, errors too' }

export const CONTROL_OPTIONS: readonly OptionRow[] = [
  {
    flags: '--vm <name>',
    text: 'the VM that is meant, where there are several',
    env: 'VMCHANNEL_VM',
    complete: 'vm',
  },
  {
    flags: '--control <path>',
    text: 'control socket of the device process; found by itself where there is one',
    env: 'VMCHANNEL_CONTROL',
    complete: 'file',
  },
]

/** The long form alone: "--vm". */
export function longFlag(row: OptionRow): string {
  return /--[a-z-]+/.exec(row.flags)![0]
}

/** Whether the option has a value, and what help calls it: "name". */
export function valueName(row: OptionRow): string | undefined {
  return /<([^>]+)>/.exec(row.flags)?.[1]
}

/** "PORT [COLSxROWS] SPEC..." as usage lines show it. */
export function argumentWords(row: CommandRow): string {
  const words = (row.args ?? []).map(({ name, optional, many }) => {
    const word = many ? `${name}...` : name
    return optional ? `[${word}]` : word
  })
  return words.join(' ')
}
