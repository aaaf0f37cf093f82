/** A session of a guest with a device that is not one: how it ends, what is said of it, and with which exit status. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { LoopbackMachine } from '../../src/device/attach/loopback.ts'
import { VirtioPci } from '../../src/device/pci/virtio-pci.ts'
import type { Detached } from '../../src/driver/attach/attached.ts'
import { attachLoopback } from '../../src/driver/attach/loopback.ts'
import { EXIT_CODES, VmchannelError } from '../../src/errors.ts'
import { ResetLimit } from '../../src/guest/reset-limit.ts'
import { Session } from '../../src/guest/session.ts'
import { GuestMemory } from '../../src/mem/guest-memory.ts'
import { FakeConsole } from '../support/fake-console.ts'

let folder: string
beforeEach(() => void (folder = mkdtempSync(join(tmpdir(), 'vmch-session-'))))
afterEach(() => {
  vi.restoreAllMocks()
  rmSync(folder, { recursive: true, force: true })
})

/** No driver of the kernel had it. */
const NONE = Symbol('none')

function begin(detached: Detached, had: string | typeof NONE = 'virtio-pci') {
  const fake = new FakeConsole()
  const memory = new GuestMemory()
  const machine = new LoopbackMachine(new VirtioPci(fake, memory), memory, { schedule: (deliver) => deliver() })
  const { transport, pool } = attachLoopback(machine)
  const log: string[] = []
  const note = (level: string) => (message: string) => void log.push(`${level}: ${message}`)
  const session = new Session(
    { bdf: '0000:00:03.0', path: folder, vendor: 0x1af4, device: 0x1043 },
    had === NONE ? undefined : had,
    () => ({ transport, pool, features: 0n, label: 'fake', wakers: [], interrupts: 0, detach: () => detached }),
    { handle: () => {} },
    { error: note('error'), warn: note('warn'), info: note('info'), debug: () => {} },
  )
  const how = session.ended.then(
    () => 'over',
    (error: unknown) => error,
  )
  return { fake, session, log, how }
}

describe('giving the device back', () => {
  it('that went well is said', async () => {
    const { session, log, how } = begin({ driver: 'virtio-pci', error: undefined })
    await session.stop()
    expect(await how).toBe('over')
    expect(log.at(-1)).toBe('info: 0000:00:03.0 is given back to virtio-pci')
  })

  const locked = new VmchannelError('ERR_VMCHANNEL_PLATFORM', 'drivers_probe cannot be written: EPERM')
  it.each([
    ['nobody took it', { driver: undefined, error: undefined }, /no driver has it$/m],
    [
      'a step failed',
      { driver: undefined, error: locked },
      /no driver has it: drivers_probe cannot be written: EPERM$/m,
    ],
    ['it is with UIO still', { driver: 'uio_pci_generic', error: locked }, /uio_pci_generic has it: drivers_probe/],
  ] as const)('that failed is said, and is no success: %s', async (_, detached, text) => {
    const { session, log, how } = begin(detached)
    await session.stop()
    const error = (await how) as VmchannelError
    expect(error).toMatchObject({ code: 'ERR_VMCHANNEL_PLATFORM', hint: expect.stringContaining('driver_override') })
    expect(EXIT_CODES[error.code]).toBe(9)
    expect(log.at(-1)).toMatch(text)
    expect(log.at(-1)).toMatch(/^error: 0000:00:03.0 could not be given back to virtio-pci/)
  })

  it('a device that was unplugged, or had no driver before, is no failure', async () => {
    const none = begin({ driver: undefined, error: undefined }, NONE)
    await none.session.stop()
    expect(await none.how).toBe('over')
    rmSync(folder, { recursive: true })
    const gone = begin({ driver: undefined, error: locked })
    await gone.session.stop()
    expect(await gone.how).toBe('over')
  })
})

describe('a device that asks for resets', () => {
  const ask = async (fake: FakeConsole): Promise<void> => {
    fake.host.needsReset()
    await turn()
    await turn()
  }

  it('gets them however long it lives, as long as they are rare', async () => {
    let now = 0
    vi.spyOn(performance, 'now').mockImplementation(() => now)
    const { fake, session, how } = begin({ driver: 'virtio-pci', error: undefined })
    for (let i = 0; i < 50; i++) {
      await ask(fake)
      expect(session.driver.running).toBe(true)
      now += 15_000
    }
    await session.stop()
    expect(await how).toBe('over')
  })

  it('and is given up where it asks again and again', async () => {
    const { fake, session, how, log } = begin({ driver: 'virtio-pci', error: undefined })
    for (let i = 0; i < 6; i++) await ask(fake)
    expect(await how).toMatchObject({ message: expect.stringMatching(/asked for a reset 6 times within 60 s/) })
    expect(session.driver.running).toBe(false)
    expect(log).toContain('info: 0000:00:03.0 is given back to virtio-pci')
  })

  it('one reset for any number of interrupts that tell of it', async () => {
    const { fake, session, how } = begin({ driver: 'virtio-pci', error: undefined })
    for (let i = 0; i < 20; i++) fake.host.needsReset()
    for (let i = 0; i < 20; i++) fake.host.configChanged()
    await turn()
    await turn()
    expect(session.driver.running).toBe(true)
    await session.stop()
    expect(await how).toBe('over')
  })

  it('counts within a minute', () => {
    const limit = new ResetLimit()
    for (let i = 0; i < 5; i++) expect(limit.tooMany(i)).toBeUndefined()
    expect(limit.tooMany(60_001)).toBeUndefined()
    expect(limit.tooMany(60_002)).toBeUndefined()
    expect(limit.tooMany(60_003)).toBeUndefined()
    expect(limit.tooMany(60_003)).toBeUndefined()
    expect(limit.tooMany(60_003)).toMatch(/6 times within 60 s/)
  })
})
