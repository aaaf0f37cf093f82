/** A character device in user space, request by request: what the kernel asks, what it is told, what reaches the port. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { CuseDevice } from '../../../src/chardev/cuse/device.ts'
import { encodeInit, speaks } from '../../../src/chardev/cuse/wire.ts'
import { FakePort, Kernel } from '../../support/cuse-kernel.ts'

const O_NONBLOCK = 0o4000
const EINTR = -4
const EAGAIN = -11
const [OPEN, RELEASE, INTERRUPT, IOCTL, POLL] = [14, 18, 36, 39, 40]

const bytes = (len: number, seed = 1): Buffer =>
  Buffer.from(Array.from({ length: len }, (_, i) => (i * 7 + seed) & 255))
const written = (len: number): Buffer => {
  const body = Buffer.alloc(8)
  body.writeUInt32LE(len)
  return body
}

describe('the messages of CUSE', () => {
  it('asks for requests as large as the kernel makes them, in a version that both speak', () => {
    const init = encodeInit({ major: 7, minor: 38 }, { name: 'vmch0', major: 240, minor: 3 })
    const words = new Uint32Array(init.buffer, 0, 18)
    expect([...words]).toEqual([7, 31, 0, 0, 131072, 131072, 240, 3, ...Array<number>(10).fill(0)])
    expect(Buffer.from(init.subarray(72)).toString('latin1')).toBe('DEVNAME=vmch0\0')
    expect(encodeInit({ major: 7, minor: 23 }, { name: 'x', major: 0, minor: 0 })[4]).toBe(23)
    expect([speaks({ major: 7, minor: 11 }), speaks({ major: 8, minor: 40 })]).toEqual([false, false])
  })
})

describe('a CUSE device', () => {
  let kernel: Kernel
  let port: FakePort
  let device: CuseDevice

  beforeEach(() => {
    kernel = new Kernel()
    port = new FakePort()
    device = port.device = new CuseDevice({ name: 'vmch0', major: 0, minor: 0, door: kernel }, port)
    kernel.replies()
    device.setHostOpen(true)
    kernel.request(OPEN, [0, 0])
    serve()
  })
  afterEach(() => {
    device.close()
    kernel.close()
  })

  /** Deals with all requests; what the kernel is told. */
  const serve = (): { unique: number; error: number; body: Buffer }[] => {
    while (device.serve(1));
    return kernel.replies()
  }

  it('takes one program at a time, and says when it comes and goes', () => {
    expect(port.events).toEqual(['open'])
    const second = kernel.request(OPEN, [0, 0])
    expect(serve()).toMatchObject([{ unique: second, error: -16 }])
    const release = kernel.request(RELEASE, [1, 0, 0, 0, 0, 0])
    expect(serve()).toMatchObject([{ unique: release, error: 0 }])
    expect(port.events).toEqual(['open', 'closed'])
  })

  it('passes writes of every size on, the first by a copy, those after it straight into the memory of the port', () => {
    let all = Buffer.alloc(0)
    for (const [i, len] of [1, 5, 4096, 65_536, 131_072, 100_001, 3].entries()) {
      const data = bytes(len, i)
      const unique = kernel.write(data)
      expect(serve()).toEqual([{ unique, error: 0, body: written(len) }])
      all = Buffer.concat([all, data])
    }
    expect(port.received.equals(all)).toBe(true)
    expect(port.fills).toBe(7)
  })

  it('lets a blocking write wait with what has no room, wherever the border falls', () => {
    kernel.write(bytes(1))
    serve()
    for (const room of [1, 32_768, 40_000, 99_999]) {
      port.received = Buffer.alloc(0)
      port.room = room
      const data = bytes(100_000, room)
      const unique = kernel.write(data)
      expect(serve()).toEqual([])
      port.makeRoom(1 << 20)
      expect(serve()).toEqual([{ unique, error: 0, body: written(100_000) }])
      expect(port.received.equals(data), `room for ${room}`).toBe(true)
    }
  })

  it('takes a part of a write with O_NONBLOCK, and none where there is no room at all', () => {
    kernel.write(bytes(1))
    serve()
    port.room = 50_000
    const first = kernel.write(bytes(100_000, 2), O_NONBLOCK)
    expect(serve()).toEqual([{ unique: first, error: 0, body: written(50_000) }])
    const second = kernel.write(bytes(10), O_NONBLOCK)
    expect(serve()).toMatchObject([{ unique: second, error: EAGAIN }])
    expect(port.received.subarray(1).equals(bytes(100_000, 2).subarray(0, 50_000))).toBe(true)
  })

  it('keeps the order of several writers', () => {
    kernel.write(Buffer.from('a'))
    serve()
    port.room = 1
    for (const text of ['bb', 'cc', 'dd']) kernel.write(Buffer.from(text))
    expect(serve()).toEqual([])
    port.makeRoom(100)
    expect(serve()).toHaveLength(3)
    expect(String(port.received)).toBe('abbccdd')
  })

  it('answers a read with what there is, also when a write came before it', () => {
    kernel.write(Buffer.from('x'))
    const read = kernel.read(100)
    expect(serve()).toHaveLength(1)
    port.give('hello')
    expect(kernel.replies()).toEqual([{ unique: read, error: 0, body: Buffer.from('hello') }])
    port.give(bytes(200_000))
    const long = kernel.read(131_072)
    const rest = kernel.read(131_072)
    expect(serve()).toEqual([
      { unique: long, error: 0, body: bytes(200_000).subarray(0, 131_072) },
      { unique: rest, error: 0, body: bytes(200_000).subarray(131_072) },
    ])
  })

  it('ends a read that is not to wait: O_NONBLOCK, the second piece of a long one, and when the host has gone', () => {
    const now = kernel.read(10, { flags: O_NONBLOCK })
    expect(serve()).toMatchObject([{ unique: now, error: EAGAIN }])
    const more = kernel.read(10, { offset: 131_072 })
    expect(serve()).toEqual([{ unique: more, error: 0, body: Buffer.alloc(0) }])
    const waiting = kernel.read(10)
    expect(serve()).toEqual([])
    device.setHostOpen(false)
    expect(kernel.replies()).toEqual([{ unique: waiting, error: 0, body: Buffer.alloc(0) }])
  })

  it('lets signals end what waits: a read, a write of which nothing and one of which a part was taken', () => {
    const read = kernel.read(10)
    kernel.request(INTERRUPT, [read, 0])
    expect(serve()).toMatchObject([{ unique: read, error: EINTR }])
    kernel.write(bytes(1))
    serve()
    port.room = 3
    const part = kernel.write(bytes(10))
    const none = kernel.write(bytes(10))
    kernel.request(INTERRUPT, [none, 0])
    kernel.request(INTERRUPT, [part, 0])
    kernel.request(INTERRUPT, [part, 0])
    expect(serve()).toEqual([
      { unique: none, error: EINTR, body: Buffer.alloc(0) },
      { unique: part, error: 0, body: written(3) },
    ])
  })

  it('says what can be done now, and tells who asked when there is more', () => {
    const poll = (): number => kernel.request(POLL, [1, 0, 77, 0, 1, 0xffff])
    const unique = poll()
    expect(serve()).toEqual([{ unique, error: 0, body: written(0x104) }])
    port.give('x')
    const told = kernel.replies()
    expect(told).toMatchObject([{ unique: 0, error: 1 }])
    expect(told[0]!.body.readUInt32LE()).toBe(77)
    poll()
    expect(serve()[0]!.body).toEqual(written(0x145))
    device.setHostOpen(false)
    kernel.replies()
    poll()
    expect(serve()[0]!.body.readUInt32LE() & 0x10).toBe(0x10)
  })

  it('tells all who wait that it is gone, also those who were not heard yet', () => {
    const heard = kernel.read(10)
    serve()
    port.room = 0
    const waiting = [kernel.read(5), kernel.write(Buffer.from('x'))]
    device.close()
    const told = kernel.replies().map(({ unique, error }) => [unique, error])
    expect(Object.fromEntries(told)).toEqual(Object.fromEntries([heard, ...waiting].map((unique) => [unique, -19])))
  })

  it('lets go of everything when the kernel ends it', () => {
    kernel.read(10)
    serve()
    kernel.close()
    expect(device.serve(1)).toBe(true)
    expect(device.serve(1)).toBe(false)
    expect(port.events).toEqual(['open', '/dev/vmch0 was aborted by the kernel', 'closed'])
    expect(device.connected).toBe(false)
  })

  it('refuses what it does not know', () => {
    const ioctl = kernel.request(IOCTL, [1, 0, 0, 0x5401, 0, 0, 0, 0])
    const other = kernel.request(20, [1, 0, 0, 0])
    expect(serve()).toMatchObject([
      { unique: ioctl, error: -25 },
      { unique: other, error: -38 },
    ])
  })
})
