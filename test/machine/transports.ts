/**
 * One guest behind `vmchannel qemu` on a QEMU of choice, and what each transport has to do there: the same checks for
 * our device and for the fallbacks.
 */
import { createHash } from 'node:crypto'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { expect } from 'vitest'
import { ensureKernel } from '../../lab/fetch/kernel.ts'
import { Machine, type MachineOptions } from '../../lab/machine.ts'
import { Pattern, patternSha256 } from '../../lab/pattern.ts'
import { startVmtest, vmtest } from '../../lab/vmtest.ts'
import { Bench, MAIN } from '../cli/run.ts'
import { readBytes, until } from './rig.ts'

const MIB = 1 << 20
export const NAMES = ['org.example.0', 'org.example.1'] as const

export interface TransportRigOptions extends Pick<MachineOptions, 'guest' | 'memory' | 'cpus'> {
  qemu: string
  /** Behind each port, e.g. ",transport=qemu". */
  words?: string
  args?: readonly string[]
  /** Makes the nodes; runs at each start of the guest. */
  prepare: (machine: Machine) => Promise<unknown>
}

export class TransportRig {
  readonly bench: Bench = new Bench()
  readonly #options: TransportRigOptions
  readonly #sockets: Socket[] = []
  machine!: Machine

  static async start(options: TransportRigOptions): Promise<TransportRig> {
    const rig = new TransportRig(options)
    try {
      await rig.#boot()
      return rig
    } catch (error) {
      await rig.close()
      throw error
    }
  }

  private constructor(options: TransportRigOptions) {
    this.#options = options
  }

  async #boot(): Promise<void> {
    const { qemu, words = '', args = [], prepare, ...rest } = this.#options
    this.machine = await Machine.boot({
      ...rest,
      qemu,
      kernel: await ensureKernel('6.1'),
      args: [...args, ...NAMES.flatMap((name) => ['-virtioserial', `unix:${this.path(name)},name=${name}${words}`])],
      launcher: (binary, line) => ({
        file: process.execPath,
        args: [MAIN, 'qemu', '--qemu-binary', binary, ...line],
        env: { VMCHANNEL_STATE_DIR: this.bench.state, HOME: this.bench.folder },
      }),
    })
    await prepare(this.machine)
  }

  path(name: string): string {
    return join(this.bench.folder, name)
  }

  async connect(name: string): Promise<Socket> {
    const socket = connect({ path: this.path(name), allowHalfOpen: true })
    this.#sockets.push(socket)
    socket.on('error', () => {})
    await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject))
    return socket.pause()
  }

  async reboot(): Promise<void> {
    this.hangUp()
    await this.machine.reset()
    await this.#options.prepare(this.machine)
  }

  hangUp(): void {
    for (const socket of this.#sockets.splice(0)) socket.destroy()
  }

  async close(): Promise<void> {
    this.hangUp()
    await this.machine?.close()
    await this.bench.close()
  }
}

/** A port's node has come, with its link. */
async function node(machine: Machine, at: number): Promise<string> {
  const path = `/dev/vmch${at}`
  await until(async () => (await machine.run(`[ -c ${path} ]`)).status === 0, `${path} is there`)
  return path
}

/** Both ports, both directions, at once, exact. */
export async function movesBytes(rig: TransportRig, total: number = MIB): Promise<void> {
  await Promise.all(
    NAMES.map(async (name, at) => {
      const path = await node(rig.machine, at)
      const peer = await rig.connect(name)
      const got = readBytes(peer, total, 120_000)
      const { sha256 } = await vmtest(rig.machine, 'source', [path, total, 20_000], 120_000)
      expect(
        createHash('sha256')
          .update(await got)
          .digest('hex'),
        `guest to host, ${name}`,
      ).toBe(sha256)
      const sink = await startVmtest(rig.machine, 'sink', [path, total])
      peer.write(new Pattern().take(total))
      expect((await sink.result(120_000)).sha256, `host to guest, ${name}`).toBe(patternSha256(total))
      peer.destroy()
    }),
  )
}

/** A reader in the guest hears the end of the host; a second opener is turned away. */
export async function opensAndCloses(rig: TransportRig): Promise<void> {
  const path = await node(rig.machine, 0)
  const hungUp = async (): Promise<boolean> => (await vmtest(rig.machine, 'poll', [path, 0])).revents.includes('HUP')
  await until(hungUp, 'nobody is there: HUP')
  for (let round = 0; round < 2; round++) {
    const peer = await rig.connect(NAMES[0])
    await until(async () => !(await hungUp()), 'the guest hears of the host')
    const job = rig.machine.spawn(`cat ${path}`)
    peer.write('the last words')
    await job.waitForOutput(/the last words/)
    peer.destroy()
    expect(await job.wait()).toEqual({ status: 0, output: 'the last words' })
    await until(hungUp, 'the guest hears of its end')
  }
  expect(await vmtest(rig.machine, 'open2', [path])).toEqual({ second: false, errno: 'EBUSY' })
}

/** A host that does not read holds up its writer, nobody else: the guest's clock and the other port go on. */
export async function heldUpAlone(rig: TransportRig): Promise<void> {
  const { machine } = rig
  const [path, other] = [await node(machine, 0), await node(machine, 1)]
  const peer = await rig.connect(NAMES[0])
  const total = 8 * MIB
  const writer = machine.spawn(`vmtest source ${path} ${total} 64k`)
  const clock = async (): Promise<number> => Number(await machine.sh('cut -d " " -f 1 /proc/uptime'))
  const second = await rig.connect(NAMES[1])
  const before = await clock()
  for (let round = 0; round < 5; round++) {
    const echo = await startVmtest(machine, 'echo', [other, 10_000])
    const back = readBytes(second, 10_000)
    second.write(new Pattern(round).take(10_000))
    expect((await back).equals(Buffer.from(new Pattern(round).take(10_000)))).toBe(true)
    await echo.result()
  }
  expect(await clock()).toBeGreaterThan(before)
  expect(writer.ended, 'the writer waits').toBe(false)
  const got = readBytes(peer, total, 120_000)
  const { status, output } = await writer.wait(120_000)
  expect(status).toBe(0)
  expect(
    createHash('sha256')
      .update(await got)
      .digest('hex'),
  ).toBe((JSON.parse(output) as { sha256: string }).sha256)
  rig.hangUp()
}
