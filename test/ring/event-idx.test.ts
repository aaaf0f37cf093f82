import { describe, expect, it } from 'vitest'
import { needEvent } from '../../src/ring/event-idx.ts'

describe('EVENT_IDX', () => {
  it('notify decision equals brute force for all 2^16 offsets around the wrap', () => {
    for (const old of [0, 1, 2, 255, 32767, 32768, 65279, 65534, 65535])
      for (const count of [0, 1, 2, 3, 127, 128, 129, 1024, 32767, 32768, 32769, 65535]) {
        const made = new Uint8Array(65536)
        for (let i = 0; i < count; i++) made[(old + i) & 0xffff] = 1
        const newIdx = (old + count) & 0xffff
        for (let event = 0; event < 65536; event++)
          if (needEvent(event, newIdx, old) !== (made[event] === 1))
            expect.fail(`event ${event}, ${count} entries from ${old}`)
      }
  })

  it('values that only a careless comparison would take as they are: an index of 65536 and more', () => {
    expect(needEvent(65535, 65536, 65535)).toBe(true)
    expect(needEvent(0, 65537, 65536)).toBe(true)
    expect(needEvent(1, 65537, 65536)).toBe(false)
  })
})
