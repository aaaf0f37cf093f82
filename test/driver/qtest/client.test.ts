/** The qtest protocol against a peer that says what it likes. What waits is asked only once its answer is there. */

import { createServer, type Server, type Socket } from 'node:net'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeEach, expect, it } from 'vitest'
import { QtestClient, type QtestIrq } from '../../../src/driver/attach/qtest/client.ts'
import { connectUnix } from '../../../src/ffi/unix-listen.ts'
import { until } from '../../machine/rig.ts'

const folder = mkdtempSync(join(tmpdir(), 'vmchannel-qtest-'))
let server: Server
let peer: Socket
let client: QtestClient
let heard = ''

beforeEach(async () => {
  const path = join(folder, 'sock')
  server = createServer()
  await new Promise<void>((resolve) => server.listen(path, resolve))
  const connected = new Promise<Socket>((resolve) => server.once('connection', resolve))
  client = new QtestClient(connectUnix(path))
  peer = await connected
  heard = ''
  peer.on('data', (chunk) => (heard += String(chunk)))
  peer.on('error', () => {})
})

afterEach(() => {
  client.close()
  peer.destroy()
  server.close()
  rmSync(join(folder, 'sock'), { force: true })
})

afterAll(() => rmSync(folder, { recursive: true }))

/** The peer's words lie in the socket when the client asks; the event loop has not seen them. */
function says(text: string): void {
  peer.write(text)
}

it('reads and writes of every width, in the words of the protocol', async () => {
  client.write(0xe000_0000, 1, 0xff)
  client.write(0xe000_0002, 2, 0xffff)
  client.write(0xe000_0004, 4, 0xffff_ffff)
  client.out(0xcf8, 4, 0x8000_0000)
  says('OK\nOK\nOK\nOK\nOK 0x00000000000000ff\n')
  expect(client.read(0xe000_0000, 1)).toBe(0xff)
  says('OK 0x12345678\n')
  expect(client.in(0xcfc, 4)).toBe(0x1234_5678)
  await until(() => heard.endsWith('inl 0xcfc\n'), 'all is there')
  expect(heard.trim().split('\n')).toEqual([
    ...['writeb 0xe0000000 0xff', 'writew 0xe0000002 0xffff', 'writel 0xe0000004 0xffffffff'],
    ...['outl 0xcf8 0x80000000', 'readb 0xe0000000', 'inl 0xcfc'],
  ])
})

it('interrupts between answers are told from the event loop, in order', async () => {
  const irqs: QtestIrq[] = []
  client.onIrq = (irq) => irqs.push(irq)
  client.write(0, 1, 0)
  says('IRQ raise 22\nOK\nIRQ lower 22\nIRQ raise 3\nOK 0x1\n')
  expect(client.read(0, 1)).toBe(1)
  expect(irqs).toEqual([])
  await turn()
  says('IRQ raise 4\n')
  await until(() => irqs.length === 4, 'all four')
  expect(irqs.map(({ line, level }) => (level ? line : -line))).toEqual([22, -22, 3, 4])
})

it('a posted write that QEMU refuses is told by the next command, once', () => {
  client.write(0, 4, 0)
  says('FAIL Unknown command\nOK 0x5\n')
  expect(() => client.read(0, 4)).toThrow('qtest: FAIL Unknown command')
  says('OK 0x6\n')
  expect(client.read(0, 4)).toBe(6)
})

it('an answer without a number is refused', () => {
  says('OK soon\n')
  expect(() => client.read(0, 4)).toThrow('answer "soon" to "readl 0x0" is not a number')
})

it('a peer that goes: reads give ones, writes go nowhere, and it is told once', async () => {
  const reasons: string[] = []
  client.onClose = (reason) => reasons.push(reason.message)
  peer.destroy()
  expect([client.read(0, 1), client.read(0, 2), client.read(0, 4)]).toEqual([0xff, 0xffff, 0xffff_ffff])
  client.write(0, 4, 1)
  expect(() => client.command('endianness')).toThrow('QEMU is gone')
  await expect(client.idle()).rejects.toThrow('QEMU is gone')
  await sleep(20)
  expect(reasons).toEqual(['qtest: QEMU is gone'])
})

it('a line without an end is not kept', async () => {
  const closed = new Promise<Error>((resolve) => (client.onClose = resolve))
  says('x'.repeat(8192))
  expect((await closed).message).toContain('a line without an end')
})

it('posted writes that QEMU has not answered are few: the next one waits, and the socket is never full', async () => {
  for (let i = 0; i < 64; i++) client.write(i, 1, 0)
  says('OK\n'.repeat(64))
  for (let i = 64; i < 128; i++) client.write(i, 1, 0)
  says('OK\n'.repeat(64))
  await client.idle()
  expect(client.commands).toBe(128)
})
