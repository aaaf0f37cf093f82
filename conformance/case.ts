/**
 * The shape of a case, and what a case says when it finds something. Used by everything here.
 *
 * A case is a rule of the specification or an attack under its id (catalog/), written against a target: a device
 * (raw/test.ts) or our driver (driver/test.ts). It passes when `run` returns; what it throws is why it does not.
 */

import { inspect, isDeepStrictEqual } from 'node:util'

export type Status = 'pass' | 'fail' | 'n/a'

export interface Result {
  id: string
  title: string
  /** Which half is tested: "device" and "driver" are ours, "qemu" is QEMU's own device, "other" somebody else's. */
  target: string
  /** How it is reached. */
  over: string
  status: Status
  why: string
}

/** Either can be tried, or says why not. */
export type Case<Test> =
  | { readonly id: string; readonly run: (test: Test) => void | Promise<void> }
  | { readonly id: string; readonly na: string }

/** This target cannot be asked that; the message says why. */
export class NotApplicable extends Error {}

/** A rule was broken. */
export class Finding extends Error {}

export function check(condition: boolean, found: string): void {
  if (!condition) throw new Finding(found)
}

export function same(found: unknown, expected: unknown, what: string): void {
  if (!isDeepStrictEqual(found, expected)) throw new Finding(`${what}: ${show(found)}, expected ${show(expected)}`)
}

/** 0x1af4, for registers. */
export function sameBits(found: number, expected: number, what: string): void {
  if (found !== expected) throw new Finding(`${what}: 0x${found.toString(16)}, expected 0x${expected.toString(16)}`)
}

function show(value: unknown): string {
  return inspect(value, { depth: 4, breakLength: Infinity, maxArrayLength: 12, maxStringLength: 80 })
}
