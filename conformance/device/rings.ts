/** Chains and rings as honest drivers make them, in every shape that is allowed (§2.7). */

import {
  CONSOLE_BAD_ID,
  CONTROL_RECEIVEQ,
  CONTROL_TRANSMITQ,
  encodeControl,
  VIRTIO_CONSOLE_DEVICE_READY,
} from '../../src/spec/console.ts'
import {
  VIRTIO_CONSOLE_F_MULTIPORT,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from '../../src/spec/features.ts'
import { VIRTQ_DESC_F_INDIRECT, VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE, VIRTQ_DESC_SIZE } from '../../src/spec/split.ts'
import { writeDesc, type RawQueue, type RawSegment } from '../../test/support/raw-queue.ts'
import { check, NotApplicable, same, type Case } from '../case.ts'
import { BASIC } from '../raw/driver.ts'
import type { DeviceTest } from '../raw/test.ts'

const HELLO = Buffer.from('The quick brown fox jumps over the lazy dog')
/** Where an indirect table may lie in the region of a queue. */
const TABLE = 0x4000
const UNTOUCHED = 0xee

/** Cuts bytes that lie in page `page` into pieces. */
function pieces(
  queue: RawQueue,
  page: number,
  bytes: Uint8Array,
  lens: readonly number[],
  write = false,
): RawSegment[] {
  if (!write) queue.page(page).set(bytes)
  let at = 0
  return lens.map((len) => {
    const segment = { address: queue.pageAddress(page) + at, len, write }
    at += len
    return segment
  })
}

/** An indirect table of these segments behind descriptor `head`, which gets `flags` besides. */
function indirect(queue: RawQueue, head: number, segments: readonly RawSegment[], flags = 0): void {
  segments.forEach(({ address, len, write = false }, i) => {
    const more = i + 1 < segments.length
    const bits = (write ? VIRTQ_DESC_F_WRITE : 0) | (more ? VIRTQ_DESC_F_NEXT : 0)
    writeDesc(queue.view, TABLE + i * VIRTQ_DESC_SIZE, address, len, bits, more ? i + 1 : 0)
  })
  queue.desc(head, queue.region.base + TABLE, segments.length * VIRTQ_DESC_SIZE, VIRTQ_DESC_F_INDIRECT | flags)
}

function concurrent(test: DeviceTest): void {
  if (test.machine.pid === undefined)
    throw new NotApplicable('the device runs in the thread of the driver: nothing can be seen in between')
}

export const RING_CASES: readonly Case<DeviceTest>[] = [
  {
    id: 'R27',
    async run(test) {
      await test.up()
      const { port, peer } = await test.channel()
      const ones = (n: number): number[] => Array.from({ length: n }, () => 1)
      const output = test.transmitq(port.id)
      const shapes = [[43], [1, 42], [42, 1], [20, 3, 20], ones(43)]
      for (const lens of shapes) {
        const from = peer.received().length
        output.chain(pieces(output, output.size - 1, HELLO, lens))
        output.notify()
        await test.arrives(peer, HELLO, from)
      }
      const input = test.receiveq(port.id)
      for (const lens of shapes) {
        const page = input.page(input.size - 1).fill(0)
        input.takeUsed()
        const head = input.chain(pieces(input, input.size - 1, page, lens, true))
        input.notify()
        await test.settle()
        peer.write(HELLO)
        await test.until(() => input.usedIdx !== input.seenUsed, `a buffer in ${lens.length} pieces to be filled`)
        same(input.takeUsed(), [{ id: head, len: HELLO.length }], `used entries of a buffer in ${lens.length} pieces`)
        check(HELLO.equals(page.subarray(0, HELLO.length)), `a buffer in ${lens.length} pieces holds other bytes`)
      }
      if (!test.negotiated(VIRTIO_CONSOLE_F_MULTIPORT)) return
      const control = test.queue(CONTROL_TRANSMITQ)
      const ready = encodeControl(CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1)
      for (const lens of [[4, 2, 2], ones(8), [1, 7]]) {
        const heard = test.heard.length
        const used = control.usedIdx
        control.chain(pieces(control, control.size - 1, ready, lens))
        control.notify()
        await test.until(() => control.usedIdx !== used, 'a control message in pieces to come back')
        await test.until(
          () => (test.hear(), test.heard.length > heard),
          `an answer to DEVICE_READY in ${lens.length} pieces`,
        )
        await test.quiet()
      }
    },
  },
  {
    id: 'R29',
    async run(test) {
      await test.up()
      const { port, peer } = await test.channel()
      const queue = test.transmitq(port.id)
      queue.chain(pieces(queue, 5, HELLO, [10, 33]))
      const table = Buffer.from(queue.region.bytes.subarray(0, queue.size * VIRTQ_DESC_SIZE))
      const avail = Buffer.from(queue.region.bytes.subarray(0x8000, 0x8004 + 2 * queue.size))
      const pages = Buffer.from(queue.pages.bytes)
      queue.notify()
      await test.arrives(peer, HELLO)
      await test.until(() => queue.usedIdx === 1, 'the buffer back')
      check(table.equals(queue.region.bytes.subarray(0, table.length)), 'the descriptor table was written to')
      check(
        avail.equals(queue.region.bytes.subarray(0x8000, 0x8000 + avail.length)),
        'the available ring was written to',
      )
      check(pages.equals(queue.pages.bytes), 'a readable buffer was written to')
    },
  },
  {
    id: 'R32',
    async run(test) {
      test.needs(VIRTIO_RING_F_INDIRECT_DESC, 'INDIRECT_DESC')
      await test.up({ features: BASIC | VIRTIO_RING_F_INDIRECT_DESC })
      const { port, peer } = await test.channel()
      const queue = test.transmitq(port.id)
      indirect(queue, 0, pieces(queue, 5, HELLO, [10, 33]), VIRTQ_DESC_F_WRITE)
      queue.avail(0)
      queue.notify()
      await test.arrives(peer, HELLO)
    },
  },
  {
    id: 'R33',
    async run(test) {
      test.needs(VIRTIO_RING_F_INDIRECT_DESC, 'INDIRECT_DESC')
      await test.up({ features: BASIC | VIRTIO_RING_F_INDIRECT_DESC })
      const { port, peer } = await test.channel()
      const queue = test.transmitq(port.id)
      const [first, second, ...rest] = pieces(queue, 5, HELLO, [3, 7, 20, 13])
      queue.desc(0, first!.address, first!.len, VIRTQ_DESC_F_NEXT, 1)
      queue.desc(1, second!.address, second!.len, VIRTQ_DESC_F_NEXT, 2)
      indirect(queue, 2, rest)
      queue.avail(0)
      queue.notify()
      await test.arrives(peer, HELLO)
    },
  },
  {
    id: 'R39',
    async run(test) {
      concurrent(test)
      await watchUsed(test, ({ len }) =>
        check(len !== 0xeeee_eeee, 'used.idx counts an entry whose len is not there yet'),
      )
    },
  },
  {
    id: 'R40',
    async run(test) {
      await test.up()
      const { port, peer } = await test.channel()
      const queue = test.receiveq(port.id)
      queue.pages.bytes.fill(UNTOUCHED)
      for (let i = 0; i < 8; i++) queue.postPage(i, 100)
      queue.notify()
      await test.settle()
      peer.write(HELLO)
      await test.until(() => queue.usedIdx > 0, 'a buffer with bytes of the host')
      const [used] = queue.takeUsed()
      check(used!.len > 0 && used!.len <= 100, `used.len is ${used!.len} for ${HELLO.length} bytes in a buffer of 100`)
      const page = queue.page(used!.id)
      check(HELLO.subarray(0, used!.len).equals(page.subarray(0, used!.len)), 'fewer bytes than used.len were written')
      check(
        page.subarray(100).every((byte) => byte === UNTOUCHED),
        'bytes behind the buffer were written',
      )
      for (const untouched of [8, 9].map((i) => queue.page(i)))
        check(
          untouched.every((byte) => byte === UNTOUCHED),
          'a page that was not posted was written',
        )
    },
  },
  {
    id: 'R44',
    async run(test) {
      for (const features of [BASIC, BASIC | VIRTIO_RING_F_EVENT_IDX]) {
        await test.up({ features })
        const { port, peer } = await test.channel()
        const queue = test.transmitq(port.id)
        const seen = new Set<number>()
        for (let i = 0; i < 8; i++) {
          test.send(port, 'x')
          seen.add(queue.usedFlags)
          await test.until(() => queue.usedIdx === i + 1, 'the buffer back')
          seen.add(queue.usedFlags)
        }
        const allowed = test.negotiated(VIRTIO_RING_F_EVENT_IDX) ? [0] : [0, 1]
        for (const flags of seen)
          check(
            allowed.includes(flags),
            `used.flags is ${flags} ${allowed.length === 1 ? 'with' : 'without'} EVENT_IDX`,
          )
        peer.close()
      }
    },
  },
  {
    id: 'R45',
    async run(test) {
      await test.up()
      const { port, peer } = await test.channel()
      for (let i = 0; i < 20; i++) for (const queue of test.queueIndices()) test.registers.notify(queue)
      await test.settle()
      test.send(port, 'after them all')
      await test.arrives(peer, 'after them all')
      check(!test.needsReset, 'the device needs a reset after notifications about nothing')
    },
  },
  {
    id: 'S1',
    async run(test) {
      concurrent(test)
      await watchUsed(test, ({ id }) => check(id !== 0xeeee_eeee, 'used.idx counts an element that is not there yet'))
    },
  },
  {
    id: 'S5',
    async run(test) {
      test.needs(VIRTIO_CONSOLE_F_MULTIPORT, 'MULTIPORT')
      await test.up()
      const queue = test.queue(CONTROL_TRANSMITQ)
      queue.takeUsed()
      const heads: number[] = []
      const port = test.port()
      for (let round = 0; round < 3; round++) {
        for (const [event, value] of [
          [3, 1],
          [6, 1],
          [6, 0],
          [0xff, 0],
        ] as const)
          heads.push(queue.put(encodeControl(port.id, event, value)))
        queue.notify()
        await test.until(() => queue.usedIdx === queue.availIdx, 'all control messages back')
      }
      await test.settle()
      same(
        queue
          .takeUsed()
          .map(({ id }) => id)
          .toSorted((a, b) => a - b),
        heads.toSorted((a, b) => a - b),
        'heads of control chains in the used ring',
      )
      same(
        test.queue(CONTROL_RECEIVEQ).usedIdx <= test.queue(CONTROL_RECEIVEQ).availIdx,
        true,
        'used.idx is behind avail.idx',
      )
    },
  },
  {
    id: 'S18',
    async run(test) {
      await test.up()
      const { port } = await test.channel()
      test.send(port, HELLO)
      const queue = test.transmitq(port.id)
      await test.until(() => queue.usedIdx === 1, 'the buffer back')
      same(queue.takeUsed()[0]!.len, 0, 'used.len of a transmit chain')
      if (!test.negotiated(VIRTIO_CONSOLE_F_MULTIPORT)) return
      const control = test.queue(CONTROL_TRANSMITQ)
      for (const { len } of control.takeUsed()) same(len, 0, 'used.len of a control chain')
    },
  },
]

/** Fills a transmitq again and again and looks at each used element the moment that used.idx says it is there. */
async function watchUsed(test: DeviceTest, look: (entry: { id: number; len: number }) => void): Promise<void> {
  await test.up()
  const { port } = await test.channel()
  const queue = test.transmitq(port.id)
  const { bytes } = queue.region
  const idx = new Uint16Array(bytes.buffer, bytes.byteOffset + 0xa002, 1)
  for (let round = 0; round < 40; round++) {
    bytes.fill(UNTOUCHED, 0xa004, 0xa004 + 8 * queue.size)
    for (let i = 0; i < queue.size; i++) queue.put(Uint8Array.of(i))
    queue.notify()
    const end = Date.now() + test.machine.patience
    for (let seen = queue.seenUsed; queue.seenUsed !== queue.availIdx;) {
      // In this thread, without a pause: the device is another process.
      seen = Atomics.load(idx, 0)
      if (seen !== queue.seenUsed) for (const entry of queue.takeUsed()) look(entry)
      else if (Date.now() > end) break
    }
    await test.until(() => queue.usedIdx === queue.availIdx, 'all buffers back')
    for (const entry of queue.takeUsed()) look(entry)
  }
}
