import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { HoldBuffer } from '../../src/device/hold-buffer.ts'
import { Iovec } from '../../src/mem/iovec.ts'

describe('HoldBuffer', () => {
  it('behaves as a list of bytes with a bound, whatever is put in and taken out', () => {
    const steps = fc.array(
      fc.oneof(
        fc.record({ op: fc.constant('take' as const), lens: fc.array(fc.nat(30), { maxLength: 5 }), skip: fc.nat(40) }),
        fc.record({ op: fc.constant('consume' as const), bytes: fc.nat(30) }),
        fc.record({ op: fc.constant('clear' as const) }),
      ),
      { maxLength: 60 },
    )
    fc.assert(
      fc.property(
        steps,
        fc.integer({ min: 1, max: 32 }),
        fc.constantFrom('oldest' as const, 'newest' as const),
        (all, capacity, drop) => {
          const hold = new HoldBuffer(capacity)
          let model: number[] = []
          let byte = 0
          const list = new Iovec()
          for (const step of all) {
            if (step.op === 'take') {
              list.clear()
              const bytes: number[] = []
              for (const len of step.lens) {
                const chunk = Uint8Array.from({ length: len }, () => byte++ & 0xff)
                list.push(chunk, 0, len, 0)
                bytes.push(...chunk)
              }
              const skip = Math.min(step.skip, bytes.length)
              const wanted = [...model, ...bytes.slice(skip)]
              model = drop === 'oldest' ? wanted.slice(-capacity) : wanted.slice(0, capacity)
              expect(hold.take(list, skip, drop)).toBe(wanted.length - model.length)
            } else if (step.op === 'consume') {
              const bytes = Math.min(step.bytes, model.length)
              hold.consume(bytes)
              model = model.slice(bytes)
            } else {
              expect(hold.clear()).toBe(model.length)
              model = []
            }
            expect(hold.len).toBe(model.length)
            hold.lend(list)
            const out = new Uint8Array(capacity)
            expect([...out.subarray(0, list.copyTo(out))]).toEqual(model)
          }
        },
      ),
    )
  })
})
