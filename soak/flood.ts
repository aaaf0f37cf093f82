/**
 * Flood and starvation, each on a real guest with 30 ports: what is held must stay in rings and sockets, other ports must
 * go on, and where nothing can move nothing may run. Called by main.ts (`npm run soak -- --flood`) and by a test.
 */

import { readFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { portNode } from '../lab/ports.ts'
import { vmtest } from '../lab/vmtest.ts'
import { until } from '../lab/wait.ts'
import { SoakRig } from './rig.ts'

const PORTS = 29
const GROWTH_MAX = 16 << 20
const SETTLE_MS = 1500
const WATCH_MS = 3000
const CONTROL_MESSAGES = 100_000
/** Without a single control message more in it. */
const STALL_MS = 30_000
/** Of one processor, while nothing can move. */
const IDLE_MAX = 0.02
const HZ = 100
/** Part of its speed that another port keeps, and how often it may be looked for. */
const OTHERS_MIN = 0.5
const TRIES = 3
const SPEED_BYTES = 48 << 20

export interface FloodResult {
  scene: string
  /** Bytes the device process has grown by, and the part of a processor it used while nothing could move. */
  grown: number
  busy: number | undefined
  /** Speed of another port meanwhile, as a part of its speed alone. */
  others: number | undefined
  status: 'pass' | 'fail'
  why: string
}

interface Scene {
  readonly name: string
  readonly idle: boolean
  /** It takes the guest's processor too, which is none of the device's doing: compare with a guest that is busy. */
  readonly busyGuest?: boolean
  /** Starts it; returns the way to end it. */
  start(rig: SoakRig): Promise<() => Promise<void>>
  /** Until it has come to what it should; default a moment. */
  settled?(rig: SoakRig): Promise<void>
}

const names = Array.from({ length: PORTS }, (_, i) => `flood.${i}`)
const OTHER = 'other'

const SCENES: readonly Scene[] = [
  {
    name: 'the guest writes to 29 ports, and their peers read nothing',
    idle: true,
    async start(rig) {
      const sockets = await Promise.all(names.map((name) => rig.peer(name)))
      for (const socket of sockets) socket.pause()
      const nodes = await Promise.all(names.map((name) => portNode(rig.machine, name, 30_000)))
      const jobs = nodes.map((node) => rig.machine.spawn(`cat /dev/zero > ${node}`))
      return async () => {
        for (const socket of sockets) socket.destroy()
        for (const job of jobs) job.kill(9)
        for (const job of jobs) await job.wait(60_000)
      }
    },
  },
  {
    name: 'the guest writes to 29 ports without any peer',
    idle: true,
    async start(rig) {
      const nodes = await Promise.all(names.map((name) => portNode(rig.machine, name, 30_000)))
      const jobs = nodes.map((node) => rig.machine.spawn(`cat /dev/zero > ${node}`))
      return async () => {
        for (const job of jobs) job.kill(9)
        for (const job of jobs) await job.wait(60_000)
      }
    },
  },
  {
    name: 'peers of 29 ports write, and nobody in the guest has them open',
    idle: true,
    start: (rig) => hostFlood(rig, undefined),
  },
  {
    name: 'peers of 29 ports write, and programs in the guest have them open and read nothing',
    idle: true,
    start: (rig) => hostFlood(rig, 'vmtest hold'),
  },
  {
    name: 'peers of 29 ports write, programs in the guest write to all of them, and nobody reads anything',
    idle: true,
    start: (rig) => hostFlood(rig, 'cat /dev/zero >'),
  },
  {
    name: 'a peer reads one byte a second while the guest writes to it',
    idle: false,
    async start(rig) {
      const socket = await rig.peer(names[0]!)
      const timer = setInterval(() => void socket.read(1), 1000)
      const job = rig.machine.spawn(`cat /dev/zero > ${await portNode(rig.machine, names[0]!, 30_000)}`)
      return async () => {
        clearInterval(timer)
        socket.destroy()
        job.kill(9)
        await job.wait(60_000)
      }
    },
  },
  {
    name: 'a guest program opens and closes a port as fast as it can: 100000 control messages',
    idle: false,
    busyGuest: true,
    async start(rig) {
      const node = await portNode(rig.machine, names[1]!, 30_000)
      const job = rig.machine.spawn(`while :; do vmtest storm ${node} 1000 > /dev/null; done`)
      return async () => {
        job.kill(9)
        await job.wait(60_000)
      }
    },
    settled: (rig) => controlMessages(rig, names[1]!),
  },
]

/** Each open and each close is one. */
async function controlMessages(rig: SoakRig, name: string): Promise<void> {
  const count = async (): Promise<number> => {
    const [stats] = await rig.ask((client) => client.request('port.stats', { port: name }))
    return stats!.counters.guestOpens + stats!.counters.guestCloses
  }
  const first = await count()
  let [last, since] = [first, performance.now()]
  while (last - first < CONTROL_MESSAGES) {
    if (performance.now() - since > STALL_MS) throw new Error(`${last - first} control messages, and no more`)
    await new Promise((resolve) => setTimeout(resolve, 250))
    const now = await count()
    if (now > last) [last, since] = [now, performance.now()]
  }
}

async function hostFlood(rig: SoakRig, program: string | undefined): Promise<() => Promise<void>> {
  const sockets = await Promise.all(names.map((name) => rig.peer(name)))
  const nodes = await Promise.all(names.map((name) => portNode(rig.machine, name, 30_000)))
  const jobs = program === undefined ? [] : nodes.map((node) => rig.machine.spawn(`${program} ${node}`))
  const chunk = Buffer.alloc(64 << 10, 'x')
  const push = (socket: Socket): void => {
    while (!socket.destroyed && socket.write(chunk));
  }
  for (const socket of sockets) {
    socket.on('drain', () => push(socket))
    push(socket)
  }
  return async () => {
    for (const socket of sockets) socket.destroy()
    for (const job of jobs) job.kill(9)
    for (const job of jobs) await job.wait(60_000)
    // What peers that left had written waits for the guest, as it should: it is read to its end.
    for (const node of nodes) await rig.machine.sh(`cat ${node} > /dev/null`, { timeout: 60_000 })
  }
}

/** Runs the scenes one after another; `speeds` off leaves out what depends on the time of day. */
export async function flood(options: {
  speeds: boolean
  /** Only scenes with this in their name. */
  only?: RegExp
  note(text: string): void
}): Promise<FloodResult[]> {
  const rig = await SoakRig.start([...names, OTHER])
  const results: FloodResult[] = []
  try {
    const other = await rig.peer(OTHER)
    other.resume()
    const node = await portNode(rig.machine, OTHER, 30_000)
    await speed(rig, node)
    for (const scene of SCENES) {
      if (options.only && !options.only.test(scene.name)) continue
      options.note(scene.name)
      // Just before the scene: a machine is not equally fast all the time.
      const alone = options.speeds ? await (scene.busyGuest ? besideLoop : speed)(rig, node) : undefined
      results.push(await play(rig, scene, alone, node))
    }
    return results
  } finally {
    await rig.close()
  }
}

async function play(rig: SoakRig, scene: Scene, alone: number | undefined, node: string): Promise<FloodResult> {
  const before = await rig.deviceState()
  const stop = await scene.start(rig)
  await (scene.settled?.(rig) ?? new Promise((resolve) => setTimeout(resolve, SETTLE_MS)))
  const busy = scene.idle ? await quietest(before.pid) : undefined
  const { rss, restarts } = await rig.deviceState()
  let others: number | undefined
  if (alone === undefined) await speed(rig, node)
  // Who is starved stays so: a slow moment of the machine passes.
  else
    for (let i = 0; i < TRIES && !((others ?? 0) >= OTHERS_MIN); i++)
      others = Math.max(others ?? 0, (await speed(rig, node)) / alone)
  await stop()
  const connected = async (): Promise<boolean> =>
    rig.ask(async (client) => {
      const ports = await client.request('port.list', {})
      return ports.every(({ name, hostConnected }) => name === OTHER || !hostConnected)
    })
  await until(connected, 'the peers of the flood are gone', 60_000)
  const grown = rss - before.rss
  const faults = [
    grown > GROWTH_MAX ? `grew by ${grown} bytes` : '',
    busy !== undefined && busy > IDLE_MAX
      ? `used ${(busy * 100).toFixed(1)} % of a processor while nothing could move`
      : '',
    others !== undefined && others < OTHERS_MIN ? `another port ran at ${others.toFixed(2)} of its speed` : '',
    restarts > before.restarts ? 'the device process died' : '',
  ].filter((text) => text !== '')
  return { scene: scene.name, grown, busy, others, status: faults.length > 0 ? 'fail' : 'pass', why: faults.join('; ') }
}

/** The part of a processor that a process uses; the least of a few looks, since starting takes a moment. */
async function quietest(pid: number): Promise<number> {
  let least = Infinity
  for (let i = 0; i < 5 && least > IDLE_MAX; i++) {
    const start = ticks(pid)
    await new Promise((resolve) => setTimeout(resolve, WATCH_MS))
    least = Math.min(least, (ticks(pid) - start) / HZ / (WATCH_MS / 1000))
  }
  return least
}

/** Processor time so far, in ticks. */
function ticks(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return Number(fields[11]) + Number(fields[12])
}

/** The same while another program of the guest does nothing but run. */
async function besideLoop(rig: SoakRig, node: string): Promise<number> {
  const loop = rig.machine.spawn('while :; do /bin/true; done')
  const result = await speed(rig, node)
  loop.kill(9)
  await loop.wait(60_000)
  return result
}

/** Bytes a nanosecond of a guest program that writes to a peer that reads. */
async function speed(rig: SoakRig, node: string): Promise<number> {
  const { bytes, ns } = await vmtest(rig.machine, 'source', [node, SPEED_BYTES, 32_768, 1, '--no-hash'], 120_000)
  return bytes / ns
}
