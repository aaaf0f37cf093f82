/** A device process has as many descriptors after a thousand ports, peers and clients as before. Needs the build. */
import { once } from 'node:events'
import { createConnection } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { descriptors, grown } from '../../lab/descriptors.ts'
import { until } from '../../lab/wait.ts'
import { ControlClient } from '../../src/client/control-client.ts'
import { FakeVmm } from '../support/fake-vmm.ts'
import { TestDevice } from './device.ts'

const CYCLES = 1000
let device: TestDevice

beforeAll(async () => {
  device = await TestDevice.start({ vms: [{ ports: [] }], exitWith: 'never', logLevel: 'error' })
})
afterAll(() => device.close())

it(`${CYCLES} times: a port is added, a peer comes and goes, the port is removed; VMMs and clients in between`, async () => {
  const client = await device.client()
  const path = join(device.temp.path, 'p.sock')
  const cycle = async (i: number): Promise<void> => {
    const spec = i % 10 === 0 ? 'pty,name=p' : `unix:${path},server=on,name=p`
    await client.request('port.add', { spec })
    if (i % 10 !== 0) {
      const peer = createConnection(path)
      await once(peer, 'connect')
      peer.write('x')
      // Now and then the port goes first.
      if (i % 3 !== 0) peer.destroy()
      else
        peer
          .on('error', () => {})
          .on('close', () => peer.destroy())
          .resume()
    }
    await client.request('port.remove', { port: 'p' })
    if (i % 20 === 0) (await FakeVmm.attach(device.started.vms[0]!.socket)).close()
    if (i % 20 === 5) (await ControlClient.connect(device.control)).close()
    if (i % 50 === 7) {
      const { vm } = await client.request('vm.add', { ports: ['null,name=a'] })
      await client.request('vm.remove', { vm })
    }
  }
  // The first of each kind may bring what stays: a table, a pool.
  for (let i = 0; i < 60; i++) await cycle(i)
  const before = descriptors(device.pid)
  for (let i = 0; i < CYCLES; i++) await cycle(i)
  const gone = (): boolean => grown(before, descriptors(device.pid)).length === 0
  await until(gone, 'all descriptors are closed', 10_000).catch(() => {})
  expect(grown(before, descriptors(device.pid))).toEqual([])
}, 120_000)
