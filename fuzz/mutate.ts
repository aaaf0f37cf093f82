/** Mutators: the next input from one or two of the corpus. Half of them know where steps begin, half only bytes. */

import { INPUT_MAX } from './input.ts'
import type { Random } from './random.ts'

export interface Parent {
  readonly bytes: Uint8Array
  /** Offsets at which its steps begin. */
  readonly marks: readonly number[]
}

/** How many more changes there are. */
const STACKED = [0, 0, 0, 1, 2, 5]
const INTERESTING = [0, 1, 2, 3, 7, 8, 15, 16, 31, 32, 63, 64, 99, 100, 127, 128, 129, 254, 255]

export interface Mutated {
  bytes: Uint8Array
  /** Goes on from a seed behind the bytes; undefined: ends there. */
  seed: number | undefined
}

/** Few changes of `parent`. Offsets of steps move with what is inserted, so only the first is by steps. */
export function mutate(r: Random, parent: Parent, other: Parent): Mutated {
  let bytes: Uint8Array = parent.bytes
  // To a point as it was, then anything.
  if (r.chance(30))
    return { bytes: bytes.subarray(0, r.chance(70) ? boundary(r, parent) : r.below(bytes.length)), seed: r.word() }
  if (parent.marks.length > 1 && r.chance(50)) bytes = bySteps(r, parent, other)
  else bytes = byBytes(r, bytes, other.bytes)
  for (let i = r.pick(STACKED); i > 0 && bytes.length > 0; i--) bytes = byBytes(r, bytes, other.bytes)
  return { bytes: bytes.subarray(0, INPUT_MAX), seed: r.chance(10) ? r.word() : undefined }
}

function bySteps(r: Random, parent: Parent, other: Parent): Uint8Array {
  const { bytes } = parent
  const [from, to] = run(r, parent)
  const source = r.chance(50) || other.marks.length === 0 ? parent : other
  const [first, last] = run(r, source)
  const piece = source.bytes.subarray(first, last)
  const at = boundary(r, parent)
  switch (r.below(5)) {
    case 0: // away with some
      return join(bytes.subarray(0, from), bytes.subarray(to))
    case 1: // in the place of others
      return join(bytes.subarray(0, from), piece, bytes.subarray(to))
    case 2: // again and again
      return join(
        bytes.subarray(0, to),
        ...repeat(bytes.subarray(from, to), 1 + r.below(r.pick([2, 8, 64]))),
        bytes.subarray(to),
      )
    case 3: // the end of the other
      return join(bytes.subarray(0, at), source.bytes.subarray(first))
    default:
      return join(bytes.subarray(0, at), piece, bytes.subarray(at))
  }
}

/** A few steps in a row, as offsets. */
function run(r: Random, { bytes, marks }: Parent): [from: number, to: number] {
  if (marks.length === 0) return [0, bytes.length]
  const first = r.below(marks.length)
  const from = Math.min(marks[first]!, bytes.length)
  const to = Math.min(marks[first + 1 + r.below(r.pick([1, 1, 4, 16]))] ?? bytes.length, bytes.length)
  return [from, Math.max(from, to)]
}

function boundary(r: Random, { bytes, marks }: Parent): number {
  return Math.min(r.pick([...marks, bytes.length]), bytes.length)
}

function byBytes(r: Random, bytes: Uint8Array, other: Uint8Array): Uint8Array {
  const at = r.below(bytes.length)
  const len = Math.min(1 + r.below(r.pick([1, 4, 32])), bytes.length - at)
  switch (r.below(9)) {
    case 0: // a bit
      return change(bytes, at, (byte) => byte ^ (1 << r.below(8)))
    case 1:
      return change(bytes, at, () => r.below(256))
    case 2:
      return change(bytes, at, () => r.pick(INTERESTING))
    case 3:
      return change(bytes, at, (byte) => byte + r.below(33) - 16)
    case 4:
      return join(bytes.subarray(0, at), r.bytes(len), bytes.subarray(at))
    case 5:
      return join(bytes.subarray(0, at), bytes.subarray(at + len))
    case 6: // duplicate
      return join(bytes.subarray(0, at + len), bytes.subarray(at))
    case 7: {
      // a piece of the other over this one
      const from = r.below(other.length)
      const piece = other.subarray(from, from + len)
      return join(bytes.subarray(0, at), piece, bytes.subarray(at + piece.length))
    }
    default: // splice
      return join(bytes.subarray(0, at), other.subarray(r.below(other.length)))
  }
}

function change(bytes: Uint8Array, at: number, to: (byte: number) => number): Uint8Array {
  if (at >= bytes.length) return bytes
  const copy = bytes.slice()
  copy[at] = to(copy[at]!)
  return copy
}

function repeat(piece: Uint8Array, times: number): Uint8Array[] {
  return Array.from({ length: times }, () => piece)
}

function join(...pieces: readonly Uint8Array[]): Uint8Array {
  return Buffer.concat(pieces)
}
