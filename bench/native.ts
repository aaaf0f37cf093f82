/**
 * Native speed, with no guest: our driver half fills the rings of both devices from outside a QEMU that runs no code
 * (`-accel qtest`), so that nothing is measured but driver half, device and socket. A kick costs a command of qtest,
 * which is why they come in batches; an interrupt is an eventfd. The limit is the same two processes on one socket.
 */
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { BareMachine } from '../lab/bare-machine.ts'
import { startDevice, type StartedDevice } from '../src/client/start.ts'
import { ConsoleDriver } from '../src/driver/console.ts'
import type { DriverPort } from '../src/driver/port.ts'
import { closeFd } from '../src/ffi/libc.ts'
import { Watch } from '../src/ffi/poll.ts'
import { readv, writev } from '../src/ffi/rw.ts'
import { listenUnix } from '../src/ffi/unix-listen.ts'
import { Iovec } from '../src/mem/iovec.ts'
import { makeSuite, type BenchRig, type Case, type Side, type Suite } from './case.ts'
import { peerProgram, startPeer, type PeerResult } from './peer.ts'
import { Tap } from './tap.ts'
import { stopDevice, until } from './wait.ts'

const MIB = 1 << 20
const SLOT: Readonly<Record<Side, number>> = { ours: 4, qemu: 5 }
/** MSI-X vectors of both devices. */
const VECTORS = 4
/** As many as QEMU's queues hold, and what Linux puts into a receiveq: pages. */
const BUFFERS = 128
const RECEIVE_LEN = 4096

class NativeRig implements BenchRig {
  readonly banner: string
  readonly #machine: BareMachine
  readonly #device: StartedDevice
  readonly #folder: string
  readonly #program: string
  readonly #ports: Readonly<Record<Side, { port: DriverPort; tap: Tap }>>

  static async start(): Promise<NativeRig> {
    const program = await peerProgram()
    const folder = await mkdtemp(join(tmpdir(), 'vmchannel-native-'))
    const device = await startDevice({
      stateDir: join(folder, 'state'),
      vms: [{ vectors: VECTORS, ports: [`unix:${join(folder, 'ours.sock')},name=bench`] }],
      exitWith: 'parent',
      logLevel: 'warn',
    })
    try {
      const [option, value] = device.vms[0]!.qemuArgs as [string, string]
      const ours = JSON.stringify({ ...(JSON.parse(value) as object), addr: `0${SLOT.ours}.0` })
      const machine = await BareMachine.start({
        args: [
          ...[option, ours, '-device', `virtio-serial-pci,disable-legacy=on,vectors=${VECTORS},addr=${SLOT.qemu}`],
          ...['-chardev', `socket,id=c,path=${join(folder, 'qemu.sock')},server=on,wait=off`],
          ...['-device', 'virtserialport,chardev=c,name=bench'],
        ],
      })
      try {
        const ports = { ours: await openPort(machine, 'ours'), qemu: await openPort(machine, 'qemu') }
        return new NativeRig(machine, device, folder, program, ports)
      } catch (error) {
        await machine.close()
        throw error
      }
    } catch (error) {
      await stopDevice(device, folder)
      throw error
    }
  }

  private constructor(
    machine: BareMachine,
    device: StartedDevice,
    folder: string,
    program: string,
    ports: Record<Side, { port: DriverPort; tap: Tap }>,
  ) {
    this.#machine = machine
    this.#device = device
    this.#folder = folder
    this.#program = program
    this.#ports = ports
    this.banner = `QEMU ${machine.qemuVersion}, no guest, our driver half`
  }

  tap(side: Side): Tap {
    return this.#ports[side].tap
  }

  /** The host's end of a port, when both sides know each other. */
  async peer(side: Side, mode: 'sink' | 'source', ...words: number[]): Promise<() => Promise<PeerResult>> {
    const { port } = this.#ports[side]
    await until(() => !port.hostOpen)
    const finish = await startPeer(this.#program, join(this.#folder, `${side}.sock`), mode, ...words)
    if (mode === 'sink') await until(() => port.hostOpen)
    return finish
  }

  /** The peer with our own end of a socket, and nothing in between. */
  async direct(
    mode: 'sink' | 'source',
    ...words: number[]
  ): Promise<{ fd: number; finish: () => Promise<PeerResult> }> {
    const listener = listenUnix(join(this.#folder, 'direct.sock'))
    try {
      const finish = await startPeer(this.#program, listener.path, mode, ...words)
      const fd = listener.accept()
      if (fd === undefined) throw new Error('the peer did not connect')
      return { fd, finish }
    } finally {
      listener.close()
    }
  }

  async close(): Promise<void> {
    await this.#machine.close()
    await stopDevice(this.#device, this.#folder)
  }
}

async function openPort(machine: BareMachine, side: Side): Promise<{ port: DriverPort; tap: Tap }> {
  const { transport, pool } = machine.qtest.attach({ slot: SLOT[side] })
  const driver = new ConsoleDriver(transport, pool, {
    ...{ transmitBuffers: BUFFERS, receiveBuffers: BUFFERS, receiveLen: RECEIVE_LEN },
    defer: setImmediate,
  })
  driver.start()
  await until(() => driver.ports.some(({ name }) => name === 'bench'))
  const port = driver.ports.find(({ name }) => name === 'bench')!
  return { port, tap: port.attach((end) => new Tap(end)) as Tap }
}

const rate = (bytes: number, ns: number): number => bytes / 1e6 / (ns / 1e9)

/** `count` buffers of `len` bytes. */
function buffers(count: number, len: number): Iovec {
  const list = new Iovec()
  const bytes = new Uint8Array(count * len)
  for (let i = 0; i < count; i++) list.push(bytes, i * len, len, 0)
  return list
}

/** Moves `bytes` over a bare socket, a queue full of buffers at a time. */
function pump(
  fd: number,
  bytes: number,
  list: Iovec,
  move: (fd: number, list: Iovec) => number,
  reads: boolean,
): Promise<void> {
  let left = bytes
  return new Promise((resolve, reject) => {
    const watch = new Watch(fd, () => {
      for (;;) {
        const done = move(fd, list)
        if (done === 0) return
        left -= done
        if (done > 0 && left > 0) continue
        watch.close()
        return done < 0 && left > 0 ? reject(new Error('the peer has gone')) : resolve()
      }
    })
    watch.want(reads, !reads)
  })
}

function guestToHost(id: string, size: number, bytes: number): Case<NativeRig> {
  return {
    ids: [id],
    title: `writes of ${size >= 1024 ? `${size / 1024} KiB` : `${size} bytes`}, no guest`,
    unit: 'MB/s',
    async run(rig, side) {
      const finish = await rig.peer(side, 'sink', bytes)
      rig.tap(side).send(bytes, size)
      const { ns } = await finish()
      return { [id]: rate(bytes, ns) }
    },
    async limit(rig) {
      const { fd, finish } = await rig.direct('sink', bytes)
      await pump(fd, bytes, buffers(BUFFERS, size), writev, false)
      const { ns } = await finish()
      closeFd(fd)
      return { [id]: rate(bytes, ns) }
    },
  }
}

function hostToGuest(id: string, size: number, bytes: number): Case<NativeRig> {
  return {
    ids: [id],
    title: `host writes of ${size / 1024} KiB, no guest`,
    unit: 'MB/s',
    async run(rig, side) {
      const all = rig.tap(side).receive(bytes)
      const finish = await rig.peer(side, 'source', bytes, size)
      const ms = await all
      await finish()
      return { [id]: rate(bytes, ms * 1e6) }
    },
    async limit(rig) {
      const { fd, finish } = await rig.direct('source', bytes, size)
      const start = performance.now()
      await pump(fd, bytes, buffers(BUFFERS, RECEIVE_LEN), readv, true)
      const ms = performance.now() - start
      await finish()
      closeFd(fd)
      return { [id]: rate(bytes, ms * 1e6) }
    },
  }
}

export const NATIVE: Suite = makeSuite(
  [
    guestToHost('native.g2h.32k', 32 << 10, 512 * MIB),
    guestToHost('native.g2h.64b', 64, 16 * MIB),
    hostToGuest('native.h2g.bulk', 64 << 10, 512 * MIB),
  ],
  () => NativeRig.start(),
)
