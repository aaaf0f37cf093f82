/** Copies into the middle of a list and out of it: as if its segments were one piece. */

import fc from 'fast-check'
import { expect, it } from 'vitest'
import { Iovec } from '../../src/mem/iovec.ts'

const list = new Iovec()
const segments = fc.array(fc.record({ before: fc.nat(5), len: fc.nat(9), after: fc.nat(5) }), { maxLength: 6 })

/** Segments somewhere in buffers of their own, filled with their place in the whole. */
function fill(parts: { before: number; len: number; after: number }[]): Uint8Array {
  list.clear()
  let at = 1
  for (const { before, len, after } of parts) {
    const bytes = new Uint8Array(before + len + after)
    for (let i = 0; i < len; i++) bytes[before + i] = at++
    list.push(bytes, before, len, 0)
  }
  return Uint8Array.from({ length: at - 1 }, (_, i) => i + 1)
}

it('out of it', () => {
  fc.assert(
    fc.property(segments, fc.nat(60), fc.nat(60), (parts, skip, most) => {
      const whole = fill(parts)
      const target = new Uint8Array(most)
      const done = list.copyTo(target, skip)
      expect(target.subarray(0, done)).toEqual(whole.subarray(skip, skip + most))
      expect(target.subarray(done).every((byte) => byte === 0)).toBe(true)
    }),
  )
})

it('into it, and nothing beside it', () => {
  fc.assert(
    fc.property(segments, fc.nat(60), fc.nat(60), (parts, skip, len) => {
      const whole = fill(parts)
      const source = new Uint8Array(len).fill(0xff)
      const done = list.copyFrom(source, skip)
      expect(done).toBe(Math.min(len, Math.max(0, whole.length - skip)))
      whole.fill(0xff, skip, skip + done)
      const after = new Uint8Array(whole.length)
      list.copyTo(after)
      expect(after).toEqual(whole)
      const outside = list.bytes.slice(0, list.count).flatMap((bytes, i) => {
        const [from, to] = [list.offset[i]!, list.offset[i]! + list.len[i]!]
        return [...bytes.subarray(0, from), ...bytes.subarray(to)]
      })
      expect(outside.every((byte) => byte === 0)).toBe(true)
    }),
  )
})
