/**
 * The grammar of option strings, QEMU's: `head,key=value,flag`, where `,,` is a literal comma. Fields are data: one table
 * reads strings, checks objects of programs, and writes strings again. Used by spec.ts and port-spec.ts.
 */

import { VmchannelError } from '../errors.ts'
import { printable } from '../log.ts'

/** One kind of value: from text, from a program, to text. */
export interface ValueType {
  /** Completes "expected …". */
  readonly expected: string
  parse(text: string): unknown
  check(value: unknown): boolean
  format(value: unknown): string
}

export interface Field {
  /** Name in an object: "reconnectMs". */
  readonly key: string
  /** Name in a string: "reconnect-ms". */
  readonly word: string
  readonly type: ValueType
  readonly required?: boolean
  /** Another way to write a field that is in the table already; read, never written. */
  readonly alias?: boolean
}

export function usage(message: string, hint?: string): VmchannelError {
  return new VmchannelError('ERR_VMCHANNEL_USAGE', message, hint === undefined ? {} : { hint })
}

/** Found text, quoted and fit to print. */
export function quote(value: unknown): string {
  if (typeof value === 'string') return `"${printable(value)}"`
  if (typeof value === 'object' && value !== null) return Array.isArray(value) ? 'an array' : 'an object'
  return typeof value === 'function' ? 'a function' : String(value)
}

// --- kinds of values

const FLAG_WORDS: Readonly<Record<string, boolean>> = {
  on: true,
  yes: true,
  true: true,
  y: true,
  off: false,
  no: false,
  false: false,
  n: false,
}

export const flag: ValueType = {
  expected: 'on or off',
  parse: (text) => (Object.hasOwn(FLAG_WORDS, text) ? FLAG_WORDS[text] : undefined),
  check: (value) => typeof value === 'boolean',
  format: (value) => (value === true ? 'on' : 'off'),
}

export function integer(min: number, max: number, unit = ''): ValueType {
  return {
    expected: `a whole number from ${min} to ${max}${unit}`,
    parse: (text) => (/^\d{1,15}$/.test(text) ? Number(text) : undefined),
    check: (value) => Number.isInteger(value) && (value as number) >= min && (value as number) <= max,
    format: String,
  }
}

/** Seconds in the string, milliseconds in the object. */
export function seconds(max: number): ValueType {
  return {
    expected: `a whole number of seconds up to ${max}`,
    parse: (text) => (/^\d{1,9}$/.test(text) ? Number(text) * 1000 : undefined),
    check: (value) => Number.isInteger(value) && (value as number) >= 0 && (value as number) <= max * 1000,
    format: (value) => String((value as number) / 1000),
  }
}

const SUFFIXES: readonly (readonly [string, number])[] = [
  ['G', 2 ** 30],
  ['M', 2 ** 20],
  ['K', 2 ** 10],
]

function formatSize(value: number): string {
  for (const [suffix, unit] of SUFFIXES) if (value % unit === 0 && value > 0) return `${value / unit}${suffix}`
  return String(value)
}

/** Bytes, with K, M, G (powers of 1024) in the string. */
export function size(min: number, max: number): ValueType {
  return {
    expected: `a size from ${formatSize(min)} to ${formatSize(max)}, e.g. 64K or 1M`,
    parse(text) {
      const match = /^(\d{1,15})(?:([KMG])(?:i?B)?)?$/i.exec(text)
      if (!match) return undefined
      const unit = SUFFIXES.find(([suffix]) => suffix === match[2]?.toUpperCase())?.[1] ?? 1
      return Number(match[1]) * unit
    },
    check: (value) => Number.isInteger(value) && (value as number) >= min && (value as number) <= max,
    format: (value) => formatSize(value as number),
  }
}

/** Permission bits, octal in the string. */
export const mode: ValueType = {
  expected: 'permission bits in octal, e.g. 0660',
  parse: (text) => (/^[0-7]{1,4}$/.test(text) ? parseInt(text, 8) : undefined),
  check: (value) => Number.isInteger(value) && (value as number) >= 0 && (value as number) <= 0o777,
  format: (value) => `0${(value as number).toString(8)}`,
}

export function choice(values: readonly string[]): ValueType {
  return {
    expected: `one of ${values.join(', ')}`,
    parse: (text) => text,
    check: (value) => typeof value === 'string' && values.includes(value),
    format: String,
  }
}

export function text(expected: string, test: (value: string) => boolean): ValueType {
  return {
    expected,
    parse: (value) => value,
    check: (value) => typeof value === 'string' && test(value),
    format: String,
  }
}

// --- strings

/** Splits at single commas; a double comma is one literal comma. */
export function splitOptions(source: string): string[] {
  const parts: string[] = []
  let part = ''
  for (let i = 0; i < source.length; i++) {
    if (source[i] !== ',') part += source[i]
    else if (source[i + 1] === ',') {
      part += ','
      i++
    } else {
      parts.push(part)
      part = ''
    }
  }
  parts.push(part)
  return parts
}

export function escapeOption(value: string): string {
  return value.replaceAll(',', ',,')
}

/** Reads one `key=value` or flag into `into`; `what` says whose options these are, for messages. */
export function readOption(option: string, fields: readonly Field[], into: Raw, argument: string, what: string): void {
  const equals = option.indexOf('=')
  const word = equals === -1 ? option : option.slice(0, equals)
  if (word === '') throw usage(`${argument}: an option is empty`, 'a literal comma is written twice: ,,')
  let field = fields.find((f) => f.word === word)
  let value: unknown
  if (equals !== -1) value = field?.type.parse(option.slice(equals + 1))
  else if (field?.type === flag) value = true
  else if (!field && word.startsWith('no')) {
    // As QEMU had it: nowait, noserver.
    field = fields.find((f) => f.word === word.slice(2) && f.type === flag)
    value = false
  }
  if (!field) throw unknownWord(word, fields, argument, what)
  if (equals === -1 && field.type !== flag)
    throw usage(`${argument}: ${word} has no value`, `write ${word}=VALUE, where VALUE is ${field.type.expected}`)
  if (Object.hasOwn(into, field.key)) throw usage(`${argument}: ${word} is given twice`, 'leave one of them out')
  if (value === undefined || !field.type.check(value))
    throw usage(`${argument}: ${word}=${printable(option.slice(equals + 1))} is not ${field.type.expected}`)
  into[field.key] = value
}

function unknownWord(word: string, fields: readonly Field[], argument: string, what: string): VmchannelError {
  const words = fields.map((f) => f.word)
  const near = nearest(word, words)
  const list = `${what} takes: ${words.join(', ')}`
  return usage(`${argument}: unknown option ${quote(word)}`, near ? `did you mean "${near}"? ${list}` : list)
}

/** Writes the fields that are set, in the order of the table. */
export function formatOptions(value: Raw, fields: readonly Field[], skip: readonly string[] = []): string {
  let result = ''
  for (const field of fields) {
    const own = value[field.key]
    if (own === undefined || field.alias || skip.includes(field.key)) continue
    result += `,${field.word}=${escapeOption(field.type.format(own))}`
  }
  return result
}

// --- objects

export type Raw = Record<string, unknown>

export function isRecord(value: unknown): value is Raw {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Copies the known, well-formed fields of an object that a program gave; throws at the first that is not. */
export function checkFields(value: Raw, fields: readonly Field[], argument: string, what: string): Raw {
  const result: Raw = {}
  for (const [key, own] of Object.entries(value)) {
    if (own === undefined) continue
    const field = fields.find((f) => f.key === key && !f.alias)
    if (!field) {
      const keys = fields.filter((f) => !f.alias).map((f) => f.key)
      const near = nearest(key, keys)
      const list = `${what} has: ${keys.join(', ')}`
      throw usage(`${argument}: unknown property ${quote(key)}`, near ? `did you mean "${near}"? ${list}` : list)
    }
    if (!field.type.check(own)) throw usage(`${argument}.${key}: ${quote(own)} is not ${field.type.expected}`)
    result[key] = own
  }
  for (const field of fields)
    if (field.required && result[field.key] === undefined)
      throw usage(`${argument}: ${what} needs ${field.word}`, `add it: ${field.type.expected}`)
  return result
}

// --- suggestions

/** The word nearest to a misspelt one, or undefined where none is near. */
export function nearest(word: string, words: readonly string[]): string | undefined {
  let best: string | undefined
  let bestDistance = Math.max(2, Math.floor(word.length / 3)) + 1
  for (const candidate of words) {
    const distance = candidate.startsWith(word) && word.length > 2 ? 1 : editDistance(word.toLowerCase(), candidate)
    if (distance < bestDistance && distance < candidate.length) {
      best = candidate
      bestDistance = distance
    }
  }
  return best
}

function editDistance(a: string, b: string): number {
  if (a.length > 64) return Infinity
  let row = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++)
      next.push(Math.min(next[j - 1]! + 1, row[j]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)))
    row = next
  }
  return row[b.length]!
}
