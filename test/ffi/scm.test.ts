import { mkdtempSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createEventfd, drainEventfd, signalEventfd } from '../../src/ffi/eventfd.ts'
import { adoptEventfd } from '../../src/ffi/shared-eventfd.ts'
import { closeFd } from '../../src/ffi/libc.ts'
import { Receiver, SCM_MAX_FDS, sendBytes, sendWithFds } from '../../src/ffi/scm.ts'
import { connectUnix, listenUnix } from '../../src/ffi/unix-listen.ts'
import { openFds } from '../device/attach/vfio-user/rig.ts'

const EAGAIN = 11
const EPIPE = 32
const text = (s: string): Uint8Array => new TextEncoder().encode(s)

let folder: string
let before: string[]
let a: number
let b: number
beforeEach(() => {
  before = openFds()
  folder = mkdtempSync(join(tmpdir(), 'vmchannel-scm-'))
  const listener = listenUnix(join(folder, 's'))
  a = connectUnix(join(folder, 's'))
  b = listener.accept()!
  listener.close()
})
afterEach(() => {
  closeFd(a)
  closeFd(b)
  rmSync(folder, { recursive: true, force: true })
  expect(openFds()).toEqual(before)
})

test('bytes and a descriptor arrive together, the descriptor close-on-exec and usable', () => {
  const buffer = new Uint8Array(new ArrayBuffer(256))
  const receiver = new Receiver(buffer)
  expect(receiver.receive(b, 0, 256)).toBe(-EAGAIN)
  const eventfd = createEventfd()
  expect(sendWithFds(a, text('hello'), [eventfd])).toBe(5)
  expect(receiver.receive(b, 16, 100)).toBe(5)
  expect(new TextDecoder().decode(buffer.subarray(16, 21))).toBe('hello')
  expect(receiver.fds).toHaveLength(1)
  signalEventfd(receiver.fds[0]!)
  signalEventfd(receiver.fds[0]!)
  expect(drainEventfd(eventfd)).toBe(2)
  expect(drainEventfd(eventfd)).toBe(0)
  receiver.fds.forEach(closeFd)
  closeFd(eventfd)
  expect(receiver.receive(b, 0, 256)).toBe(-EAGAIN)
  expect(receiver.fds).toHaveLength(0)
})

test('a read stops after the message that carries descriptors, and takes the ones before it', () => {
  const receiver = new Receiver(new Uint8Array(new ArrayBuffer(256)))
  sendWithFds(a, text('AAAA'), [])
  sendWithFds(a, text('BBBB'), [a])
  sendWithFds(a, text('CCCC'), [])
  expect(receiver.receive(b, 0, 256)).toBe(8)
  expect(receiver.fds).toHaveLength(1)
  receiver.fds.forEach(closeFd)
  expect(receiver.receive(b, 0, 256)).toBe(4)
  expect(receiver.fds).toHaveLength(0)
})

test('takes as many descriptors as the kernel can send', () => {
  const receiver = new Receiver(new Uint8Array(new ArrayBuffer(16)))
  expect(sendWithFds(a, text('x'), new Array<number>(SCM_MAX_FDS).fill(a))).toBe(1)
  expect(receiver.receive(b, 0, 16)).toBe(1)
  expect(receiver.fds).toHaveLength(SCM_MAX_FDS)
  expect(receiver.truncated).toBe(false)
  receiver.fds.forEach(closeFd)
  expect(() => sendWithFds(a, text('x'), new Array<number>(SCM_MAX_FDS + 1).fill(a))).toThrow(RangeError)
})

test('the end and a broken pipe are results, not signals', () => {
  const receiver = new Receiver(new Uint8Array(new ArrayBuffer(16)))
  const c = connectedPair()
  closeFd(c[0])
  expect(receiver.receive(c[1], 0, 16)).toBe(0)
  expect(sendBytes(c[1], text('x'), 1)).toBe(-EPIPE)
  closeFd(c[1])
})

test('a full socket takes a part, then says so', () => {
  const big = new Uint8Array(new ArrayBuffer(4 << 20))
  const first = sendBytes(a, big, big.length)
  expect(first).toBeGreaterThan(0)
  expect(first).toBeLessThan(big.length)
  expect(sendBytes(a, big, big.length)).toBe(-EAGAIN)
})

test('never receives outside its buffer', () => {
  const receiver = new Receiver(new Uint8Array(new ArrayBuffer(16)))
  expect(() => receiver.receive(b, 0, 17)).toThrow(RangeError)
  expect(() => receiver.receive(b, 10, 7)).toThrow(RangeError)
  expect(() => receiver.receive(b, -1, 4)).toThrow(RangeError)
})

test('only an eventfd is adopted as one', () => {
  const eventfd = createEventfd()
  expect(adoptEventfd(eventfd)).toBe(true)
  expect(adoptEventfd(a)).toBe(false)
  expect(adoptEventfd(99_999)).toBe(false)
  closeFd(eventfd)
})

test('a full eventfd does not block a signal', () => {
  const eventfd = createEventfd()
  const full = Buffer.alloc(8)
  full.writeBigUInt64LE(0xffff_ffff_ffff_fffen)
  writeSync(eventfd, full)
  signalEventfd(eventfd) // would wait for ever
  expect(drainEventfd(eventfd)).toBe(2 ** 64)
  expect(drainEventfd(eventfd)).toBe(0)
  closeFd(eventfd)
})

function connectedPair(): [number, number] {
  const listener = listenUnix(join(folder, 'pair'))
  const client = connectUnix(join(folder, 'pair'))
  const server = listener.accept()!
  listener.close()
  return [client, server]
}
