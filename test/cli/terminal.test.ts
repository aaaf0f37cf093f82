/**
 * A terminal at the guest's console (`vmchannel connect`), and a port that leads to the standard streams of `vmchannel
 * qemu`, with a real guest and a real pseudo-terminal.
 */
import { execFileSync, type ChildProcess } from 'node:child_process'
import { closeSync, constants, openSync, readFileSync, readSync, writeSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ensureKernel } from '../../lab/fetch/kernel.ts'
import { ensureQemu } from '../../lab/fetch/qemu.ts'
import { Machine } from '../../lab/machine.ts'
import { openPty, type Pty } from '../../src/ffi/pty.ts'
import { setTerminalSize, terminalMode } from '../../src/ffi/tty.ts'
import { Bench, collect, MAIN, until, type Result } from './run.ts'

const bench = new Bench()
let machine: Machine
let input: number

/** `vmchannel connect` at a pty of ours, of which we are the user. */
class Screen {
  readonly pty: Pty = openPty()
  readonly child: ChildProcess
  readonly ended: Promise<Result>
  readonly before: Uint8Array
  text = ''
  readonly #slave: number
  readonly #timer: NodeJS.Timeout

  constructor(args: readonly string[], cols: number, rows: number) {
    this.#slave = openSync(this.pty.name, constants.O_RDWR | constants.O_NOCTTY)
    execFileSync('stty', ['sane'], { stdio: [this.#slave, 'ignore', 'ignore'] })
    setTerminalSize(this.pty.fd, { cols, rows })
    this.before = terminalMode(this.#slave)!
    this.child = bench.start(['connect', ...args], { stdio: [this.#slave, this.#slave, this.#slave] })
    this.ended = collect(this.child)
    this.#timer = setInterval(() => this.#read(), 10)
  }

  type(text: string): void {
    writeSync(this.pty.fd, text)
  }

  resize(cols: number, rows: number): void {
    setTerminalSize(this.pty.fd, { cols, rows })
    this.child.kill('SIGWINCH')
  }

  shows(text: string | RegExp): Promise<unknown> {
    return until(`the screen shows ${text}`, () =>
      typeof text === 'string' ? this.text.includes(text) : text.test(this.text),
    )
  }

  mode(): Uint8Array {
    return terminalMode(this.#slave)!
  }

  async close(): Promise<void> {
    this.child.kill('SIGKILL')
    await this.ended
    clearInterval(this.#timer)
    closeSync(this.#slave)
    closeSync(this.pty.fd)
    if (this.pty.opens !== -1) closeSync(this.pty.opens)
  }

  #read(): void {
    const bytes = Buffer.alloc(65_536)
    try {
      this.text += bytes.toString('utf8', 0, readSync(this.pty.fd, bytes))
    } catch {
      // nothing there
    }
  }
}

describe('a console', () => {
  beforeAll(async () => {
    execFileSync('mkfifo', [bench.path('in')])
    input = openSync(bench.path('in'), constants.O_RDWR)
    machine = await Machine.boot({
      qemu: (await ensureQemu()).path,
      kernel: await ensureKernel('6.1'),
      args: [
        ...['-virtioserial', 'attach,console=on', '-virtioserial', 'stdio,name=std'],
        ...['-virtioserial', `pty:${bench.path('tty')},console=on,name=second`],
      ],
      launcher: (qemu, args) => ({
        file: '/bin/sh',
        args: [
          ...['-c', 'in=$1 out=$2; shift 2; exec "$@" <"$in" >"$out"', 'sh', bench.path('in'), bench.path('out')],
          ...[process.execPath, MAIN, 'qemu', '--qemu-binary', qemu, ...args],
        ],
        env: { VMCHANNEL_STATE_DIR: bench.state },
      }),
    })
  })
  afterAll(async () => {
    await machine?.close()
    closeSync(input)
    await bench.close()
  })

  it('raw mode, keys as they are, the size and its changes, the escape, and everything put back', async () => {
    machine.spawn('while :; do setsid sh -c "exec </dev/hvc0 >/dev/hvc0 2>&1; stty sane; exec sh -i"; done')
    const screen = new Screen(['0'], 91, 31)
    try {
      await screen.shows('Connected to port 0')
      await screen.shows('^] ends the connection')
      await until('raw mode', () => (screen.mode()[12]! & 0o12) === 0) // ICANON and ECHO
      screen.type('\r')
      await screen.shows('# ')
      screen.type('stty size\r')
      await screen.shows(/\n31 91\r?\n/)
      screen.resize(70, 20)
      await until(
        'the guest knows',
        async () => (await machine.sh('stty size -F /dev/hvc0 2>/dev/null || stty size </dev/hvc0')) === '20 70',
      )
      // Ctrl-C is the guest's.
      screen.type('sleep 1000\r')
      await screen.shows('sleep 1000')
      await new Promise((done) => setTimeout(done, 300))
      screen.type('\u0003')
      screen.type('echo back$((1+1))\r')
      await screen.shows('back2')
      screen.type('never\u001dseen')
      expect(await screen.ended).toMatchObject({ status: 0 })
      await screen.shows('Connection ended.')
      expect(screen.mode()).toEqual(screen.before)
      expect(screen.text).not.toContain('seen')
    } finally {
      await screen.close()
    }
  })

  it('a signal puts the terminal back as well', async () => {
    const screen = new Screen(['0', '--escape', '^A'], 80, 24)
    try {
      await screen.shows('^A ends the connection')
      await until('raw mode', () => (screen.mode()[12]! & 0o12) === 0)
      screen.child.kill('SIGTERM')
      expect(await screen.ended).toMatchObject({ status: 143 })
      expect(screen.mode()).toEqual(screen.before)
    } finally {
      await screen.close()
    }
  })

  it('a port at a pty: through the pty, size included', async () => {
    const screen = new Screen(['second'], 77, 22)
    try {
      await screen.shows('Connected to port')
      await until('the host is there', async () => {
        const { stdout } = await bench.run(['port', 'stats', 'second', '--json'])
        return (JSON.parse(stdout) as { hostConnected: boolean }[])[0]!.hostConnected
      })
      await machine.sh('echo hello pty >/dev/hvc1')
      await screen.shows('hello pty')
      await until('the guest knows', async () => (await machine.sh('stty size </dev/hvc1')) === '22 77')
      screen.type('\u001d')
      expect(await screen.ended).toMatchObject({ status: 0 })
    } finally {
      await screen.close()
    }
  })

  it('stdio: the standard streams of the wrapper', async () => {
    writeSync(input, 'to the guest\n')
    const port = await machine.sh('basename $(dirname $(grep -l "^std$" /sys/class/virtio-ports/*/name))')
    const line = await machine.sh(`exec 3<>/dev/${port}; read -r l <&3; echo "got $l" >&3; echo $l`)
    expect(line).toBe('to the guest')
    await until('the answer', () => readFileSync(bench.path('out'), 'utf8') === 'got to the guest\n')
  })
})
