/** Debian's qemu-guest-agent when it comes late, is started again and again, answers too much, or hangs in a hook. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { agentGuest } from '../../lab/agent-guest.ts'
import { ensureKernel } from '../../lab/fetch/kernel.ts'
import { ensureQemu } from '../../lab/fetch/qemu.ts'
import { Machine } from '../../lab/machine.ts'
import { connectAgent, createDevice, VmchannelError, type Device, type GuestAgent } from '../../src/index.ts'
import { Bench, until } from '../cli/run.ts'

const PORT = 'org.qemu.guest_agent.0'
const MOST = 120_000 // the machine may be busy
const RESTARTS = 5
/** Of a ping while the agent may be away. */
const PING_MS = 3000
const bench = new Bench()
let device: Device
let machine: Machine

const failure = (code: string, text: RegExp) => expect.objectContaining({ code, message: expect.stringMatching(text) })
const cli = (words: string[]) => bench.run(['agent', words[0]!, '--control', device.controlSocket, ...words.slice(1)])
const connected = (timeout = MOST): Promise<GuestAgent> => connectAgent({ control: device.controlSocket, timeout })

async function port() {
  return (await device.stats()).find(({ name }) => name === PORT)!
}

const isFree = async (): Promise<boolean> => !(await port()).hostConnected

/** Process id of the agent in the guest; empty where there is none. */
const pid = async (): Promise<string> => (await machine.run('pidof qemu-ga')).output.trim()

/** A new agent, with these options. */
async function restart(options = ''): Promise<void> {
  const before = await pid()
  // As service managers do: SIGTERM was seen not to end a qemu-ga that is busy.
  const end = `kill ${before}; for i in 1 2 3 4 5; do sleep 0.2; kill -0 ${before} || exit 0; done; kill -9 ${before}; true`
  await machine.sh(`echo -n "${options}" >/tmp/agent-options; (${end}) 2>/dev/null`)
  await until('another agent', async () => !['', before].includes(await pid()), MOST)
}

beforeAll(async () => {
  device = await createDevice({ log: 'ignore' })
  await device.addPort({ name: PORT, chardev: 'attach' })
  const [qemu, kernel, guest] = [await ensureQemu(), await ensureKernel('6.1'), await agentGuest()]
  const args = [...device.memoryArgs('512M'), ...device.qemuArgs]
  machine = await Machine.boot({ qemu: qemu.path, kernel, guest, args })
  await until('the agent', pid, MOST)
}, MOST)
afterAll(async () => {
  await machine?.close()
  await device?.close()
  await bench.close()
})

it(
  'a ping that begins before the agent has the port open, and whose request somebody else has read',
  async () => {
    // An option that there is none of: it ends at once, each time that it is started.
    await machine.sh('echo -n --no-such-option >/tmp/agent-options; kill $(pidof qemu-ga)')
    await until('nobody has the port open', async () => !(await port()).guestOpen, MOST)
    // As firmware and boot loaders do: it reads, and answers nothing.
    const reader = machine.spawn(
      'n=$(basename $(dirname $(cat /tmp/agent-port))); (while :; do cat; sleep 0.1; done) </dev/$n >/dev/null',
    )
    await until('it reads', async () => (await port()).guestOpen, MOST)
    const before = (await port()).counters.hostToGuestBytes
    const ping = cli(['ping', '--timeout', '100'])
    const eaten = async (): Promise<boolean> => {
      const { counters } = await port()
      return counters.hostToGuestBytes > before && counters.held === 0
    }
    await until('the request has been read', eaten, MOST)
    reader.kill(9)
    await until('nobody has the port open', async () => !(await port()).guestOpen, MOST)
    await machine.sh('rm /tmp/agent-options')
    expect(await ping).toMatchObject({ status: 0, stderr: expect.stringMatching(/answers after/) })
  },
  2 * MOST,
)

describe(`started again ${RESTARTS} times while a loop pings`, () => {
  it.each(['one connection', 'a connection for each ping'])(
    '%s: an answer or a clear error in time, and an answer after each start',
    async (how) => {
      const kept = how === 'one connection' ? await connected() : undefined
      const ping = async (timeout: number): Promise<void> => {
        const agent = kept ?? (await connected(timeout))
        try {
          await agent.ping({ timeout })
        } finally {
          if (!kept) agent.close()
        }
      }
      const free = async (): Promise<void> => {
        if (!kept) await until('the port is free', isFree, MOST)
      }
      const outcomes: unknown[] = []
      try {
        for (let n = 0; n < RESTARTS; n++) {
          const from = outcomes.length
          const over = new AbortController()
          const loop = (async () => {
            while (!over.signal.aborted) {
              outcomes.push(
                await ping(PING_MS).then(
                  () => 'answer',
                  (error: unknown) => error,
                ),
              )
              await free()
            }
          })()
          try {
            await until('a ping', () => outcomes.length > from, MOST)
            await restart()
          } finally {
            over.abort()
            await loop
          }
          await ping(MOST)
          await free()
        }
      } finally {
        kept?.close()
      }
      expect(outcomes.filter((one) => one === 'answer').length).toBeGreaterThanOrEqual(RESTARTS)
      for (const one of outcomes.filter((it) => it !== 'answer')) {
        expect(one).toBeInstanceOf(VmchannelError)
        expect((one as Error).message).toMatch(
          /guest-ping: not within 3000 ms|no agent answers within 3000 ms|nothing in the guest has .* open/,
        )
      }
      await until('the port is free', isFree, MOST)
    },
    4 * MOST,
  )
})

describe('sizes and bytes', () => {
  it('output that is no UTF-8 is the same here', async () => {
    const bytes = Buffer.from([0xff, 0xfe, 0x00, 0x80])
    const words = ['exec', 'printf', String.raw`\377\376\000\200`]
    const agent = await connected()
    try {
      expect((await agent.exec(words[1]!, [words[2]!])).stdout).toEqual(bytes)
    } finally {
      agent.close()
    }
    await until('the port is free', isFree)
    expect(JSON.parse((await cli([words[0]!, '--json', ...words.slice(1)])).stdout)).toMatchObject({
      stdoutBase64: bytes.toString('base64'),
    })
    const child = bench.start(['agent', 'exec', '--control', device.controlSocket, ...words.slice(1)])
    child.stdin!.end()
    const chunks: Buffer[] = []
    for await (const chunk of child.stdout!) chunks.push(Buffer.from(chunk as Uint8Array))
    expect(Buffer.concat(chunks)).toEqual(bytes)
  })

  it(
    'output of 20 MiB: 16 of them, and it says that there was more',
    async () => {
      const ran = await cli(['exec', 'head', '-c', String(20 << 20), '/dev/zero'])
      expect(ran).toMatchObject({
        status: 0,
        stderr: expect.stringMatching(/longer than the agent keeps: the rest is lost/),
      })
      expect(ran.stdout.length).toBe(16 << 20)
    },
    MOST,
  )

  it(
    'guest-file-read of more than the agent gives, and of more than we take',
    async () => {
      let agent = await connected()
      try {
        const open = () => agent.call('guest-file-open', { path: '/dev/zero', mode: 'r' })
        const read = async (count: number) =>
          agent.call('guest-file-read', { handle: await open(), count }, { timeout: MOST })
        await expect(read(60_000_000)).rejects.toEqual(
          failure('ERR_VMCHANNEL_AGENT', /guest-file-read: .*60000000.*count/),
        )
        await agent.ping()
        const tooMuch = expect.objectContaining({
          ...{ code: 'ERR_VMCHANNEL_AGENT', message: expect.stringMatching(/a line of more than \d+ bytes/) },
          hint: expect.stringMatching(/ask for less/),
        })
        await expect(read(50_000_000)).rejects.toEqual(tooMuch)
        expect(agent.closed).toBe(true)
        // What is still on its way belongs to nobody.
        agent = await connected()
        await agent.ping()
      } finally {
        agent.close()
      }
    },
    2 * MOST,
  )
})

it(
  'a freeze whose hook hangs for longer than we wait: thawing is tried until the agent answers',
  async () => {
    const hook = `#!/bin/sh\\necho $1 >>/tmp/hooked\\n[ "$1" != freeze ] || sleep 15\\n`
    await machine.sh(`printf '${hook}' >/tmp/hook; chmod +x /tmp/hook`)
    await until('the port is free', isFree)
    await restart('-F/tmp/hook')
    const agent = await connected()
    try {
      await expect(agent.fsFreeze(undefined, { timeout: 2000 })).rejects.toEqual(
        failure('ERR_VMCHANNEL_TIMEOUT', /guest-fsfreeze-freeze: not within 2000 ms/),
      )
      expect(await agent.fsStatus()).toBe('thawed')
      expect(await machine.sh('cat /tmp/hooked')).toBe('freeze\nthaw')
      expect(await machine.sh('echo x >/mnt/written; cat /mnt/written')).toBe('x')
    } finally {
      agent.close()
    }
  },
  2 * MOST,
)
