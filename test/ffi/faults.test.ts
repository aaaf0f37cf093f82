/**
 * Every call that asks the system for something fails once, in turn: descriptors, memory, sockets. What was to be made
 * is made or refused with an error that names the call, and no descriptor is left behind.
 */
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { openChardev } from '../../src/chardev/registry.ts'
import type { ChardevSpec } from '../../src/chardev/spec.ts'
import { listenVfioUser } from '../../src/device/attach/vfio-user/server.ts'
import { VmchannelError } from '../../src/errors.ts'
import { createEventfd } from '../../src/ffi/eventfd.ts'
import { closeFd } from '../../src/ffi/libc.ts'
import { createMemfd, SharedMapping } from '../../src/ffi/mmap.ts'
import { makePipe } from '../../src/ffi/pipe.ts'
import { signalShared } from '../../src/ffi/shared-eventfd.ts'
import { packetPair } from '../../src/ffi/socket-calls.ts'
import { SILENT } from '../../src/log.ts'
import { GuestMemory } from '../../src/mem/guest-memory.ts'
import { FakePort, openFds, sleep, until } from '../chardev/tools.ts'
import { ToyFunction } from '../device/attach/vfio-user/toy-function.ts'
import { FAULTS } from '../support/faults.ts'

vi.mock('../../src/ffi/libc.ts', async (original) => {
  const actual = await original<typeof import('../../src/ffi/libc.ts')>()
  const { FAULTS: faults } = await import('../support/faults.ts')
  return { ...actual, declare: (signature: string) => faults.wrap(signature, actual.declare(signature)) }
})

let dir: string
beforeEach(() => (dir = mkdtempSync('/tmp/faults-')))
afterEach(() => {
  FAULTS.off()
  rmSync(dir, { recursive: true, force: true })
})

async function openAndClose(spec: ChardevSpec): Promise<void> {
  const port = new FakePort()
  const chardev = await openChardev(spec, port)
  chardev.close()
}

/** What is made, used a little, and given back. */
const LIVES: readonly [string, () => Promise<void> | void][] = [
  ['unix', () => openAndClose({ kind: 'unix', path: join(dir, 'port') })],
  ['tcp', () => openAndClose({ kind: 'tcp', port: 0 })],
  ['pipe pair', () => Object.values(makePipe()).forEach(closeFd)],
  ['packet pair', () => Object.values(packetPair()).forEach(closeFd)],
  [
    'vfio-user server',
    async () => {
      const path = join(dir, 'vmm')
      const server = await listenVfioUser({ path, memory: new GuestMemory(), function: new ToyFunction(), log: SILENT })
      server.close()
    },
  ],
  [
    'eventfd',
    () => {
      const fd = createEventfd()
      signalShared(fd)
      closeFd(fd)
    },
  ],
  [
    'memory',
    () => {
      const fd = createMemfd('ram', true)
      try {
        new SharedMapping(fd, 4096, true).drop()
      } finally {
        closeFd(fd)
      }
    },
  ],
]

describe('each call fails once', () => {
  test.each(LIVES)('%s', async (_, live) => {
    // What is made once for the whole process is made before.
    await live()
    FAULTS.lasting(0, 0)
    await live()
    const { calls } = FAULTS
    expect(calls).toBeGreaterThan(0)
    const before = openFds()
    for (let seed = 0; seed < 4; seed++)
      for (let at = 1; at <= calls; at++) {
        FAULTS.lasting(at, seed)
        const error: unknown = await Promise.resolve()
          .then(live)
          .catch((found: unknown) => found)
        FAULTS.off()
        const [fault] = FAULTS.done
        expect(fault).toBeDefined()
        if (error !== undefined) {
          expect(error).toBeInstanceOf(VmchannelError)
          const { message } = error as VmchannelError
          expect([fault, message.includes(fault!.call) || message.includes(fault!.error)]).toEqual([fault, true])
        }
        expect(openFds()).toEqual(before)
        expect(existsSync(join(dir, 'port')) || existsSync(join(dir, 'vmm'))).toBe(false)
      }
  })
})

test('a listener that cannot accept waits a second and takes the peer then; one warning', async () => {
  const port = new FakePort()
  const path = join(dir, 'port')
  port.open(await openChardev({ kind: 'unix', path }, port))
  FAULTS.lasting(1, 1)
  const peer = connect(path)
  await until(() => port.warnings.length === 1, 'the warning')
  FAULTS.off()
  expect(port.warnings[0]).toContain('accept4')
  expect(port.events).toEqual([])
  await until(() => port.events.length === 1, 'the peer')
  expect(port.events).toEqual(['connected'])
  peer.destroy()
  port.chardev!.close()
  await sleep(10)
})
