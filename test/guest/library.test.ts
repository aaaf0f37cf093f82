/** The library in a guest: ports as streams, without character devices, on our device over UIO. Needs the build. */
import { createHash } from 'node:crypto'
import type { Socket } from 'node:net'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Job } from '../../lab/agent.ts'
import { type CodeDisk, GUEST_HOME } from '../../lab/guest-image.ts'
import { Pattern } from '../../lab/pattern.ts'
import type { Rig } from '../machine/rig.ts'
import { readBytes, startPair, until } from './rig.ts'

const MIB = 1 << 20
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

describe("'vmchannel/guest' in a guest", () => {
  let rig: Rig
  let disk: CodeDisk
  let job: Job
  let control: Socket
  const waiting = new Map<number, (answer: { result?: unknown; error?: string }) => void>()
  let last = 0

  /** Sends a command to the program in the guest. */
  const ask = async (command: string, more: Record<string, unknown> = {}): Promise<unknown> => {
    const id = ++last
    const answer = new Promise<{ result?: unknown; error?: string }>((resolve) => waiting.set(id, resolve))
    control.write(`${JSON.stringify({ id, command, ...more })}\n`)
    const { result, error } = await answer
    if (error !== undefined) throw new Error(error)
    return result
  }

  beforeAll(async () => {
    ;({ rig, disk } = await startPair({
      ports: ['unix,name=control', 'unix,name=org.example.hello', 'unix,name=data', 'unix,console=on,name=tty'],
    }))
  })
  afterAll(async () => {
    await rig?.close()
    disk?.remove()
  })

  it('the example answers, and gives the device back', async () => {
    const example = rig.machine.spawn(`exec node ${GUEST_HOME}/examples/in-guest.mjs`)
    const peer = await rig.connect('org.example.hello')
    const lines = createInterface({ input: peer })[Symbol.asyncIterator]()
    expect((await lines.next()).value).toBe('hello from the guest')
    peer.write('one\n')
    expect((await lines.next()).value).toBe('you said: one')
    peer.write('goodbye\n')
    expect((await lines.next()).value).toBe('you said: goodbye')
    const { status, output } = await example.wait()
    expect(output.split('\n').toSorted()).toEqual([
      '',
      'there is a port control',
      'there is a port data',
      'there is a port org.example.hello',
      'there is a port tty',
    ])
    expect(status).toBe(0)
    // The kernel's driver has it again.
    await rig.node('data')
    await rig.hangUp()
  })

  it('knows the ports, consoles among them', async () => {
    job = rig.machine.spawn(`exec node ${GUEST_HOME}/test/guest/programs/library.mjs`)
    control = await rig.connect('control')
    createInterface({ input: control }).on('line', (line) => {
      const answer = JSON.parse(line) as { id: number; result?: unknown }
      waiting.get(answer.id)?.(answer)
      waiting.delete(answer.id)
    })
    await job.waitForOutput(/ready/)
    expect(await ask('ports')).toEqual([
      // For a guest a console's host is always there.
      { id: 0, name: 'tty', isConsole: true, hostOpen: true },
      { id: 1, name: 'control', isConsole: false, hostOpen: true },
      { id: 2, name: 'org.example.hello', isConsole: false, hostOpen: false },
      { id: 3, name: 'data', isConsole: false, hostOpen: false },
    ])
  })

  it('echoes 4 MiB, both directions at once; the host sees it open and close', async () => {
    const echo = ask('echo', { port: 'data' })
    await until(() => rig.port('data').guestOpen, 'the guest has opened')
    const peer = await rig.connect('data')
    const bytes = new Pattern(7).take(4 * MIB)
    const back = readBytes(peer, bytes.length, 60_000)
    peer.write(bytes)
    expect(sha256(await back)).toBe(sha256(bytes))
    peer.destroy()
    expect(await echo).toBe('over')
    await until(() => !rig.port('data').guestOpen, 'the guest has closed')
    expect(await ask('events')).toEqual(expect.arrayContaining(['host-open data', 'host-close data']))
  })

  it('holds the program up while the host does not read', async () => {
    const peer = await rig.connect('data')
    peer.pause()
    const sending = ask('send', { port: 'data', total: 24 * MIB, size: 100_000 })
    await until(() => rig.port('data').guestOpen, 'the guest has opened')
    const { counters } = rig.port('data')
    await until(() => counters.guestToHostBytes > 0, 'some bytes have come')
    await new Promise((resolve) => setTimeout(resolve, 500))
    expect(counters.guestToHostBytes).toBeLessThan(16 * MIB)
    const got = await readBytes(peer, 24 * MIB, 60_000)
    const { sha256: sent, waits, most } = (await sending) as { sha256: string; waits: number; most: number }
    expect(sha256(got)).toBe(sent)
    expect(waits).toBeGreaterThan(0)
    expect(most).toBeLessThan(MIB)
    peer.destroy()
  })

  it('holds the host up while the program does not read', async () => {
    const peer = await rig.connect('data')
    const bytes = new Pattern(3).take(16 * MIB)
    peer.write(bytes)
    const { kept, mark } = (await ask('hold', { port: 'data' })) as { kept: number; mark: number }
    expect(kept).toBeGreaterThan(0)
    expect(kept).toBeLessThanOrEqual(2 * mark)
    expect(peer.writableLength).toBeGreaterThan(8 * MIB)
    expect(await ask('resume', { total: bytes.length })).toEqual({ got: bytes.length, sha256: sha256(bytes) })
    peer.destroy()
    await until(() => !rig.port('data').guestOpen, 'the guest has closed')
  })

  it('refuses a second opener, and waits end by time and by signal', async () => {
    const codes = ['IN_USE', 'TIMEOUT', 'ABORTED', 'TIMEOUT'].map((code) => `ERR_VMCHANNEL_${code}`)
    expect(await ask('refuse', { port: 'org.example.hello' })).toEqual(codes)
  })

  it('waits for a port that comes later; one that is removed has its bytes read, then ends', async () => {
    const watched = ask('watch', { port: 'late' })
    await rig.addPort('unix,name=late')
    await until(() => rig.port('late').guestOpen, 'the guest has opened')
    const peer = await rig.connect('late')
    peer.write('first words')
    const { counters } = rig.port('late')
    await until(() => counters.hostToGuestBytes === 11, 'the guest has them')
    rig.device.removePort(rig.port('late').id)
    expect(await watched).toEqual(['first words', 'end', 'removed true'])
    expect(await ask('events')).toEqual(expect.arrayContaining(['port-added late', 'port-removed late']))
  })

  it('gives the device back when its signal fires', async () => {
    expect(await ask('abort')).toBe('yes')
    const { status, output } = await job.wait()
    expect(output).toMatch(/closed: as wanted/)
    expect(status, output).toBe(0)
    const peer = await rig.connect('data')
    const got = readBytes(peer, 7)
    await rig.machine.sh(`echo kernel > ${await rig.node('data')}`)
    expect(String(await got)).toBe('kernel\n')
  })
})
