/**
 * A real QEMU without a guest for the tests of the server: `-accel qtest`, driven through qtest and QMP.
 */

import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ensureQemu } from '../../../../lab/fetch/qemu.ts'
import { QmpClient } from '../../../../src/qmp/client.ts'

/** What QEMU's default machine needs for shared guest memory; `share=off` and none are tried too. */
export type MemoryKind = 'shared' | 'private' | 'anonymous'

export interface QemuOptions {
  socket: string
  memory?: MemoryKind
  /** Bytes of RAM. */
  size?: number
  /** More properties of the device. */
  device?: Record<string, unknown>
  args?: string[]
}

export class RealQemu {
  readonly child: ChildProcess
  readonly exited: Promise<number | null>
  qmp!: QmpClient
  qtest!: Qtest
  stderr = ''
  readonly #folder: string
  readonly #servers: Server[] = []

  private constructor(child: ChildProcess, folder: string) {
    this.child = child
    this.#folder = folder
    this.exited = new Promise((resolve) => child.once('close', (status) => resolve(status)))
    child.stderr!.setEncoding('utf8').on('data', (text) => (this.stderr += String(text)))
  }

  /** Starts it; rejects with what it wrote where it ends at once. */
  static async start(options: QemuOptions): Promise<RealQemu> {
    const { path } = await ensureQemu()
    const folder = mkdtempSync(join(tmpdir(), 'vmchannel-qemu-'))
    const [qmp, qtest] = await Promise.all([listen(join(folder, 'qmp')), listen(join(folder, 'qtest'))])
    const size = options.size ?? 256 * 2 ** 20
    const kind = options.memory ?? 'shared'
    const backend = `memory-backend-memfd,id=mem,size=${size},share=${kind === 'shared' ? 'on' : 'off'}`
    const device = { driver: 'vfio-user-pci', id: 'toy', addr: '05.0', socket: { type: 'unix', path: options.socket } }
    const machine = kind === 'anonymous' ? 'q35' : 'q35,memory-backend=mem'
    const args = ['-accel', 'qtest', '-machine', machine, '-m', `${size / 2 ** 20}`]
    if (kind !== 'anonymous') args.push('-object', backend)
    args.push('-display', 'none', '-nodefaults', '-qmp', `unix:${folder}/qmp`)
    args.push('-qtest', `unix:${folder}/qtest`, '-qtest-log', '/dev/null')
    args.push('-device', JSON.stringify({ ...device, ...options.device }), ...(options.args ?? []))
    const qemu = new RealQemu(spawn(path, args, { stdio: ['ignore', 'ignore', 'pipe'] }), folder)
    qemu.#servers.push(qmp, qtest)
    const connected = Promise.all([once(qmp, 'connection'), once(qtest, 'connection')]) as Promise<[[Socket], [Socket]]>
    const up = connected.then(([[a], [b]]) => ready(a, b)).catch(() => qemu.exited)
    const found = await Promise.race([up, qemu.exited])
    if (found === null || typeof found === 'number') {
      qemu.#clean()
      throw new Error(`QEMU ended with ${found}: ${qemu.stderr}`)
    }
    ;[qemu.qmp, qemu.qtest] = found
    return qemu
  }

  /** A command of the human monitor. */
  async monitor(command: string): Promise<string> {
    return String(await this.qmp.execute('human-monitor-command', { 'command-line': command }))
  }

  async quit(): Promise<number | null> {
    if (this.child.exitCode === null) await this.qmp.execute('quit').catch(() => this.child.kill('SIGKILL'))
    const status = await this.exited
    this.#clean()
    return status
  }

  async kill(): Promise<void> {
    this.child.kill('SIGKILL')
    await this.exited
    this.#clean()
  }

  #clean(): void {
    for (const server of this.#servers) server.close()
    rmSync(this.#folder, { recursive: true, force: true })
  }
}

async function listen(path: string): Promise<Server> {
  const server = createServer()
  server.listen(path)
  await once(server, 'listening')
  return server
}

async function ready(qmpSocket: Socket, qtestSocket: Socket): Promise<[QmpClient, Qtest]> {
  const qmp = new QmpClient(qmpSocket)
  const qtest = new Qtest(qtestSocket)
  // QEMU answers only once all its devices are there.
  await qmp.negotiate()
  return [qmp, qtest]
}

/** The qtest protocol: one line asked, one line answered, interrupts in between. */
export class Qtest {
  readonly interrupts: string[] = []
  readonly #socket: Socket
  readonly #waiting: ((line: string) => void)[] = []
  #partial = ''

  constructor(socket: Socket) {
    this.#socket = socket
    socket.setEncoding('utf8')
    socket.on('error', () => {})
    socket.on('data', (text) => {
      const lines = (this.#partial + String(text)).split('\n')
      this.#partial = lines.pop()!
      for (const line of lines)
        if (line.startsWith('IRQ ')) this.interrupts.push(line)
        else this.#waiting.shift()?.(line)
    })
  }

  async command(line: string): Promise<string> {
    const answer = new Promise<string>((resolve) => this.#waiting.push(resolve))
    this.#socket.write(`${line}\n`)
    const text = await answer
    if (!text.startsWith('OK')) throw new Error(`qtest ${line}: ${text}`)
    return text.slice(3)
  }

  async write(width: 'b' | 'w' | 'l' | 'q', address: number, value: number | bigint): Promise<void> {
    await this.command(`write${width} 0x${address.toString(16)} 0x${value.toString(16)}`)
  }

  async read(width: 'b' | 'w' | 'l' | 'q', address: number): Promise<number> {
    return Number(await this.command(`read${width} 0x${address.toString(16)}`))
  }

  async configWrite(device: number, offset: number, value: number, width: 'w' | 'l' = 'l'): Promise<void> {
    await this.command(`outl 0xcf8 0x${(0x8000_0000 + device * 2048 + (offset & 0xfc)).toString(16)}`)
    await this.command(`out${width} 0x${(0xcfc + (offset & 3)).toString(16)} 0x${value.toString(16)}`)
  }

  async configRead(device: number, offset: number): Promise<number> {
    await this.command(`outl 0xcf8 0x${(0x8000_0000 + device * 2048 + (offset & 0xfc)).toString(16)}`)
    return Number(await this.command('inl 0xcfc'))
  }
}
