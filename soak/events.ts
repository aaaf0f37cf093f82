/** What happens meanwhile: each event does something to the machine and checks what it should have come to. */

import { connect } from 'node:net'
import { Pattern } from '../lab/pattern.ts'
import { portNode } from '../lab/ports.ts'
import { vmtest } from '../lab/vmtest.ts'
import { until } from '../lab/wait.ts'
import type { Random } from '../fuzz/random.ts'
import type { SoakRig } from './rig.ts'
import { transfer } from './transfer.ts'

const NODE_MS = 30_000

export interface SoakEvent {
  readonly name: string
  /** Whether no transfer may run meanwhile. */
  readonly alone?: boolean
  run(rig: SoakRig, r: Random): Promise<void>
}

/** The port whose peers come and go. */
export const CUT_PORT = 'cut'

export const EVENTS: readonly SoakEvent[] = [
  {
    name: 'peer leaves in the middle',
    async run(rig, r) {
      const socket = await rig.peer(CUT_PORT)
      const node = await portNode(rig.machine, CUT_PORT, NODE_MS)
      const bytes = 100_000 + r.below(1 << 20)
      const stop = 1 + r.below(bytes)
      const pattern = new Pattern(5)
      let got = 0
      let wrong = false
      socket.on('data', (chunk: Buffer) => {
        if (!pattern.take(chunk.length).equals(chunk)) wrong = true
        got += chunk.length
        if (got >= stop) socket.destroy()
      })
      const gone = new Promise<void>((resolve) => void socket.once('close', () => resolve()))
      // Linux lets a writer wait for the next host once it has heard that there is none.
      const job = rig.machine.spawn(`vmtest source ${node} ${bytes} 8192 5`)
      await gone
      job.kill(9)
      await job.wait(60_000)
      if (wrong) throw new Error('a peer that left had wrong bytes')
    },
  },
  {
    name: 'port comes and goes',
    async run(rig, r) {
      const name = `hot.${r.below(1000)}`
      await rig.ask((client) => client.request('port.add', { spec: `unix:${rig.socket(name)},name=${name}` }))
      const node = await portNode(rig.machine, name, NODE_MS)
      const socket = await rig.peer(name)
      await until(
        async () => (await vmtest(rig.machine, 'poll', [node, 0])).revents.every((e) => e !== 'HUP'),
        'the guest has heard of the peer',
      )
      await transfer(rig, r, node, socket)
      if (r.chance(50)) socket.destroy()
      await rig.ask((client) => client.request('port.remove', { port: name }))
      await until(
        async () => (await rig.machine.run(`test -e ${node}`)).status !== 0,
        `${name} has gone from the guest`,
      )
      socket.destroy()
    },
  },
  {
    name: 'open and close storm',
    async run(rig) {
      const node = await portNode(rig.machine, 'storm', NODE_MS)
      const { failed, errno } = await vmtest(rig.machine, 'storm', [node, 100], 120_000)
      if (failed > 0) throw new Error(`${failed} opens failed: ${errno}`)
    },
  },
  {
    name: 'connect storm',
    async run(rig) {
      for (let i = 0; i < 30; i++) {
        const socket = connect(rig.socket('storm'))
        const refused = await new Promise<string | undefined>((resolve) => {
          socket
            .once('connect', () => resolve(undefined))
            .once('error', (error: NodeJS.ErrnoException) => resolve(error.code))
        })
        // One peer at a time, a few may wait: whoever comes when there is no room has to come again.
        if (refused === 'EAGAIN') await new Promise((resolve) => setTimeout(resolve, 20))
        else if (refused !== undefined) throw new Error(`a peer was refused: ${refused}`)
        socket.end('x')
        socket.destroy()
      }
    },
  },
  {
    name: 'stop and cont',
    async run(rig, r) {
      await rig.machine.qmp('stop')
      await new Promise((resolve) => setTimeout(resolve, 50 + r.below(500)))
      await rig.machine.qmp('cont')
    },
  },
  {
    name: 'memory pressure',
    async run(rig, r) {
      await rig.machine.sh(
        `dd if=/dev/zero of=/tmp/hog bs=1M count=${60 + r.below(60)} 2>/dev/null; rm -f /tmp/hog; echo 3 > /proc/sys/vm/drop_caches`,
        { timeout: 60_000 },
      )
    },
  },
  {
    name: 'device killed',
    async run(rig) {
      const { pid, restarts } = await rig.deviceState()
      process.kill(pid, 'SIGKILL')
      const again = async (): Promise<boolean> =>
        (await rig.deviceState().catch(() => undefined))?.restarts === restarts + 1
      await until(again, 'a successor of the device process')
    },
  },
  {
    name: 'guest reboots',
    alone: true,
    async run(rig) {
      await rig.machine.reset()
    },
  },
]
