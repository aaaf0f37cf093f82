/**
 * Who else on the command line uses a thing that a device of ours would take away from QEMU: chardevs, ids, standard
 * input and output. Called by serial.ts.
 */

import { argumentOptions, type Argument } from './command-line.ts'
import { optionText, type JsonValue } from './option.ts'

/** Keys whose value is the id of a chardev: devices, monitors, net filters, and what a hub joins. */
const CHARDEV_KEY = /^(chardev|chardevs\.\d+|primary_in|secondary_in|indev|outdev|notify_dev)$/

/** Whether an argument uses the chardev of that id: chardev=ID, chardev:ID, or a JSON member of such a name. */
export function usesChardev(argument: Argument, id: string): boolean {
  const value = argument.value
  if (value === undefined || argument.name === undefined) return false
  // -serial chardev:ID, or at the end of a guestfwd: tcp:10.0.2.100:1-chardev:ID
  const words = value.split(',')
  if (words.some((word) => word === `chardev:${id}` || word.endsWith(`-chardev:${id}`))) return true
  const option = argumentOptions(argument)
  return option?.entries.some((entry) => refersTo(entry.key, entry.value, id)) ?? false
}

function refersTo(key: string, value: JsonValue, id: string): boolean {
  if (value === id) return CHARDEV_KEY.test(key)
  if (value === null || typeof value !== 'object') return false
  if (Array.isArray(value)) return value.some((item) => refersTo(key, item, id))
  return Object.entries(value).some(([inner, item]) => refersTo(inner, item, id))
}

const STDIO_OPTIONS = new Set(['serial', 'parallel', 'monitor', 'qmp', 'qmp-pretty', 'debugcon', 'gdb'])

/** How many arguments use standard input and output; -nographic does where nothing else takes serial and monitor. */
export function stdioUsers(list: readonly Argument[]): number {
  let users = 0
  let graphic = true
  for (const argument of list) {
    if (argument.name === 'nographic') graphic = false
    if (argument.name === 'display' && argument.value?.startsWith('curses')) users++
    if (argument.name === 'chardev') {
      const option = argumentOptions(argument)
      if (option && optionText(option, 'backend') === 'stdio') users++
    } else if (STDIO_OPTIONS.has(argument.name ?? '') && /^(mon:)?stdio\b/.test(argument.value ?? '')) {
      users++
    }
  }
  if (!graphic && defaultConsole(list)) users++
  return users
}

/** -nographic puts serial port and monitor on stdio, unless both are said or defaults are off. */
function defaultConsole(list: readonly Argument[]): boolean {
  const has = (name: string): boolean => list.some((argument) => argument.name === name)
  if (has('nodefaults')) return false
  return !(has('serial') && (has('monitor') || has('qmp') || has('mon')))
}

/** -set GROUP.ID.KEY=VALUE that changes the thing of that id. */
export function isSet(list: readonly Argument[], group: string, id: string | undefined): boolean {
  if (id === undefined) return false
  return list.some((argument) => argument.name === 'set' && argument.value?.startsWith(`${group}.${id}.`))
}

/** Every id on the command line, so that a new one is new. */
export function allIds(list: readonly Argument[]): Set<string> {
  const ids = new Set<string>()
  for (const argument of list) {
    const option = argumentOptions(argument)
    const id = option && optionText(option, 'id')
    if (id !== undefined) ids.add(id)
  }
  return ids
}

/** The first of NAME, NAME1, NAME2 … that is free; taken from then on. */
export function freshId(name: string, ids: Set<string>): string {
  let id = name
  for (let n = 1; ids.has(id); n++) id = `${name}${n}`
  ids.add(id)
  return id
}

/** Keys whose value is a descriptor, or several with colons between. */
const FD_KEY = /^(?:.*[.-])?(?:fds?|vhostfds?|str)$/

const FD_OPTIONS = new Set(['add-fd', 'blockdev', 'chardev', 'device', 'net', 'netdev', 'nic', 'object'])

/** Numbers of inherited descriptors that the command line speaks of; QEMU must find them open. */
export function mentionedFds(list: readonly Argument[]): number[] {
  const fds = new Set<number>()
  const add = (key: string, value: JsonValue): void => {
    if (value !== null && typeof value === 'object') {
      for (const [inner, item] of Object.entries(value)) add(inner, item)
    } else if (FD_KEY.test(key) && /^\d+(:\d+)*$/.test(String(value))) {
      for (const number of String(value).split(':')) fds.add(Number(number))
    }
  }
  for (const argument of list) {
    const option = FD_OPTIONS.has(argument.name ?? '') ? argumentOptions(argument) : undefined
    for (const { key, value } of option?.entries ?? []) add(key, value)
    const incoming = /^fd:(\d+)$/.exec(argument.name === 'incoming' ? (argument.value ?? '') : '')
    if (incoming) fds.add(Number(incoming[1]))
  }
  return [...fds].filter((fd) => fd > 2).toSorted((a, b) => a - b)
}
