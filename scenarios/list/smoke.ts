/** What one port does, call by call. */
import { readBytes, until } from '../../lab/wait.ts'
import { vmtest } from '../../lab/vmtest.ts'
import { check, same, type Scenario } from '../scenario.ts'
import { bye, MIB, pause, write } from '../side.ts'

/** Long enough for what must not happen to happen. */
const NOTHING_MS = 300

export const SMOKE: readonly Scenario[] = [
  {
    id: 'open',
    title: 'a guest opens a port, and the host hears of it',
    field: 'smoke.open',
    short: true,
    async run(side) {
      const port = await side.plug()
      await port.untilGuestOpen(false)
      await port.start('hold', 0)
      await port.untilGuestOpen(true)
    },
  },
  {
    id: 'open.port0',
    title: 'port 0 is a console, and has its character device',
    field: 'smoke.check_zero_sym',
    short: true,
    async run(side) {
      const { node } = await side.plug({ console: true, id: 0 })
      check(node.endsWith('p0'), `the first port is ${node}`)
      check((await side.machine.run(`test -c ${node}`)).status === 0, `${node} is no character device`)
    },
  },
  {
    id: 'open.second',
    title: 'a second opener is told EBUSY, also in another process',
    field: 'smoke.multi_open',
    short: true,
    async run(side) {
      const port = await side.plug()
      same(await port.test('open2'), { second: false, errno: 'EBUSY' }, 'the second open')
      await port.start('hold', 0)
      const { errno } = await port.test('storm', 1)
      same(errno, 'EBUSY', 'an open of another process')
    },
  },
  {
    id: 'close',
    title: 'a port that was closed can be opened again, a hundred times; the host hears of the last close',
    field: 'smoke.close',
    short: true,
    async run(side) {
      const port = await side.plug()
      same((await port.test('storm', 100)).failed, 0, 'opens that failed')
      await port.untilGuestOpen(false)
      await port.talk()
    },
  },
  {
    id: 'poll',
    title: 'poll says HUP without a host, OUT with one, IN with data, and HUP again',
    field: 'smoke.polling',
    short: true,
    async run(side) {
      const port = await side.plug()
      check((await port.poll()).includes('HUP'), 'no HUP while the host is away')
      const peer = await port.connect()
      await port.untilPoll((events) => events.join() === 'OUT', 'OUT alone')
      const waiting = await port.start('poll', 60_000, 'in')
      peer.write('x')
      same((await waiting.result(90_000)).revents, ['IN'], 'what wakes poll')
      // The byte went with the close of that program, as a Linux guest does it; another one stays until it is read.
      await bye(peer)
      await port.untilPoll((events) => events.includes('HUP'), 'HUP')
    },
  },
  {
    id: 'sigio',
    title: 'SIGIO when the host comes, when data comes, when the host goes',
    field: 'smoke.sigio',
    short: true,
    async run(side) {
      const port = await side.plug()
      let waiting = await port.start('sigio', 60_000)
      const peer = await side.peer(port.name)
      check((await waiting.result(90_000)).sigio, 'no signal when the host came')
      await port.untilPoll((events) => !events.includes('HUP'), 'the host is there')
      waiting = await port.start('sigio', 60_000)
      peer.write('x')
      check((await waiting.result(90_000)).sigio, 'no signal when data came')
      waiting = await port.start('sigio', 60_000)
      await bye(peer)
      check((await waiting.result(90_000)).sigio, 'no signal when the host went')
    },
  },
  {
    id: 'lseek',
    title: 'a port cannot be sought',
    field: 'smoke.lseek',
    short: true,
    async run(side) {
      const port = await side.plug()
      same(await port.test('lseek'), { lseek: 'ESPIPE', pread: 'ESPIPE' }, 'lseek and pread')
    },
  },
  {
    id: 'offline',
    title: 'no host: a read gives nothing at once, a write waits for the host and then arrives',
    field: 'smoke.rw_host_offline',
    short: true,
    async run(side) {
      const port = await side.plug()
      const { read, write_errno, bytes } = await port.test('nonblock', 10, 10)
      same({ read, write_errno, bytes }, { read: 0, write_errno: 'EAGAIN', bytes: 0 }, 'without waiting')
      const writer = side.spawn(`echo 123456789 > ${port.node}`)
      await port.untilGuestOpen(true)
      await pause(NOTHING_MS)
      check(!writer.ended, 'the write did not wait for the host')
      const peer = await side.peer(port.name)
      same((await readBytes(peer, 10)).toString(), '123456789\n', 'what came when the host came')
      same((await writer.wait()).status, 0, 'the writer')
    },
  },
  {
    id: 'offline.much',
    title: 'no host: 64 MiB wait for it, and all of them arrive',
    field: 'smoke.rw_host_offline_big_data',
    async run(side) {
      const port = await side.plug()
      const writer = port.test('source', 64 * MIB, '64k', 1, '--no-hash')
      await port.untilGuestOpen(true)
      await pause(NOTHING_MS)
      const peer = await side.peer(port.name)
      let got = 0
      peer.on('data', (chunk: Buffer) => (got += chunk.length))
      await writer
      await until(() => got >= 64 * MIB, 'all of it is here')
      same(got, 64 * MIB, 'bytes that arrived')
    },
  },
  {
    id: 'blocking',
    title: 'a blocking read sleeps until the host sends',
    field: 'smoke.rw_blocking_mode',
    short: true,
    async run(side) {
      const port = await side.plug()
      const peer = await port.connect()
      const reader = await port.start('sink', 10)
      await pause(NOTHING_MS)
      check(!reader.job.ended, 'a read came back with nothing')
      await write(peer, 10, 10)
      port.same(await reader.result(), 10)
    },
  },
  {
    id: 'nonblocking',
    title: 'a read with O_NONBLOCK says EAGAIN, writes go on until the host is behind',
    field: 'smoke.rw_nonblocking_mode',
    short: true,
    async run(side) {
      const port = await side.plug()
      const peer = await port.connect()
      peer.pause()
      const { read_errno, bytes, write_errno } = await port.test('nonblock', 4096, 16 * MIB)
      same({ read_errno, write_errno }, { read_errno: 'EAGAIN', write_errno: 'EAGAIN' }, 'read and write')
      same((await readBytes(peer, bytes)).length, bytes, 'what was written before')
      return `${Math.round(bytes / 1024)} KiB were taken from a guest whose host does not read`
    },
  },
  {
    id: 'console',
    title: 'a shell on a console port answers, while another program has the terminal open too',
    field: 'smoke.* on virtconsole',
    short: true,
    async run(side) {
      const { name } = await side.plug({ console: true })
      // Of the terminals that the guest may have, the only one that can be opened.
      const tty = await side.machine.sh('for t in /dev/hvc*; do if (: <$t) 2>/dev/null; then echo $t; fi; done')
      check(/^\/dev\/hvc\d$/.test(tty), `one terminal was to be there: ${JSON.stringify(tty)}`)
      same((await vmtest(side.machine, 'open2', [tty])).second, true, 'a second open of a terminal')
      same((await vmtest(side.machine, 'lseek', [tty])).lseek, 'ESPIPE', 'lseek on a terminal')
      const peer = await side.peer(name)
      let screen = ''
      peer.on('data', (chunk: Buffer) => (screen += chunk.toString()))
      side.spawn(`exec setsid sh -c 'stty sane <${tty}; exec sh -i <${tty} >${tty} 2>&1'`)
      await until(() => screen.includes('# '), 'the shell has a prompt').catch(() => {
        throw new Error(`no prompt: ${JSON.stringify(screen)}`)
      })
      peer.write('echo $((6 * 7)) on a console\n')
      await until(() => screen.includes('42 on a console'), 'the shell answers')
    },
  },
]
