/**
 * A session of a device with as many ports as there can be: each end sets up 1024 queues. Counted is how many in one
 * turn of the event loop, which has other VMs to serve.
 */
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { PciTransport } from '../../src/driver/pci.ts'
import { encodeHello, NONCE_LEN, VERSION } from '../../src/usernet/frame.ts'
import { everyTurn, LinkRig, program, until } from './rig.ts'

const MAX_PORTS = 511
const QUEUES = 2 * (MAX_PORTS + 1)
/** Eight ports, and the control queues. */
const TURN_QUEUES = 18

let rig: LinkRig
let turn = 0
let worst = 0
let all = 0
let stopCounting = (): void => {}

beforeEach(() => {
  rig = new LinkRig(MAX_PORTS)
  turn = worst = all = 0
  // oxlint-disable-next-line unbound-method -- called with a transport
  const enable = PciTransport.prototype.enableQueue
  vi.spyOn(PciTransport.prototype, 'enableQueue').mockImplementation(function count(this: PciTransport, ...args) {
    all++
    worst = Math.max(worst, ++turn)
    enable.apply(this, args)
  })
  stopCounting = everyTurn(() => (turn = 0))
})
afterEach(() => {
  stopCounting()
  vi.restoreAllMocks()
  rig.close()
})

it('a HELLO: the host end sets up so many queues in one turn', async () => {
  const socket = await rig.socket()
  socket.resume()
  socket.write(encodeHello({ version: VERSION, window: 65_536, nonce: Buffer.alloc(NONCE_LEN, 1) }))
  await until(() => all === QUEUES, 'all queues are set up')
  expect(worst).toBeLessThanOrEqual(TURN_QUEUES)
})

it('a WELCOME: so does the guest end, and the last port carries bytes', async () => {
  const { chardev } = await rig.host({ id: MAX_PORTS - 1, name: 'last' })
  const guest = await rig.guest()
  const { chardev: own } = await program(guest, MAX_PORTS - 1)
  expect(guest.maxPorts).toBe(MAX_PORTS)
  own.send(Uint8Array.of(1, 2, 3))
  await until(() => chardev.received.length > 0, 'the bytes')
  expect(all).toBe(2 * QUEUES)
  // Both ends are in this process.
  expect(worst).toBeLessThanOrEqual(2 * TURN_QUEUES)
})

it('a connection that goes in the middle of that: the next one begins anew', async () => {
  await rig.host({ id: 3, name: 'three' })
  const first = await rig.socket()
  first.resume()
  first.write(encodeHello({ version: VERSION, window: 65_536, nonce: Buffer.alloc(NONCE_LEN, 1) }))
  await until(() => all > 0, 'it has begun')
  first.destroy()
  await until(() => !rig.server.attached, 'it has gone')
  expect(all).toBeLessThan(QUEUES)
  const guest = await rig.guest()
  await program(guest, 3)
  expect(rig.log.filter((line) => line.startsWith('error'))).toEqual([])
})
