import fc from 'fast-check'
import { expect, test } from 'vitest'
import { GONE } from '../../src/chardev/chardev.ts'
import { openMemory, type MemoryChardev } from '../../src/chardev/memory.ts'
import { FakePort, listOf, sleep, textList } from './tools.ts'

function make(capacity?: number, connected?: boolean): { port: FakePort; chardev: MemoryChardev } {
  const port = new FakePort()
  const chardev = openMemory(port, capacity, connected)
  port.open(chardev)
  return { port, chardev }
}

test('bytes go both ways within the capacity, whoever is slow', async () => {
  const { port, chardev } = make(10)
  port.write('0123456789abcdef')
  expect(port.output.toString()).toBe('abcdef')
  expect(Buffer.from(chardev.host.receive(4)).toString()).toBe('0123')
  await sleep(0)
  expect(port.writables).toBe(1)
  expect(Buffer.from(chardev.host.receive()).toString()).toBe('456789abcd')
  expect(chardev.host.send(Buffer.from('0123456789abcdef'))).toBe(10)
  expect(port.readables).toBe(0)
  let room = 0
  chardev.host.onWritable = () => room++
  port.read(true)
  expect(port.readables).toBe(0) // never from inside setReading
  await sleep(0)
  expect(port.received).toBe('0123456789')
  expect(room).toBe(1)
})

test('paused: nothing is taken', async () => {
  const { port, chardev } = make()
  chardev.host.pause(true)
  port.write('x')
  expect(port.output.length).toBe(1)
  chardev.host.pause(false)
  await sleep(0)
  expect(Buffer.from(chardev.host.receive()).toString()).toBe('x')
})

test('coming and going', async () => {
  const { port, chardev } = make(64, false)
  expect(chardev.writev(textList('x'))).toBe(GONE)
  expect(chardev.host.send(Buffer.from('x'))).toBe(0)
  chardev.host.setConnected(true)
  chardev.host.send(Buffer.from('last'))
  chardev.host.setConnected(false)
  await sleep(0)
  expect(port.events).toEqual(['connected', 'gone'])
  const bytes = new Uint8Array(8)
  expect(chardev.readv(listOf(bytes))).toBe(4)
  expect(chardev.readv(listOf(bytes))).toBe(GONE)
  chardev.close()
  chardev.host.setConnected(true)
  await sleep(0)
  expect(port.events).toHaveLength(2)
})

test('any interleaving keeps the bytes in order', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 17 }),
      fc.array(fc.integer({ min: 1, max: 30 }), { maxLength: 60 }),
      (capacity, steps) => {
        const { chardev } = make(capacity)
        let sent = 0
        let got = 0
        for (const step of steps) {
          const bytes = Uint8Array.from({ length: step }, (_, i) => (sent + i) & 255)
          sent += chardev.writev(listOf(bytes.subarray(0, step >> 1), bytes.subarray(step >> 1)))
          for (const byte of chardev.host.receive(step >> 1)) expect(byte).toBe(got++ & 255)
        }
        for (const byte of chardev.host.receive()) expect(byte).toBe(got++ & 255)
        expect(got).toBe(sent)
      },
    ),
  )
})
