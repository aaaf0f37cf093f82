/** What a successor makes of the control messages of a process that died in the middle of a change. */
import { describe, expect, it } from 'vitest'
import { ControlNotes, type PortNews } from '../../src/device/control-notes.ts'
import { Ledger } from '../../src/mem/ledger.ts'

function told(changes: Partial<PortNews>): PortNews {
  return {
    ...{ exists: true, console: false, name: undefined, size: undefined, open: false },
    ...{ toldExists: true, toldOpen: true, ready: true, known: true, takenBack: false },
    ...{ owesRemove: false, owesConsole: false, owesName: false, owesSize: false, owesClose: false },
    ...changes,
  }
}

describe('notes about control messages', () => {
  it('a port that the driver knows and the successor does not have is taken back', () => {
    const bytes = new Uint8Array(4096)
    const before = new ControlNotes(4, new Ledger(bytes, 1))
    before.save([undefined, told({}), told({ toldExists: false, known: false }), told({})], [1, 2, 3], 1)
    const ports: (PortNews | undefined)[] = []
    ports[3] = told({ toldExists: false })
    new ControlNotes(4, new Ledger(bytes, 1, true)).resume(ports, 0)
    expect(ports[1]).toMatchObject({ exists: false, owesRemove: true, toldExists: false, ready: false })
    // The driver never heard of this one.
    expect(ports[2]).toBeUndefined()
    expect(ports[3]).toMatchObject({ exists: true, owesRemove: false, toldExists: true, ready: true })
  })

  it('a message is said where the queue is behind it, saved or not', () => {
    for (const [next, open] of [
      [7, false],
      [8, true],
    ] as const) {
      const bytes = new Uint8Array(4096)
      const before = new ControlNotes(4, new Ledger(bytes, 1))
      before.save([undefined, told({ toldOpen: false })], [1], 1)
      before.say(1, told({ toldOpen: true }), 8)
      const ports: (PortNews | undefined)[] = [undefined, told({ toldExists: false })]
      new ControlNotes(4, new Ledger(bytes, 1, true)).resume(ports, next)
      expect(ports[1]!.toldOpen).toBe(open)
    }
  })

  it('a message of the driver that is in the ring still is no message that was begun', () => {
    const bytes = new Uint8Array(4096)
    const before = new ControlNotes(4, new Ledger(bytes, 1))
    before.begin(1, 3, 1, 5)
    const after = new ControlNotes(4, new Ledger(bytes, 1, true))
    expect(after.undone(4)).toBeUndefined()
    expect(after.undone(5)).toEqual({ id: 1, event: 3, value: 1 })
  })
})
