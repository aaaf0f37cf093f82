/** What the kernel writes into a ledger when bytes move: the byte counts of readv and writev that a killed process never saw. */
import { ftruncateSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { closeFd } from '../../src/ffi/libc.ts'
import { createMemfd, SharedMapping } from '../../src/ffi/mmap.ts'
import { makePipe } from '../../src/ffi/pipe.ts'
import { readv, writev } from '../../src/ffi/rw.ts'
import { packetPair } from '../../src/ffi/socket-calls.ts'
import { Iovec } from '../../src/mem/iovec.ts'
import { Ledger, LEDGER_LEN } from '../../src/mem/ledger.ts'
import { NO_RECEIPT, type Receipts } from '../../src/mem/receipts.ts'

/** Two ledgers in one file, as of a process and its successor. */
function ledgers(): { before: Receipts; after: Receipts; positions: Float64Array } {
  const fd = createMemfd('ledger', false)
  ftruncateSync(fd, LEDGER_LEN)
  const [one, two] = [0, 1].map((i) => {
    const mapping = new SharedMapping(fd, LEDGER_LEN, true)
    const ledger = new Ledger(mapping.pieces(0, LEDGER_LEN)[0]!.bytes, mapping.address, i === 1)
    const positions = ledger.f64(4)
    return { positions, receipts: ledger.receipts(positions)! }
  })
  closeFd(fd)
  return { before: one!.receipts, after: two!.receipts, positions: one!.positions }
}

function list(receipts: Receipts, queue: number, bytes: Uint8Array): Iovec {
  const all = new Iovec()
  all.push(bytes, 0, bytes.length, 0)
  all.receipts = receipts
  all.queue = queue
  return all
}

describe('receipts', () => {
  it('are the kernel\u2019s for sockets: what was sent, what was received, and nothing where nothing moved', () => {
    const { before, after, positions } = ledgers()
    const { ours, theirs } = packetPair()
    expect(readv(ours, list(before, 2, new Uint8Array(10)))).toBe(0)
    expect(after.unrecorded()).toBeUndefined()
    expect(writev(ours, list(before, 3, Uint8Array.of(1, 2, 3)))).toBe(3)
    expect(after.unrecorded()).toEqual({ queue: 3, bytes: 3, offered: 3 })
    positions[3] = 2 ** 33
    expect(after.unrecorded()).toBeUndefined()
    const into = new Uint8Array(10)
    expect(readv(theirs, list(before, 2, into))).toBe(3)
    expect(after.unrecorded()).toEqual({ queue: 2, bytes: 3, offered: 10 })
    expect([...into.subarray(0, 4)]).toEqual([1, 2, 3, 0])
    closeFd(theirs)
    expect(readv(ours, list(before, 2, new Uint8Array(10)))).toBe(-1) // the end
    expect(after.unrecorded()).toBeUndefined()
    closeFd(ours)
  })

  it('are our own for what is no socket', () => {
    const { before, after } = ledgers()
    const pipe = makePipe()
    expect(writev(pipe.write, list(before, 1, Uint8Array.of(1, 2)))).toBe(2)
    expect(after.unrecorded()).toEqual({ queue: 1, bytes: 2, offered: 2 })
    // No more than lay there can have moved.
    expect(readv(pipe.read, list(before, 0, new Uint8Array(5)))).toBe(2)
    expect(after.unrecorded()).toEqual({ queue: 0, bytes: 2, offered: 2 })
    closeFd(pipe.read)
    closeFd(pipe.write)
    expect(after.len).not.toBe(NO_RECEIPT)
  })

  it('the same order of fields is found again', () => {
    const { positions } = ledgers()
    const one = new Ledger()
    expect(one.f64(4)).toHaveLength(positions.length)
    expect(one.receipts(one.f64(4))).toBeUndefined()
    expect(() => {
      const small = new Ledger(new Uint8Array(64), 1)
      small.u32(100)
    }).toThrow(RangeError)
  })
})
