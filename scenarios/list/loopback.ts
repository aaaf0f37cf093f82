/** Bytes through the guest from one port to others, files, and peers that do not keep up. */
import { createHash } from 'node:crypto'
import type { Socket } from 'node:net'
import { startVmtest } from '../../lab/vmtest.ts'
import { Pattern } from '../../lab/pattern.ts'
import { readBytes, until } from '../../lab/wait.ts'
import { check, same, type Scenario } from '../scenario.ts'
import { MIB, pause, write, type Port, type Side } from '../side.ts'

const BULK_MS = 240_000
/** A file that is larger than every buffer on its way by far. */
const FILE = 128 * MIB

export const LOOPBACK: readonly Scenario[] = [
  {
    id: 'loopback',
    title: 'what comes in by one port goes out by another',
    field: 'smoke.basic_loopback',
    short: true,
    run: (side) => loopback(side, 1, 20_000, 1024, 1024),
  },
  {
    id: 'loopback.small',
    title: 'one port to three, 4 bytes at a time from the host, 8 in the guest',
    field: 'loopback.serialport_small',
    run: (side) => loopback(side, 3, 40_000, 4, 8),
  },
  {
    id: 'loopback.big',
    title: 'one port to three, 16 KiB at a time from the host, 8 KiB in the guest',
    field: 'loopback.serialport_big',
    run: (side) => loopback(side, 3, 16 * MIB, 16_384, 8192),
  },
  {
    id: 'throttle.host',
    title: 'a host that does not read holds up its port alone; nothing is lost when it reads again',
    field: 'virtio_serial_throttling',
    short: true,
    async run(side) {
      const [slow, other] = [await side.plug(), await side.plug()]
      const peer = await slow.connect()
      peer.pause()
      const total = 4 * MIB
      const writer = slow.test('source', total, '32k')
      writer.catch(() => {})
      await stalls(() => peer.bytesRead + peer.readableLength)
      await other.talk()
      const got = await readBytes(peer, total, BULK_MS)
      same(createHash('sha256').update(got).digest('hex'), (await writer).sha256, 'what was written and what came')
    },
  },
  {
    id: 'throttle.guest',
    title: 'a guest that does not read holds up its host alone; nothing is lost when it reads again',
    field: 'virtio_serial_throttling, rw_notconnect_guest',
    short: true,
    async run(side) {
      const [slow, other] = [await side.plug(), await side.plug()]
      const peer = await slow.connect()
      const total = 8 * MIB
      const writing = write(peer, total, 65_536)
      writing.catch(() => {})
      await stalls(() => peer.bytesWritten - peer.writableLength)
      const taken = peer.bytesWritten - peer.writableLength
      check(taken < total, 'a port that nobody has open took everything')
      await other.talk()
      slow.same(await slow.test('sink', total), total)
      await writing
      return `${Math.round(taken / 1024)} KiB were taken from a host whose guest does not read`
    },
  },
  {
    id: 'file.up',
    title: 'a file of 128 MiB from guest to host, equal checksums',
    field: 'virtio_serial_large_file_transfer, virtio_serial_file_transfer',
    async run(side) {
      const port = await side.plug()
      const peer = await port.connect()
      await side.machine.sh(`dd if=/dev/urandom of=/tmp/file bs=1M count=${FILE / MIB}`, { timeout: BULK_MS })
      const wanted = (await side.machine.sh('sha256sum /tmp/file', { timeout: BULK_MS })).split(' ')[0]
      const hash = createHash('sha256')
      let got = 0
      peer.on('data', (chunk: Buffer) => {
        got += chunk.length
        hash.update(chunk)
      })
      await side.machine.sh(`cat /tmp/file > ${port.node}; rm /tmp/file`, { timeout: BULK_MS })
      await until(() => got >= FILE, 'the whole file is here')
      same([got, hash.digest('hex')], [FILE, wanted], 'length and checksum')
    },
  },
  {
    id: 'file.down',
    title: 'a file of 128 MiB from host to guest, equal checksums',
    field: 'virtio_serial_large_file_transfer, virtio_serial_file_transfer',
    async run(side) {
      const port = await side.plug()
      const peer = await port.connect()
      const reader = side.spawn(`head -c ${FILE} ${port.node} > /tmp/file`)
      await port.untilGuestOpen(true)
      await write(peer, FILE, 1 << 18)
      same((await reader.wait(BULK_MS)).status, 0, 'the reader')
      const pattern = new Pattern()
      const hash = createHash('sha256')
      for (let i = 0; i < FILE; i += MIB) hash.update(pattern.take(MIB))
      const found = (await side.machine.sh('sha256sum /tmp/file; rm /tmp/file', { timeout: BULK_MS })).split(' ')[0]
      same(found, hash.digest('hex'), 'checksum')
    },
  },
]

/** `total` bytes from one port to `count` others through a program in the guest, all of them compared. */
async function loopback(
  side: Side,
  count: number,
  total: number,
  hostBlock: number,
  guestBlock: number,
): Promise<void> {
  const from = await side.plug()
  const to: { port: Port; peer: Socket }[] = []
  const source = await from.connect()
  for (let i = 0; i < count; i++) {
    const port = await side.plug()
    to.push({ port, peer: await port.connect() })
  }
  const nodes = to.map(({ port }) => port.node)
  const loop = await startVmtest(side.machine, 'loop', [total, guestBlock, from.node, ...nodes])
  side.own(loop.job)
  const arrived = to.map(({ peer }) => readBytes(peer, total, BULK_MS))
  for (const each of arrived) each.catch(() => {})
  await write(source, total, hostBlock)
  same((await loop.result(BULK_MS)).bytes, total, 'bytes through the guest')
  const wanted = new Pattern().take(total)
  for (const each of arrived) check(wanted.equals(await each), 'what came out is not what went in')
}

/** Until a count has stopped to grow. */
async function stalls(count: () => number): Promise<void> {
  for (let before = -1, now = count(); now !== before || now === 0; now = count()) {
    before = now
    await pause(300)
  }
}
