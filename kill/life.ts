/** The life of a device, as a list of steps. Each leaves the model as it is to be after it, and waits until it is. */

import { join } from 'node:path'
import { CONTROL_RECEIVEQ, CONTROL_TRANSMITQ, receiveqOf, transmitqOf } from '../src/spec/console.ts'
import { QUEUES } from './driver.ts'
import type { MapName } from './guest.ts'
import type { Rig } from './rig.ts'
import { guestToHost, hostToGuest } from './transfer.ts'

export interface Step {
  readonly name: string
  /** Kill at every `sparse`th point only: many requests of one kind. 0: at none. */
  readonly sparse?: number
  /** It can be done again at once, with the steps beside it that have the same word here. */
  readonly repeats?: string
  /** The process that is killed is the one that takes over from a process which is killed. */
  readonly successor?: boolean
  run(rig: Rig): Promise<void>
}

const CONSOLE = 0
const UNIX = 1
const TCP = 2
const PIPE = 3
const PTY = 4
const ATTACH = 5
const LATE = 6
const PEERS = [CONSOLE, UNIX, TCP, PTY, ATTACH]
const SMALL = 100
/** More than a socket takes without its reader. */
const BULK = 600_000
/** More than the guest has buffers for. */
const LARGE = 60_000

const DATA_QUEUES = Array.from({ length: QUEUES }, (_, i) => i).filter((i) => i !== 2 && i !== 3)

const map = (name: MapName): Step => ({
  name: `DMA_MAP ${name}`,
  async run({ guest, maps }) {
    expectZero(await guest.map(name), 'DMA_MAP')
    maps.add(name)
    for (const queue of guest.queues.values()) queue.useRom = true
  },
})

const unmap = (name: MapName): Step => ({
  name: `DMA_UNMAP ${name}`,
  async run({ guest, maps }) {
    for (const queue of guest.queues.values()) queue.useRom = false
    expectZero(await guest.unmap(name), 'DMA_UNMAP')
    maps.delete(name)
  },
})

const peerComes = (id: number, kind: string): Step => ({
  name: `a peer comes: ${kind}`,
  run: (rig) => rig.connectPeer(id),
})

const peerLeaves = (id: number, kind: string): Step => ({
  name: `a peer leaves: ${kind}`,
  run: (rig) => rig.disconnectPeer(id),
})

const bytes = (id: number, kind: string, len: number): Step[] => [
  {
    name: `${len} bytes to the guest: ${kind}`,
    repeats: `${len} to the guest ${kind}`,
    run: (rig) => hostToGuest(rig, id, len),
  },
  {
    name: `${len} bytes to the host: ${kind}`,
    repeats: `${len} to the host ${kind}`,
    run: (rig) => guestToHost(rig, id, len),
  },
]

/** From a device that was reset to ports that are open. */
const driverComesUp = (how: string, sparse?: number): Step[] => {
  const step = (name: string, run: Step['run'], other = sparse): Step => ({
    name: `${name}${how}`,
    run,
    ...(other === undefined ? {} : { sparse: other }),
  })
  return [
    step('features', ({ driver }) => driver.negotiate()),
    step('control queues are enabled', async ({ driver }) => {
      await driver.enableQueue(CONTROL_RECEIVEQ)
      await driver.enableQueue(CONTROL_TRANSMITQ)
    }),
    step(
      'data queues are enabled',
      async ({ driver }) => {
        for (const index of DATA_QUEUES) await driver.enableQueue(index)
      },
      sparse ?? 11,
    ),
    step('DRIVER_OK', ({ driver }) => driver.start()),
    step('the guest hears of its ports', async (rig) => {
      const { driver, ports } = rig
      driver.askForPorts()
      const known = (): boolean =>
        driver.quiet &&
        [...ports.values()].every(({ id, name, console, openForGuest }) => {
          const port = driver.ports.get(id)
          return port?.name === name && port.console === console && port.hostOpen === openForGuest
        })
      await rig.until(known, 'the guest hears of its ports')
    }),
    step('programs open the ports', async (rig) => {
      for (const id of rig.ports.keys()) rig.driver.open(id, true)
      await rig.until(() => rig.driver.quiet, 'PORT_OPEN is taken')
    }),
  ]
}

/** Steps that lead back to where the first began. */
function together(repeats: string, steps: readonly Step[]): Step[] {
  return steps.map((step) => ({ ...step, repeats }))
}

const vmmComes: Step[] = [
  {
    name: 'a VMM attaches',
    async run(rig) {
      await rig.guest.connect(rig.vfioSocket)
      rig.attached = true
    },
  },
  {
    name: 'the VMM asks what it is',
    async run({ guest }) {
      const argsz = (size: number, ...words: number[]): Buffer =>
        Buffer.from(
          new Uint32Array([size, 0, ...words, ...Array.from({ length: size / 4 - 2 - words.length }, () => 0)]).buffer,
        )
      expectZero(await guest.vmm.errno(4, argsz(16)), 'DEVICE_GET_INFO')
      expectZero(await guest.vmm.errno(5, argsz(32, 4)), 'DEVICE_GET_REGION_INFO')
      expectZero(await guest.vmm.errno(7, argsz(16, 2)), 'DEVICE_GET_IRQ_INFO')
      await guest.configSpace()
    },
  },
  map('low'),
  map('high'),
  map('rom'),
  { name: 'DEVICE_SET_IRQS', run: ({ guest }) => guest.connectInterrupts() },
  { name: 'COMMAND and MSI-X', run: ({ guest }) => guest.enableFunction() },
]

export const LIFE: readonly Step[] = [
  ...vmmComes,
  ...driverComesUp(''),
  peerComes(UNIX, 'unix'),
  peerComes(TCP, 'tcp'),
  peerComes(PTY, 'pty'),
  peerComes(ATTACH, 'attach'),
  peerComes(CONSOLE, 'console'),
  ...bytes(UNIX, 'unix', SMALL),
  ...bytes(TCP, 'tcp', SMALL),
  ...bytes(PIPE, 'pipe', SMALL),
  ...bytes(PTY, 'pty', SMALL),
  ...bytes(ATTACH, 'attach', SMALL),
  ...bytes(CONSOLE, 'console', SMALL),
  ...bytes(UNIX, 'unix', LARGE),
  ...bytes(TCP, 'tcp', LARGE),
  ...bytes(PIPE, 'pipe', LARGE),
  {
    name: 'both ways at once: unix, tcp and attach',
    repeats: 'step 1',
    async run(rig) {
      const ports = [UNIX, TCP, ATTACH]
      await Promise.all(ports.flatMap((id) => [hostToGuest(rig, id, LARGE), guestToHost(rig, id, LARGE)]))
    },
  },
  {
    name: 'a peer that does not read, then does: unix',
    sparse: 3,
    repeats: 'step 2',
    async run(rig) {
      const peer = rig.port(UNIX).peer!
      peer.reading(false)
      const sent = guestToHost(rig, UNIX, BULK)
      sent.catch(() => {})
      await new Promise((resolve) => setTimeout(resolve, 30))
      peer.reading(true)
      await sent
    },
  },
  {
    name: 'a process that takes over is killed',
    successor: true,
    repeats: 'step 3',
    async run(rig) {
      process.kill(rig.devicePid, 'SIGKILL')
    },
  },
  {
    name: 'a console is resized',
    repeats: 'step 4',
    async run(rig) {
      const { configInterrupts } = rig.guest
      const [cols, rows] = [80 + rig.random.below(100), 24 + rig.random.below(50)]
      await rig.control((client) => client.request('port.resize', { port: CONSOLE, cols, rows }))
      const size = Buffer.from(new Uint16Array([cols, rows]).buffer).toString('hex')
      await rig.until(() => rig.driver.ports.get(CONSOLE)?.size === size, 'the guest hears of the size')
      await rig.until(() => rig.guest.configInterrupts > configInterrupts, 'the interrupt for the configuration')
      const found = await rig.guest.read(0x2000, 4)
      if (found.toString('hex') !== size) throw new Error(`the configuration has the size ${found.toString('hex')}`)
    },
  },
  {
    name: 'a program closes its port while the host writes',
    repeats: 'step 5',
    async run(rig) {
      const { driver } = rig
      driver.open(UNIX, false)
      await rig.until(() => driver.quiet, 'PORT_OPEN 0 is taken')
      const sent = hostToGuest(rig, UNIX, SMALL)
      driver.open(UNIX, true)
      await sent
    },
  },
  ...together('peers', [
    peerLeaves(UNIX, 'unix'),
    peerComes(UNIX, 'unix, again'),
    peerLeaves(TCP, 'tcp'),
    peerComes(TCP, 'tcp, again'),
    peerLeaves(PTY, 'pty'),
    peerComes(PTY, 'pty, again'),
    peerLeaves(ATTACH, 'attach'),
    peerComes(ATTACH, 'attach, again'),
  ]),
  ...together('a port', [
    {
      name: 'a port is added',
      async run(rig) {
        const name = 'org.late'
        const spec = `unix:${join(rig.folder, `p${LATE}.sock`)},name=${name},nr=${LATE}`
        rig.places.delete(LATE)
        await rig.control(async (client) => {
          const ports = await client.request('port.list', {})
          if (!ports.some(({ port }) => port === LATE)) await client.request('port.add', { spec })
        })
        const port = { id: LATE, name, console: false, kind: 'unix' as const, lossy: false }
        rig.ports.set(LATE, {
          ...{ ...port, peer: undefined, connected: false },
          get openForGuest() {
            return this.connected
          },
        })
        await rig.until(() => rig.driver.ports.get(LATE)?.name === name, 'the guest hears of the port')
        rig.driver.open(LATE, true)
        await rig.until(() => rig.driver.quiet, 'PORT_OPEN is taken')
      },
    },
    peerComes(LATE, 'unix, of the added port'),
    ...bytes(LATE, 'the added port', SMALL),
    {
      name: 'a port is removed',
      async run(rig) {
        const { peer } = rig.port(LATE)
        await rig.control(async (client) => {
          const ports = await client.request('port.list', {})
          if (ports.some(({ port }) => port === LATE)) await client.request('port.remove', { port: LATE })
        })
        rig.ports.delete(LATE)
        await rig.until(() => !rig.driver.ports.has(LATE), 'the guest hears of the removal')
        await rig.until(() => peer!.gone, 'the peer is hung up on')
        peer!.close()
      },
    },
  ]),
  ...together('queues', [
    {
      name: 'queues of a port are reset',
      async run({ driver }) {
        for (const index of [receiveqOf(UNIX), transmitqOf(UNIX)]) {
          await driver.resetQueue(index)
          await driver.enableQueue(index)
        }
        driver.postBuffers(UNIX)
      },
    },
    ...bytes(UNIX, 'unix, after the reset of its queues', SMALL),
  ]),
  ...together('memory', [
    unmap('rom'),
    ...bytes(TCP, 'tcp, without the third region', SMALL),
    { ...map('rom'), name: 'DMA_MAP rom, again' },
  ]),
  { name: 'the driver resets the device', run: ({ driver }) => driver.reset() },
  ...driverComesUp(', again', 17),
  ...bytes(UNIX, 'unix, after the reset', SMALL),
  {
    name: 'DEVICE_RESET',
    async run({ guest, driver }) {
      expectZero(await guest.vmm.errno(13, Buffer.alloc(0)), 'DEVICE_RESET')
      driver.forget()
    },
  },
  { name: 'COMMAND and MSI-X, again', sparse: 0, run: ({ guest }) => guest.enableFunction() },
  ...driverComesUp(', the third time', 0),
  {
    name: 'the VMM leaves',
    async run(rig) {
      rig.guest.vmm.close()
      rig.attached = false
      rig.maps.clear()
      rig.driver.forget()
    },
  },
  { name: 'all peers leave', run: async (rig) => void (await Promise.all(PEERS.map((id) => rig.disconnectPeer(id)))) },
]

function expectZero(errno: number, what: string): void {
  if (errno !== 0) throw new Error(`${what}: errno ${errno}`)
}
