/**
 * QEMU's option strings: `driver,key=value,flag` with `,,` for a comma, and the JSON form of -device, -object and
 * friends. Everything else in this folder reads arguments through here; the rules are those of QEMU 11.1.
 */

import { VmchannelError } from '../errors.ts'

export type JsonValue = string | number | boolean | null | JsonValue[] | { [key: string]: JsonValue }

export interface OptionEntry {
  key: string
  value: JsonValue
}

/** One option string, taken apart. A key may come several times: the last one counts, except for QEMU's list options. */
export interface OptionString {
  readonly json: boolean
  readonly entries: readonly OptionEntry[]
}

export interface ParseOptions {
  /** Key of a first item that has no '=': "driver" for -device. */
  implied?: string
  /** Whether QEMU takes JSON here. */
  json?: boolean
  /** What to name in errors: "-device". */
  argument?: string
}

/** Takes an option string apart. Fails only for broken JSON: the classic form has no wrong spelling. */
export function parseOptionString(text: string, options: ParseOptions = {}): OptionString {
  if (options.json && text.startsWith('{')) return { json: true, entries: parseJson(text, options.argument) }
  const entries: OptionEntry[] = []
  let at = 0
  while (at < text.length) {
    const stop = nameEnd(text, at)
    const first = at === 0 && options.implied !== undefined
    if (text[stop] === '=') {
      const { value, end } = readValue(text, stop + 1)
      entries.push({ key: text.slice(at, stop), value })
      at = end
    } else if (first) {
      const { value, end } = readValue(text, at)
      entries.push({ key: options.implied ?? '', value })
      at = end
    } else {
      entries.push(flag(text.slice(at, stop)))
      at = stop + 1
    }
  }
  return { json: false, entries }
}

function nameEnd(text: string, from: number): number {
  let at = from
  while (at < text.length && text[at] !== '=' && text[at] !== ',') at++
  return at
}

/** Reads up to a single comma; a double one is a comma of the value. `end` is behind the separator. */
function readValue(text: string, from: number): { value: string; end: number } {
  let value = ''
  let at = from
  for (;;) {
    const comma = text.indexOf(',', at)
    if (comma === -1) return { value: value + text.slice(at), end: text.length }
    value += text.slice(at, comma)
    if (text[comma + 1] !== ',') return { value, end: comma + 1 }
    value += ','
    at = comma + 2
  }
}

/** A word alone is a switch: "server" is on, "nowait" turns wait off; "help" and "?" ask a question. */
function flag(word: string): OptionEntry {
  if (word.startsWith('no') && word.length > 2) return { key: word.slice(2), value: 'off' }
  return { key: word, value: 'on' }
}

function parseJson(text: string, argument: string | undefined): OptionEntry[] {
  let parsed: JsonValue
  try {
    parsed = JSON.parse(text) as JsonValue
  } catch (error) {
    // QEMU also takes 'single quotes'; whoever writes such a thing gets QEMU's own parser (see the callers).
    throw new VmchannelError('ERR_VMCHANNEL_USAGE', `${argument ?? 'option'}: ${text} is not JSON`, { cause: error })
  }
  if (parsed === null || typeof parsed !== 'object' || Array.isArray(parsed)) {
    throw new VmchannelError('ERR_VMCHANNEL_USAGE', `${argument ?? 'option'}: ${text} is not a JSON object`)
  }
  return Object.entries(parsed).map(([key, value]) => ({ key, value }))
}

/** Puts an option string together again; with `implied`, a leading entry of that key goes without its name. */
export function formatOptionString(option: OptionString, implied?: string): string {
  if (option.json) {
    return JSON.stringify(Object.fromEntries(option.entries.map((entry) => [entry.key, entry.value])))
  }
  return option.entries
    .map((entry, index) => {
      const value = plain(entry.value) ?? ''
      const bare = index === 0 && entry.key === implied && bareable(value)
      return bare ? escapeComma(value) : `${entry.key}=${escapeComma(value)}`
    })
    .join(',')
}

/** A value with '=' before its first comma would be taken for key=value. */
function bareable(value: string): boolean {
  return value !== '' && !value.split(',', 1)[0]?.includes('=') && !value.startsWith('{')
}

export function escapeComma(value: string): string {
  return value.replaceAll(',', ',,')
}

function plain(value: JsonValue | undefined): string | undefined {
  if (typeof value === 'string') return value
  if (typeof value === 'boolean') return value ? 'on' : 'off'
  if (typeof value === 'number') return String(value)
  return undefined
}

/** The raw value of a key, the last one where it comes several times. */
export function optionValue(option: OptionString, key: string): JsonValue | undefined {
  return option.entries.findLast((entry) => entry.key === key)?.value
}

/** A value as text; undefined where it is missing or a JSON structure. */
export function optionText(option: OptionString, key: string): string | undefined {
  return plain(optionValue(option, key))
}

/** Whether the key is there at all. */
export function hasOption(option: OptionString, key: string): boolean {
  return option.entries.some((entry) => entry.key === key)
}

const TRUE_WORDS = new Set(['on', 'yes', 'true', 'y'])
const FALSE_WORDS = new Set(['off', 'no', 'false', 'n'])

/** QEMU's words for yes and no; undefined for anything else. */
export function parseBoolean(text: string): boolean | undefined {
  if (TRUE_WORDS.has(text)) return true
  if (FALSE_WORDS.has(text)) return false
  return undefined
}

/** A switch; `fallback` where it is missing, undefined where it is neither yes nor no. */
export function optionBoolean(option: OptionString, key: string, fallback: boolean): boolean | undefined {
  const text = optionText(option, key)
  if (text === undefined) return hasOption(option, key) ? undefined : fallback
  return parseBoolean(text)
}

/** Decimal, 0x hexadecimal or 0 octal as QEMU reads a property; undefined for anything else. */
export function parseInteger(text: string): number | undefined {
  const digits = text.trim()
  if (/^0x[0-9a-f]+$/i.test(digits)) return Number.parseInt(digits, 16)
  if (/^0[0-7]+$/.test(digits)) return Number.parseInt(digits, 8)
  if (/^[0-9]+$/.test(digits)) return Number.parseInt(digits, 10)
  return undefined
}

/** The option with a key set: in place of its last occurrence, or at the end. */
export function withOption(option: OptionString, key: string, value: JsonValue): OptionString {
  const at = option.entries.findLastIndex((entry) => entry.key === key)
  const entries = [...option.entries]
  if (at === -1) entries.push({ key, value })
  else entries[at] = { key, value }
  return { json: option.json, entries }
}

/** The option without some keys. */
export function withoutOptions(option: OptionString, ...keys: string[]): OptionString {
  return { json: option.json, entries: option.entries.filter((entry) => !keys.includes(entry.key)) }
}

const SUFFIXES = 'bkmgtpe'

/**
 * A size as QEMU reads it: digits with an optional fraction and suffix, 1024-based, or plain 0x hexadecimal.
 * `unit` is the suffix where there is none. Undefined for anything that QEMU would refuse.
 */
export function parseSize(text: string, unit = 'b'): number | undefined {
  const hex = /^\s*0x[0-9a-f]+$/i.exec(text)
  if (hex) return unit === 'b' ? Number.parseInt(text.trim(), 16) : undefined
  const match = /^\s*\+?([0-9]+)(\.[0-9]+)?([bkmgtpe])?$/i.exec(text)
  if (!match) return undefined
  const suffix = (match[3] ?? unit).toLowerCase()
  if (match[2] !== undefined && suffix === 'b') return undefined
  const scale = 1024 ** SUFFIXES.indexOf(suffix)
  const size = Math.floor(Number(`${match[1]}${match[2] ?? ''}`) * scale)
  return Number.isSafeInteger(size) ? size : undefined
}
