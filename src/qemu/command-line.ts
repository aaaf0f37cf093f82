/**
 * Splits a QEMU command line into options and disk images without losing a byte: joining `raw` of all gives the command
 * line back. The planner replaces single arguments and leaves the rest alone.
 */

import { VmchannelError } from '../errors.ts'
import { parseOptionString, type OptionString } from './option.ts'
import { OWN_OPTIONS, WITH_ARGUMENT, WITH_JSON, WITHOUT_ARGUMENT } from './option-table.ts'

export interface Argument {
  /** Without dashes, -M as "machine"; undefined for a disk image. */
  readonly name: string | undefined
  /** What follows the option, or the disk image. */
  readonly value: string | undefined
  /** The words of the command line; none for what a -readconfig file adds. */
  readonly raw: readonly string[]
  /** The file of -readconfig that it comes from, with its options taken apart already. */
  readonly file?: string
  readonly parsed?: OptionString
}

const ALIASES: Readonly<Record<string, string>> = {
  M: 'machine',
  h: 'help',
  'virtio-serial': 'virtioserial',
}

/** Splits the arguments behind the program's name. Never fails: what QEMU does not know, QEMU shall complain about. */
export function splitCommandLine(argv: readonly string[]): Argument[] {
  const result: Argument[] = []
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i] ?? ''
    if (!word.startsWith('-')) {
      result.push({ name: undefined, value: word, raw: [word] })
      continue
    }
    const given = word.slice(word.startsWith('--') ? 2 : 1)
    const name = ALIASES[given] ?? given
    const next = argv[i + 1]
    if (next !== undefined && takesArgument(given, next)) {
      result.push({ name, value: next, raw: [word, next] })
      i++
    } else {
      result.push({ name, value: undefined, raw: [word] })
    }
  }
  return result
}

function takesArgument(name: string, next: string): boolean {
  if (WITH_ARGUMENT.has(name) || OWN_OPTIONS.has(name)) return true
  if (WITHOUT_ARGUMENT.has(name)) return false
  // An option of a newer QEMU: swallowing a disk image does no harm, reading a value as an option would.
  return !next.startsWith('-')
}

export function isOwn(argument: Argument): boolean {
  return argument.name !== undefined && OWN_OPTIONS.has(argument.name)
}

/** The command line without our options. */
export function withoutOwn(list: readonly Argument[]): string[] {
  return list.filter((argument) => !isOwn(argument)).flatMap((argument) => argument.raw)
}

/** The argument as a person would look for it: `-device virtio-serial-pci,id=x`. */
export function describeArgument(argument: Argument): string {
  const text = argument.raw.length > 0 ? argument.raw.join(' ') : `${argument.name ?? ''} ${argument.value ?? ''}`
  const short = text.length > 160 ? `${text.slice(0, 160)}…` : text
  return argument.file === undefined ? short : `${short} (in ${argument.file})`
}

/** First keys that may stand without a name. */
const IMPLIED: Readonly<Record<string, string>> = {
  device: 'driver',
  chardev: 'backend',
  object: 'qom-type',
  machine: 'type',
  m: 'size',
  numa: 'type',
  netdev: 'type',
  global: '',
  accel: 'accel',
  blockdev: 'driver',
  tpmdev: 'type',
  mon: 'chardev',
  name: 'guest',
}

/** The argument's options, or undefined where there are none or they are not as QEMU writes them. */
export function argumentOptions(argument: Argument): OptionString | undefined {
  if (argument.parsed) return argument.parsed
  if (argument.name === undefined || argument.value === undefined) return undefined
  const implied = impliedKey(argument.name)
  try {
    return parseOptionString(argument.value, {
      ...(implied === undefined ? {} : { implied }),
      json: WITH_JSON.has(argument.name),
      argument: `-${argument.name}`,
    })
  } catch (error) {
    if (error instanceof VmchannelError) return undefined
    throw error
  }
}

export function impliedKey(name: string): string | undefined {
  return IMPLIED[name]
}

/** Sections of a -readconfig file ([device "id"], key = "value") as arguments; unknown lines are left to QEMU. */
export function readConfigFile(text: string, file: string): Argument[] {
  const result: Argument[] = []
  let entries: { key: string; value: string }[] | undefined
  for (const line of text.split('\n')) {
    const trimmed = line.trim()
    const section = /^\[([\w-]+)(?:\s+"([^"]*)")?\]$/.exec(trimmed)
    const pair = /^([\w.:-]+)\s*=\s*"([^"]*)"$/.exec(trimmed)
    if (section) {
      const group = section[1] ?? ''
      entries = section[2] === undefined ? [] : [{ key: 'id', value: section[2] }]
      const name = group === 'memory' ? 'm' : group
      result.push({ name, value: section[2] ?? '', raw: [], file, parsed: { json: false, entries } })
    } else if (pair && entries) {
      entries.push({ key: pair[1] ?? '', value: pair[2] ?? '' })
    }
  }
  return result
}

/** The list with the sections of each -readconfig file behind it; `readFile` answers undefined where it may not. */
export function withConfigFiles(
  list: readonly Argument[],
  readFile: (path: string) => string | undefined,
  onUnread: (argument: Argument, path: string) => void = () => {},
): Argument[] {
  return list.flatMap((argument) => {
    if (argument.name !== 'readconfig' || argument.value === undefined) return [argument]
    const text = readFile(argument.value)
    if (text !== undefined) return [argument, ...readConfigFile(text, argument.value)]
    onUnread(argument, argument.value)
    return [argument]
  })
}
