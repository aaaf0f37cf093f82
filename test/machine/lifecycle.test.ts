/**
 * Everything that happens to a whole guest, with peers present and absent, and coming and leaving meanwhile: afterwards
 * the ports work, under their names, and both sides know who is there. One guest for all of it. Needs the build.
 *
 * Here: stop and cont, suspend, unbinding, reboot, hibernation. Elsewhere: rmmod with bytes under way (linux.test.ts),
 * ports that go and come during a suspend (variants.test.ts), migrate, savevm, device_del (cli/qemu.test.ts).
 */
import { once } from 'node:events'
import { truncateSync, writeFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { ensureKernel, VIRTIO_MODULES } from '../../lab/fetch/kernel.ts'
import { ensureQemu } from '../../lab/fetch/qemu.ts'
import { Machine } from '../../lab/machine.ts'
import { portNode } from '../../lab/ports.ts'
import { startVmtest, vmtest } from '../../lab/vmtest.ts'
import { ControlClient } from '../../src/client/control-client.ts'
import { startDevice, type StartedDevice } from '../../src/client/start.ts'
import type { PortInfo } from '../../src/daemon/protocol.ts'
import { TempDir } from '../daemon/temp-dir.ts'
import { readBytes, until } from './rig.ts'

/** What becomes of the host peer of each port during an operation. */
const PORTS = ['stays', 'absent', 'leaves', 'comes'] as const
type Name = (typeof PORTS)[number]
const NODE_MS = 30_000
/** What the agent of lab/agent.ts takes for a new start: the one that was hibernated says it when it is back. */
const AGENT_STARTS = "printf '\\001\\376vmchannel-agent\\375\\002' > /dev/ttyS1"
/** A kernel that finds no image there goes on. */
const RESUME = '[ -e /sys/block/vda/dev ] && cat /sys/block/vda/dev > /sys/power/resume\n'

describe('a whole guest', () => {
  const temp = new TempDir()
  const disk = join(temp.path, 'swap')
  const peers = new Map<Name, Socket>()
  let device: StartedDevice
  let machine: Machine
  let control: ControlClient

  const boot = async (): Promise<Machine> => {
    const [qemu, kernel] = [await ensureQemu(), await ensureKernel('6.1')]
    return Machine.boot({
      qemu: qemu.path,
      kernel,
      machineType: 'q35,memory-backend=mem',
      guest: { modules: [...VIRTIO_MODULES, 'virtio_blk'], init: RESUME },
      args: [
        ...['-object', 'memory-backend-memfd,id=mem,size=256M,share=on', ...device.vms[0]!.qemuArgs],
        ...['-drive', `file=${disk},format=raw,if=none,id=swap`, '-device', 'virtio-blk-pci,drive=swap'],
      ],
    })
  }

  beforeAll(async () => {
    writeFileSync(disk, '')
    truncateSync(disk, 512 << 20)
    device = await startDevice(
      {
        stateDir: join(temp.path, 'state'),
        vms: [{ ports: PORTS.map((name) => `unix:${temp.path}/${name}.sock,name=${name}`) }],
        exitWith: 'parent',
        logLevel: 'error',
      },
      { detached: true },
    )
    control = await ControlClient.connect(device.controlSocket)
    machine = await boot()
  })
  afterEach(async () => {
    for (const name of peers.keys()) await leave(name)
  })
  afterAll(async () => {
    await machine?.close()
    control?.close()
    device?.stdin.end()
    if (device?.process.exitCode === null) await once(device.process, 'exit')
    temp.remove()
  })

  const port = async (name: Name): Promise<PortInfo> =>
    (await control.request('port.list', {})).find((one) => one.name === name)!
  const started = async (): Promise<boolean> => (await control.request('vm.list', {}))[0]!.started
  const node = (name: Name): Promise<string> => portNode(machine, name, NODE_MS)

  async function arrive(name: Name): Promise<void> {
    const socket = connect({ path: join(temp.path, `${name}.sock`), allowHalfOpen: true })
    socket.on('error', () => {})
    await once(socket, 'connect')
    peers.set(name, socket)
    await until(async () => (await port(name)).hostConnected, `${name}: the device sees its peer`)
  }

  async function leave(name: Name): Promise<void> {
    peers.get(name)!.destroy()
    peers.delete(name)
    await until(async () => !(await port(name)).hostConnected, `${name}: the device sees its peer leave`)
  }

  async function exchange(name: Name, text: string): Promise<void> {
    const socket = peers.get(name)!
    const [up, path] = [readBytes(socket, text.length + 1), await node(name)]
    await machine.sh(`echo ${text} > ${path}`)
    expect(String(await up)).toBe(`${text}\n`)
    socket.write(`${text}\n`)
    expect(await machine.sh(`head -n1 < ${path}`)).toBe(text)
  }

  const OPERATIONS: {
    what: string
    /** Whether programs in the guest live through it, with their ports open. */
    keeps: boolean
    run: (meanwhile: () => Promise<void>) => Promise<void>
  }[] = [
    {
      what: 'stop and cont',
      keeps: true,
      async run(meanwhile) {
        await machine.qmp('stop')
        await meanwhile()
        await machine.qmp('cont')
      },
    },
    {
      what: 'suspended to memory and woken up',
      keeps: true,
      async run(meanwhile) {
        const sleep = machine.spawn('echo mem > /sys/power/state')
        const asleep = async (): Promise<boolean> =>
          ((await machine.qmp('query-status')) as { status: string }).status === 'suspended'
        await until(asleep, 'S3')
        expect(await started()).toBe(false)
        await meanwhile()
        await machine.qmp('system_wakeup')
        expect((await sleep.wait()).status).toBe(0)
      },
    },
    {
      what: 'the driver let go of the device, its ports open, and took it again',
      keeps: false,
      async run(meanwhile) {
        const driver = '/sys/bus/virtio/drivers/virtio_console'
        const name = await machine.sh(`cd ${driver} && ls -d virtio*`)
        await machine.sh(`echo ${name} > ${driver}/unbind`)
        expect(await started()).toBe(false)
        await meanwhile()
        await machine.sh('killall vmtest')
        await machine.sh(`echo ${name} > ${driver}/bind`)
      },
    },
    {
      what: 'reset',
      keeps: false,
      async run(meanwhile) {
        const again = machine.reset()
        await until(async () => !(await started()), 'the device is reset')
        await meanwhile()
        await again
      },
    },
    {
      what: 'hibernated, its QEMU ended, and another QEMU woke it up',
      keeps: true,
      async run(meanwhile) {
        await machine.sh('mkswap /dev/vda && swapon /dev/vda')
        // Not through the agent alone: its last words would be lost with the machine.
        machine.spawn(`(echo shutdown > /sys/power/disk; echo disk > /sys/power/state; ${AGENT_STARTS}) 2>&1`)
        await Promise.race([machine.exited(), machine.waitForText(/PM: Image saving done/, 90_000)])
        await machine.exited()
        await machine.close()
        await until(async () => !(await started()), 'the VMM has gone')
        await meanwhile()
        machine = await boot()
        expect(machine.log).toMatch(/Image loading done/)
        expect(await machine.sh('grep -c . /proc/swaps')).toBe('2')
        await machine.sh('swapoff /dev/vda')
      },
    },
  ]

  it.each(OPERATIONS)(
    '$what: ports, names and open state are right',
    async ({ keeps, run, what }) => {
      await arrive('stays')
      await arrive('leaves')
      for (const name of PORTS) await startVmtest(machine, 'hold', [await node(name), 600_000])
      for (const name of PORTS) expect((await port(name)).guestOpen, name).toBe(true)
      await run(async () => {
        await leave('leaves')
        await arrive('comes')
      })
      await until(started, 'the driver runs the device')
      for (const name of PORTS) {
        await node(name)
        await until(async () => (await port(name)).guestReady, `${name}: the port is ready`)
        await until(
          async () => (await port(name)).guestOpen === keeps,
          `${name}: the guest has it ${keeps ? 'open' : 'closed'}`,
        )
      }
      if (keeps) await machine.sh('killall vmtest')
      for (const name of PORTS) {
        await until(async () => !(await port(name)).guestOpen, `${name}: nobody has it open`)
        const present = peers.has(name)
        const right = async (): Promise<boolean> =>
          (await vmtest(machine, 'poll', [await node(name), 0])).revents.includes('HUP') !== present
        await until(right, `${name}: the guest knows that its peer ${present ? 'is there' : 'is away'}`)
      }
      for (const name of PORTS) {
        if (!peers.has(name)) await arrive(name)
        await exchange(name, `after ${what}`)
        await leave(name)
      }
      expect(machine.log).not.toMatch(/BUG:|soft lockup|nobody cared/)
    },
    240_000,
  )
})
