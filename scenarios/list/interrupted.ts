/** A transfer host → guest → host that goes on while something happens to its ports or to the whole machine. */
import type { Job } from '../../lab/agent.ts'
import { until } from '../../lab/wait.ts'
import { NumberedTransfer } from '../numbered.ts'
import { check, NotHere, same, type Scenario } from '../scenario.ts'
import { bye, pause, type Port, type Side } from '../side.ts'

/**
 * Bytes that may be lost with a port that goes: those under way. The field's tests accept this many where peers leave,
 * 1000 for a port that is unplugged; how much is under way is a matter of the machine's load. What is sent once all is
 * in its place again must arrive whole.
 */
const LOSS = 100_000
/** The field's programs move 7 bytes at a time. */
const GUEST_BLOCK = 7
const READY_MS = 90_000
/** To write the memory to a disk, boot, and read it. */
const HIBERNATE_MS = 240_000

interface Running {
  side: Side
  from: Port
  to: Port
  loop: Job
  transfer: NumberedTransfer
  /** Peers that may be replaced. */
  send(): Promise<void>
  receive(): Promise<void>
  hangUp(which: 'from' | 'to'): Promise<void>
}

export const INTERRUPTED: readonly Scenario[] = [
  {
    id: 'interrupt.stop',
    title: 'the machine is stopped and goes on, 10 times: nothing is lost',
    field: 'interrupted_transfer.stop_cont',
    short: true,
    run: (side) =>
      interrupted(side, 10, 0, async () => {
        await side.machine.qmp('stop')
        await pause(20)
        await side.machine.qmp('cont')
      }),
  },
  {
    id: 'interrupt.host',
    title: 'host peers leave in the middle and come back, either and both, 9 times',
    field: 'interrupted_transfer.port_disconnect',
    run: (side) =>
      interrupted(side, 9, LOSS, async (running, round) => {
        if (round % 3 !== 1) await running.hangUp('from')
        if (round % 3 !== 2) await running.hangUp('to')
        if (round % 3 !== 2) await running.receive()
        if (round % 3 !== 1) await running.send()
      }),
  },
  {
    id: 'interrupt.guest',
    title: "the guest's program is killed in the middle and starts again, 5 times",
    field: 'interrupted_transfer.port_disconnect',
    short: true,
    run: (side) =>
      interrupted(side, 5, LOSS, async (running) => {
        running.loop.kill(9)
        await running.loop.wait()
        running.loop = await startLoop(side, running.from, running.to)
      }),
  },
  ...(
    [
      ['recv', 'receiving', (running) => [running.to]],
      ['send', 'sending', (running) => [running.from]],
      ['both', 'receiving, then the sending', (running) => [running.to, running.from]],
    ] as [string, string, (running: Running) => Port[]][]
  ).map(([word, which, pick]): Scenario => ({
    id: `interrupt.replug.${word}`,
    title: `the ${which} port is unplugged in the middle and plugged again, 5 times`,
    field: `interrupted_transfer.replug_${word === 'both' ? 'random' : word}`,
    short: word === 'both',
    run: (side) =>
      interrupted(side, word === 'both' ? 2 : 5, LOSS, async (running) => {
        for (const port of pick(running)) {
          await running.hangUp(port === running.from ? 'from' : 'to')
          await side.unplug(port)
          const again = await side.plug({ name: port.name, id: Number(/p(\d+)$/.exec(port.node)![1]) })
          same(again.node, port.node, 'the port that came back')
          await (port === running.from ? running.send() : running.receive())
        }
      }),
  })),
  {
    id: 'interrupt.suspend',
    title: 'the guest suspends to memory in the middle and wakes up',
    field: 'interrupted_transfer.suspend',
    // The next time QEMU's machine does not go to sleep, whatever is plugged in.
    spoils: true,
    run: (side) =>
      interrupted(side, 1, LOSS, async () => {
        if (!(await side.machine.sh('cat /sys/power/state')).includes('mem'))
          throw new NotHere('this guest cannot suspend to memory')
        const asleep = side.machine.client.nextEvent('SUSPEND', READY_MS)
        const sleep = side.spawn('echo mem > /sys/power/state')
        await asleep
        // It may have been woken up by something else meanwhile.
        const { status } = (await side.machine.qmp('query-status')) as { status: string }
        if (status === 'suspended') await side.machine.qmp('system_wakeup')
        same((await sleep.wait(READY_MS)).status, 0, 'the suspension')
      }),
  },
  {
    id: 'interrupt.hibernate',
    title: 'the guest suspends to disk in the middle and comes back',
    field: 'interrupted_transfer.hibernate',
    spoils: true,
    run: (side) =>
      interrupted(side, 1, LOSS, async () => {
        const { machine } = side
        const kinds = await machine.sh('cat /sys/power/state')
        if (!kinds.includes('disk')) throw new NotHere(`this kernel cannot hibernate (/sys/power/state: ${kinds})`)
        await machine.sh('mkswap /dev/vda && swapon /dev/vda && echo reboot > /sys/power/disk')
        const { starts } = machine
        const sleep = side.spawn('echo disk > /sys/power/state')
        same((await sleep.wait(HIBERNATE_MS)).status, 0, 'the suspension')
        same(machine.starts, starts, 'starts of the machine: it came back as a new one')
        await machine.sh('swapoff /dev/vda')
      }),
  },
  {
    id: 'restart.stressed',
    title: 'the machine restarts in the middle of transfers both ways; its ports work afterwards',
    field: 'restart.stressed',
    short: true,
    async run(side) {
      const port = await side.plug()
      const other = await side.plug()
      const [peer, loud] = [await port.connect(), await other.connect()]
      let got = 0
      peer.on('data', (chunk: Buffer) => (got += chunk.length))
      side.machine.spawn(`vmtest source ${port.node} 1g 32k 1 --no-hash`)
      side.machine.spawn(`cat ${other.node} > /dev/null`)
      const noise = setInterval(() => loud.writableLength < 65_536 && loud.write(Buffer.alloc(65_536)), 2)
      try {
        await until(() => got > 1 << 20, 'the transfer is under way')
        await side.machine.reset()
      } finally {
        clearInterval(noise)
      }
      await bye(peer)
      await bye(loud)
      const again = await side.again(port)
      await again.talk()
      await (await side.again(other)).talk()
    },
  },
  {
    id: 'restart.unplugged',
    title: 'ports are unplugged, the machine restarts without them, they are plugged again and work',
    field: 'restart.unplugged_ports',
    async run(side) {
      const ports = [await side.plug(), await side.plug()]
      for (const port of ports) await side.unplug(port)
      await side.machine.reset()
      for (const { name } of ports) await (await side.plug({ name })).talk()
    },
  },
  {
    id: 'rmmod',
    title: "the guest's driver is removed in the middle of a transfer and inserted again",
    field: 'with_vm.rmmod',
    short: true,
    async run(side) {
      const port = await side.plug()
      const peer = await port.connect()
      let got = 0
      peer.on('data', (chunk: Buffer) => (got += chunk.length))
      const writer = side.spawn(`vmtest source ${port.node} 1g 4k 1 --no-hash`)
      await until(() => got > 1 << 18, 'the transfer is under way')
      const driver = '/sys/bus/virtio/drivers/virtio_console'
      const place = (await side.machine.sh(`basename /sys/bus/pci/devices/${side.bdf}/virtio*`)).trim()
      // A port that is open keeps the module; unbinding takes it from the device all the same.
      await side.machine.sh(`echo ${place} > ${driver}/unbind`, { timeout: READY_MS })
      check((await writer.wait(READY_MS)).status !== 0, 'the writer went on without a driver')
      await side.machine.sh(`echo ${place} > ${driver}/bind`)
      await bye(peer)
      await (await side.again(port)).talk()
      if ((await side.machine.run('grep -q ^virtio_console /proc/modules')).status !== 0)
        return 'the driver is built into this kernel: taken from the device and given back'
      // Now for everybody: the devices of other sides lose their driver too.
      await side.machine.sh('rmmod virtio_console && insmod /modules/virtio_console.ko', { timeout: READY_MS })
      await (await side.again(port)).talk()
    },
  },
]

async function startLoop(side: Side, from: Port, to: Port): Promise<Job> {
  const loop = side.spawn(`vmtest loop --again 0 ${GUEST_BLOCK} ${from.node} ${to.node}`)
  await loop.waitForOutput(/^ready\n/, READY_MS)
  return loop
}

async function interrupted(
  side: Side,
  times: number,
  acceptable: number,
  interrupt: (running: Running, round: number) => Promise<void>,
): Promise<string> {
  const [from, to] = [await side.plug(), await side.plug()]
  const [source, sink] = [await from.connect(), await to.connect()]
  const transfer = new NumberedTransfer(source, sink)
  const peers = { from: source, to: sink }
  const running: Running = {
    ...{ side, from, to, transfer, loop: await startLoop(side, from, to) },
    async send() {
      transfer.sendBy((peers.from = await side.peer(from.name)))
    },
    async receive() {
      transfer.receiveBy((peers.to = await side.peer(to.name)))
    },
    async hangUp(which) {
      if (which === 'from') transfer.sendBy(undefined)
      await bye(peers[which])
    },
  }
  try {
    await transfer.goesOn()
    const losses: number[] = []
    for (let round = 0; round < times; round++) {
      await interrupt(running, round)
      losses.push(await transfer.goesOn())
    }
    const worst = Math.max(...losses)
    const said = `at most ${worst} bytes lost an interruption (${losses.join(' ')})`
    check(worst <= acceptable, `${said}, ${acceptable} would be all right`)
    return acceptable === 0 ? `nothing lost in ${times}` : said
  } finally {
    transfer.stop()
  }
}
