/** Debian's qemu-guest-agent in a guest on our device: the library's client and `vmchannel agent`. */
import { createHash, randomBytes } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { agentGuest } from '../../lab/agent-guest.ts'
import { ensureKernel } from '../../lab/fetch/kernel.ts'
import { ensureQemu } from '../../lab/fetch/qemu.ts'
import { Machine } from '../../lab/machine.ts'
import { connectAgent, createDevice, type Device, type GuestAgent } from '../../src/index.ts'
import { Bench, collect, until } from '../cli/run.ts'

const PORT = 'org.qemu.guest_agent.0'
const MOST = 120_000 // the machine may be busy
const bench = new Bench()
let device: Device
let machine: Machine
const servers: Server[] = []

const failure = (code: string, text: RegExp) => expect.objectContaining({ code, message: expect.stringMatching(text) })
const hash = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')
const cli = (words: string[], options = {}) =>
  bench.run(['agent', words[0]!, '--control', device.controlSocket, ...words.slice(1)], options)

beforeAll(async () => {
  device = await createDevice({ log: 'ignore' })
  await device.addPort({ name: PORT, chardev: 'attach' })
  await device.addPort({ name: 'org.example.nobody', chardev: 'attach' })
  await device.addPort({ name: 'org.example.other', chardev: 'attach' })
  await device.addPort({ name: 'org.example.null', chardev: 'null' })
  const [qemu, kernel, guest] = [await ensureQemu(), await ensureKernel('6.1'), await agentGuest()]
  const args = [...device.memoryArgs('256M'), ...device.qemuArgs]
  machine = await Machine.boot({ qemu: qemu.path, kernel, guest, args })
})
afterAll(async () => {
  for (const server of servers) server.close()
  await machine?.close()
  await device?.close()
  await bench.close()
})

describe('the client', () => {
  let agent: GuestAgent
  beforeAll(async () => {
    agent = await connectAgent({ control: device.controlSocket, timeout: MOST })
  })
  afterAll(() => agent?.close())

  it('knows the agent, the guest, its commands', async () => {
    await agent.ping()
    const { version, commands } = await agent.info()
    expect(version).toMatch(/^\d+\.\d+/)
    expect(commands).toContainEqual({ name: 'guest-exec', enabled: true })
    expect(await agent.hostName()).toBe('guest')
    expect(await agent.osInfo()).toMatchObject({
      id: 'vmchannel-lab',
      'kernel-release': expect.stringMatching(/^6\.1/),
    })
    expect((await agent.interfaces()).map(({ name }) => name)).toContain('lo')
    expect(await agent.call('guest-get-vcpus')).toHaveLength(1)
    await expect(agent.call('guest-no-such')).rejects.toEqual(failure('ERR_VMCHANNEL_AGENT', /does not know/))
  })

  it('runs programs: status, signal, input, environment, both outputs', async () => {
    const ran = await agent.exec('sh', ['-c', 'cat; echo "$X" >&2; exit 7'], {
      input: 'in ü',
      env: ['X=1', 'PATH=/bin'],
    })
    expect(ran).toMatchObject({ status: 7, signal: null, truncated: false })
    expect([ran.stdout.toString(), ran.stderr.toString()]).toEqual(['in ü', '1\n'])
    expect(await agent.exec('sh', ['-c', 'kill -9 $$'])).toMatchObject({ status: null, signal: 9 })
    expect((await agent.exec('echo', ['x'], { capture: false })).stdout).toHaveLength(0)
    await expect(agent.exec('/no/such')).rejects.toEqual(failure('ERR_VMCHANNEL_NOT_FOUND', /No such file/))
  })

  it(
    'has limits for output',
    async () => {
      const some = await agent.exec('sh', ['-c', 'yes | head -c 100000'], { maxOutput: 10 })
      expect(some).toMatchObject({ truncated: true })
      expect(some.stdout.toString()).toBe('y\ny\ny\ny\ny\n')
      const flood = await agent.exec('dd', ['if=/dev/zero', 'bs=1M', 'count=18'], {})
      expect(flood).toMatchObject({ status: 0, truncated: true })
      expect(flood.stdout).toHaveLength(16 << 20)
    },
    MOST,
  )

  it('kills what nobody waits for: by a signal, by the time', async () => {
    const running = async (): Promise<boolean> => (await machine.run('ps | grep "sleep 12[34]"')).status === 0
    const abort = new AbortController()
    const sleeper = agent.exec('sleep', ['123'], { signal: abort.signal })
    await until('it runs', running)
    abort.abort()
    await expect(sleeper).rejects.toEqual(failure('ERR_VMCHANNEL_ABORTED', /sleep/))
    await until('killed', async () => !(await running()))
    await expect(agent.exec('sleep', ['124'], { timeout: 1500 })).rejects.toEqual(
      failure('ERR_VMCHANNEL_TIMEOUT', /sleep/),
    )
    await until('killed', async () => !(await running()))
  })

  const big = randomBytes((5 << 20) + 123)
  const small = randomBytes((150 << 10) + 5)
  it.each([
    ['a port', 'port', big],
    ['its commands', 'commands', small],
    ['what there is', undefined, small],
  ] as const)(
    'copies files over %s',
    async (_, via, bytes) => {
      const options = via === undefined ? {} : { via }
      expect(await agent.put(bytes, '/tmp/copy', { ...options, mode: '0640' })).toBe(bytes.length)
      expect(await machine.sh('sha256sum </tmp/copy; stat -c %a /tmp/copy')).toBe(`${hash(bytes)}  -\n640`)
      expect(hash(await agent.get('/tmp/copy', options))).toBe(hash(bytes))
      // A shorter one over a longer one; a stream of a length that nobody knows; nothing at all.
      async function* pieces() {
        for (let at = 0; at < small.length; at += 10_000) yield small.subarray(at, at + 10_000)
      }
      expect(await agent.put(pieces(), '/tmp/copy', options)).toBe(small.length)
      expect(hash(await agent.get('/tmp/copy', options))).toBe(hash(small))
      expect(await agent.put('', '/tmp/copy', options)).toBe(0)
      expect(await machine.sh('stat -c %s /tmp/copy')).toBe('0')
      if (via !== 'port') expect(await agent.get('/tmp/copy', options)).toHaveLength(0)
      expect((await device.ports()).map(({ name }) => name)).toHaveLength(4)
    },
    MOST,
  )

  it('copies what is no regular file by commands', async () => {
    expect((await agent.get('/proc/version')).toString()).toMatch(/^Linux version 6\.1/)
    await expect(agent.get('/proc/version', { via: 'port' })).rejects.toEqual(failure('ERR_VMCHANNEL_AGENT', /no port/))
  })

  it.each(['port', 'commands'] as const)(
    'says what is wrong with a file: %s',
    async (via) => {
      const no = (path: string, code: string, text: RegExp, put = false) =>
        expect(put ? agent.put(small, path, { via }) : agent.get(path, { via })).rejects.toEqual(failure(code, text))
      await no('/tmp/no/such', 'ERR_VMCHANNEL_NOT_FOUND', /\/tmp\/no\/such.*No such file/i)
      await no('/no/such/put', 'ERR_VMCHANNEL_NOT_FOUND', /No such file|nonexistent/i, true)
      await no('/tmp', 'ERR_VMCHANNEL_AGENT', /Is a directory/i)
      // 16 MB of /mnt are not enough for both of these.
      await machine.sh('dd if=/dev/zero of=/mnt/fill bs=1M 2>/dev/null; true')
      await no('/mnt/full', 'ERR_VMCHANNEL_AGENT', /No space|copying failed|\d+ of \d+ bytes/i, true)
      await machine.sh('rm -f /mnt/fill /mnt/full')
      await expect(agent.get('/bin/busybox', { via, maxSize: 1000 })).rejects.toEqual(
        failure('ERR_VMCHANNEL_AGENT', /more than 1000 bytes/),
      )
      await agent.ping()
    },
    MOST,
  )

  it(
    'gives a transfer up by a signal, and takes the port away',
    async () => {
      const signal = AbortSignal.timeout(400)
      async function* endless() {
        for (;;) yield big
      }
      await expect(agent.put(endless(), '/dev/shm/endless', { signal })).rejects.toEqual(
        failure('ERR_VMCHANNEL_TIMEOUT', /./),
      )
      expect(await device.ports()).toHaveLength(4)
      await machine.sh('rm -f /dev/shm/endless')
      await agent.ping()
    },
    MOST,
  )

  it('freezes, refuses what would hang meanwhile, thaws', async () => {
    expect(await agent.fsStatus()).toBe('thawed')
    expect(await agent.fsFreeze()).toBe(1)
    expect(await agent.fsStatus()).toBe('frozen')
    await expect(agent.hostName()).rejects.toMatchObject({ hint: expect.stringContaining('fsthaw') })
    expect(await agent.fsThaw()).toBe(1)
    expect(await agent.hostName()).toBe('guest')
  })

  it('outlives a connection that ends in the middle of a request', async () => {
    agent.close()
    const half = await device.attach(PORT)
    half.write('{"execute":"guest-exec","arguments":{"path":"/bin/')
    await until('the guest has it', async () => {
      const [stats] = (await device.stats()).filter(({ name }) => name === PORT)
      return stats!.counters.held === 0
    })
    half.destroy()
    await until('it is gone', async () => !(await device.ports())[0]!.hostConnected)
    agent = await connectAgent({ control: device.controlSocket, timeout: MOST })
    expect(await agent.hostName()).toBe('guest')
  })
})

describe('vmchannel agent', () => {
  // One at a time at the port.
  beforeEach(() => until('the port is free', async () => !(await device.ports())[0]!.hostConnected))

  it('ping, info, call', async () => {
    expect(await cli(['ping'])).toMatchObject({ status: 0, stderr: expect.stringMatching(/answers after [\d.]+ ms/) })
    const ping = await cli(['ping', '--json'])
    expect(JSON.parse(ping.stdout)).toEqual({ ms: expect.any(Number) })
    const { stdout } = await cli(['info'])
    expect(stdout).toMatch(/agent +qemu-guest-agent \d+/)
    expect(stdout).toMatch(/system +vmchannel lab guest/)
    expect(JSON.parse((await cli(['info', '--json'])).stdout)).toMatchObject({ hostName: 'guest' })
    expect(JSON.parse((await cli(['call', 'guest-get-host-name'])).stdout)).toEqual({ 'host-name': 'guest' })
    expect(await cli(['call', 'guest-get-host-name', '[1]'])).toMatchObject({ status: 2 })
  })

  it(
    'exec: output, status, options of the program, input, JSON',
    async () => {
      expect(await cli(['exec', 'sh', '-c', 'echo out; echo err >&2; exit 9'])).toEqual({
        ...{ status: 9, signal: null, stdout: 'out\n', stderr: 'err\n' },
      })
      expect((await cli(['exec', '--stdin', 'sort', '-n'], { input: '3\n1\n2\n' })).stdout).toBe('1\n2\n3\n')
      expect((await cli(['exec', 'sh', '-c', 'kill -15 $$'])).status).toBe(143)
      const ran = await cli(['exec', '--json', '-e', 'X=5', 'sh', '-c', 'echo $X; printf "\\377" >&2'])
      expect(JSON.parse(ran.stdout)).toEqual({
        ...{ status: 0, signal: null, stdout: '5\n', stderrBase64: '/w==', truncated: false },
      })
      expect(await cli(['exec', '/no/such'])).toMatchObject({
        status: 5,
        stderr: expect.stringMatching(/No such file/),
      })
      expect(await cli(['exec', '--env', 'X', 'sh'])).toMatchObject({ status: 2 })
    },
    MOST,
  )

  it('exec: Ctrl-C ends the program in the guest', async () => {
    const child = bench.start(['agent', 'exec', '--control', device.controlSocket, 'sleep', '125'])
    const ended = collect(child)
    const running = async (): Promise<boolean> => (await machine.run('ps | grep "sleep 12[5]"')).status === 0
    await until('it runs', running)
    child.kill('SIGINT')
    expect((await ended).signal ?? (await ended).status).toMatch(/SIGINT|12/)
    await until('killed', async () => !(await running()))
  })

  it(
    'put and get, by file, pipe and name',
    async () => {
      const bytes = randomBytes(300_000)
      writeFileSync(bench.path('here'), bytes)
      const put = await cli(['put', '--mode', '755', bench.path('here'), '/tmp/there'])
      expect(put).toMatchObject({ status: 0, stderr: expect.stringMatching(/^\/tmp\/there: 293\.0 KiB in /) })
      expect(await machine.sh('stat -c %a /tmp/there')).toBe('755')
      expect(await cli(['get', '/tmp/there', bench.path('back')])).toMatchObject({ status: 0 })
      expect(hash(readFileSync(bench.path('back')))).toBe(hash(bytes))
      expect(await cli(['put', '-', '/tmp/piped'], { input: 'from a pipe\n' })).toMatchObject({ status: 0 })
      expect((await cli(['get', '/tmp/piped', '-'])).stdout).toBe('from a pipe\n')
      const named = await cli(['get', '--json', '/tmp/piped'])
      expect(JSON.parse(named.stdout)).toMatchObject({ path: 'piped', bytes: 12 })
      expect(readFileSync(bench.path('piped'), 'utf8')).toBe('from a pipe\n')
      const absent = await cli(['get', '/tmp/none', bench.path('none')])
      expect(absent).toMatchObject({ status: 5, stderr: expect.stringMatching(/\/tmp\/none/) })
      expect(() => readFileSync(bench.path('none'))).toThrow('ENOENT')
      expect(await cli(['put', bench.path('not-there'), '/tmp/x'])).toMatchObject({ status: 5 })
      expect(await cli(['put', bench.folder, '/tmp/x'])).toMatchObject({ status: 2 })
      expect(await cli(['put', '--mode', '9', bench.path('here'), '/tmp/x'])).toMatchObject({ status: 2 })
    },
    MOST,
  )

  it(
    'fsfreeze, fsstatus, fsthaw',
    async () => {
      expect((await cli(['fsfreeze'])).stderr).toMatch(/^1 file system of the guest is frozen/)
      expect((await cli(['fsstatus'])).stdout).toBe('frozen\n')
      expect(await cli(['exec', 'true'])).toMatchObject({ status: 15, stderr: expect.stringMatching(/fsthaw/) })
      expect(JSON.parse((await cli(['fsthaw', '--json'])).stdout)).toEqual({ thawed: 1 })
      expect((await cli(['fsstatus'])).stdout).toBe('thawed\n')
    },
    MOST,
  )

  it('the agent of any other socket', async () => {
    const path = bench.path('relay.sock')
    const server = createServer(async (socket) => {
      const port = await device.attach(PORT)
      socket.pipe(port).pipe(socket)
      socket.on('close', () => port.destroy()).on('error', () => {})
      port.on('error', () => {})
    })
    servers.push(server)
    await new Promise<void>((done) => server.listen(path, done))
    const ran = await bench.run(['agent', 'exec', '--socket', path, 'hostname'])
    expect(ran).toMatchObject({ status: 0, stdout: 'guest\n' })
  })

  it(
    'clear errors: no such port, nobody there, somebody else, a place without a door, no socket',
    async () => {
      const ping = (...words: string[]) => cli(['ping', '--timeout', '1', ...words])
      expect(await ping('--port', 'org.example.none')).toMatchObject({
        ...{ status: 5, stderr: expect.stringMatching(/no port org\.example\.none[^]*there is: .*org\.qemu/) },
      })
      expect(await ping('--port', 'org.example.nobody')).toMatchObject({
        ...{ status: 5, stderr: expect.stringMatching(/nothing in the guest has port 2 .* open[^]*qemu-guest-agent/) },
      })
      const other = machine.spawn(
        'n=$(basename $(dirname $(grep -lx org.example.other /sys/class/virtio-ports/*/name))); exec sleep 1000 <>/dev/$n',
      )
      await until('open', async () =>
        (await device.ports()).some(({ name, guestOpen }) => name?.endsWith('other') && guestOpen),
      )
      expect(await ping('--port', 'org.example.other')).toMatchObject({
        ...{ status: 13, stderr: expect.stringMatching(/is open in the guest, but no agent answers within 1000 ms/) },
      })
      other.kill(9)
      expect(await ping('--port', 'org.example.null')).toMatchObject({ status: 6 })
      expect(await bench.run(['agent', 'ping', '--socket', bench.path('none.sock')])).toMatchObject({
        ...{ status: 5, stderr: expect.stringMatching(/no such socket[^]*is the machine running/) },
      })
      expect(await ping('--timeout', 'soon')).toMatchObject({ status: 2 })
      expect(await ping('--port', '1', '--socket', 'x')).toMatchObject({ status: 2 })
      const held = await device.attach(PORT)
      expect(await ping()).toMatchObject({ status: 4 })
      held.destroy()
    },
    MOST,
  )

  it(
    'a command that the guest has switched off; files go over commands then',
    async () => {
      await machine.sh('echo -n "-b guest-exec" >/tmp/agent-options; kill $(pidof qemu-ga)')
      const refused = await until(
        'the new agent',
        async () => {
          const ran = await cli(['exec', '--timeout', '60', 'true'])
          return ran.status === 15 && ran
        },
        MOST,
      )
      expect(refused.stderr).toMatch(/guest-exec: switched off in this guest[^]*--block-rpcs/)
      expect(await cli(['put', '-', '/tmp/slow'], { input: 'slowly' })).toMatchObject({ status: 0 })
      expect((await cli(['get', '/tmp/slow', '-'])).stdout).toBe('slowly')
      expect(await cli(['get', '--via', 'port', '/tmp/slow', '-'])).toMatchObject({ status: 15 })
      expect((await device.ports()).length).toBe(4)
      await machine.sh('rm /tmp/agent-options; kill $(pidof qemu-ga)')
    },
    MOST,
  )
})
