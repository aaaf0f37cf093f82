/** -virtioserial on a QEMU without vfio-user-pci and on one with it, by each transport, with a stock guest. */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ensureOldQemu } from '../../lab/fetch/old-qemu.ts'
import { ensureQemu } from '../../lab/fetch/qemu.ts'
import type { Machine } from '../../lab/machine.ts'
import { ControlClient } from '../../src/client/control-client.ts'
import { installerScript } from '../../src/udev/installer.ts'
import { codeDisk, GUEST_COMMAND, nodeGuest, type CodeDisk } from '../../lab/guest-image.ts'
import type { PortInfo } from '../../src/daemon/protocol.ts'
import { heldUpAlone, movesBytes, NAMES, opensAndCloses, TransportRig } from './transports.ts'
import { readBytes, until } from './rig.ts'

const guest = { files: { '/root/install.sh': { text: installerScript(true) } } }
const prepare = (machine: Machine): Promise<string> => machine.sh('sh /root/install.sh; mdev -d')

describe.each([
  {
    title: 'QEMU 7.2, auto',
    old: true,
    words: '',
    warned: /^vmchannel: warning: QEMU 7\.2\.\d+ at .* is too old.*own/,
  },
  { title: 'QEMU 11.1, qemu', old: false, words: ',transport=qemu', warned: undefined },
])('$title', ({ old, words, warned }) => {
  let rig: TransportRig
  beforeAll(async () => {
    const qemu = (old ? await ensureOldQemu() : await ensureQemu()).path
    rig = await TransportRig.start({ qemu, words, guest, prepare, args: ['-virtioserial', `pty,console=on${words}`] })
  })
  afterAll(() => rig?.close())

  it('says what it chose', () => {
    const lines = rig.machine.stderr.split('\n').filter((line) => line.startsWith('vmchannel'))
    if (warned) expect(lines).toEqual([expect.stringMatching(warned)])
    else expect(lines).toEqual([])
  })

  it('has the same names, numbers and nodes', async () => {
    const names = await rig.machine.sh(
      'cd /sys/class/virtio-ports; for p in *; do echo $p $(cat $p/name 2>/dev/null); done',
    )
    expect(names.replaceAll(/vport\d+/g, 'vport')).toBe(`vportp0\nvportp1 ${NAMES[0]}\nvportp2 ${NAMES[1]}`)
    expect(await rig.machine.sh('ls /dev | grep vmch')).toBe('vmch0\nvmch1')
  })

  it('moves bytes both ways through both ports', () => movesBytes(rig))
  it('opens and closes', () => opensAndCloses(rig))
  it('holds up a writer whose host does not read, and nobody else', () => heldUpAlone(rig))
  it('does so after a reboot', async () => {
    await rig.reboot()
    await movesBytes(rig)
  })
})

describe.each([
  { title: 'QEMU 7.2, usernet', old: true },
  { title: 'QEMU 11.1, usernet', old: false },
])('$title', ({ old }) => {
  const words = ',transport=usernet'
  let rig: TransportRig
  let disk: CodeDisk

  /** The guest end runs on; its first line says that the ports come. */
  const connected = async (machine: Machine): Promise<void> => {
    await machine.sh(
      'ip link set eth0 up; ip addr show dev eth0 | grep -q 10.118 || ip addr add 10.118.109.15/24 dev eth0',
    )
    const job = machine.spawn(`exec ${GUEST_COMMAND} --usernet`)
    await job.waitForOutput(/ports at most/, 60_000)
  }

  beforeAll(async () => {
    const qemu = (old ? await ensureOldQemu() : await ensureQemu()).path
    disk = await codeDisk()
    rig = await TransportRig.start({
      qemu,
      words,
      args: [...disk.args, '-virtioserial', `pty,console=on${words}`],
      guest: await nodeGuest({ modules: ['virtio_net'] }),
      memory: '1G',
      cpus: 2,
      prepare: async (machine) => {
        if (machine.starts === 1) {
          const { status, output } = await machine.run(`${GUEST_COMMAND} --usernet`, { timeout: 60_000 })
          expect(status).toBe(5)
          expect(output).toContain('ip link set eth0 up && ip addr add 10.118.109.15/24 dev eth0')
        }
        await connected(machine)
      },
    })
  })
  afterAll(async () => {
    await rig?.close()
    disk?.remove()
  })

  it('has the same names and nodes', async () => {
    await rig.machine.sh('for i in $(seq 500); do [ -c /dev/vmch1 ] && exit 0; usleep 20000; done; exit 1')
    expect(await rig.machine.sh('ls /dev | grep vmch')).toBe('vmch0\nvmch1')
    const links = await rig.machine.sh('cd /dev/virtio-ports; for l in *; do echo $l $(readlink $l); done')
    expect(links).toBe(`${NAMES[0]} ../vmch0\n${NAMES[1]} ../vmch1`)
  })

  it('moves bytes both ways through both ports', () => movesBytes(rig), 240_000)
  it('opens and closes', () => opensAndCloses(rig), 120_000)
  it('holds up a writer whose host does not read, and nobody else', () => heldUpAlone(rig), 240_000)

  it('is seen by the commands, and takes ports while it runs', async () => {
    const list = async (): Promise<PortInfo[]> =>
      JSON.parse((await rig.bench.run(['port', 'list', '--json'])).stdout) as PortInfo[]
    expect((await list()).map(({ port, name, guestReady }) => [port, name, guestReady])).toEqual([
      [0, null, true],
      [1, NAMES[0], true],
      [2, NAMES[1], true],
    ])
    const path = rig.path('late')
    expect((await rig.bench.run(['port', 'add', `unix:${path},name=late`])).status).toBe(0)
    await rig.machine.sh('for i in $(seq 500); do [ -e /dev/virtio-ports/late ] && exit 0; usleep 20000; done; exit 1')
    const peer = await rig.connect('late')
    const heard = readBytes(peer, 3)
    await rig.machine.sh('echo hi >/dev/virtio-ports/late')
    expect((await heard).toString()).toBe('hi\n')
    expect((await rig.bench.run(['port', 'remove', 'late'])).status).toBe(0)
    await rig.machine.sh('for i in $(seq 500); do [ -e /dev/vmch2 ] || exit 0; usleep 20000; done; exit 1')
    const { stdout } = await rig.bench.run(['port', 'stats', NAMES[0], '--json'])
    const [stats] = JSON.parse(stdout) as { counters: { guestToHostBytes: number } }[]
    expect(stats!.counters.guestToHostBytes).toBeGreaterThan(1 << 20)
  })

  it('goes on after a reboot in the middle of writing', async ({ skip }) => {
    skip(!old, 'asked of QEMU 7.2: each new start of a guest end takes its seconds')
    const peer = await rig.connect(NAMES[0])
    peer.resume()
    rig.machine.spawn('dd if=/dev/zero of=/dev/vmch0 bs=64k')
    await until(() => peer.bytesRead > 1 << 20, 'it writes')
    await rig.reboot()
    await movesBytes(rig)
  }, 240_000)

  it('goes on after the device process was killed: the ports come back', async ({ skip }) => {
    skip(old, 'asked of QEMU 11.1: each new start of a guest end takes its seconds')
    const control = join(rig.bench.state, readdirSync(rig.bench.state)[0]!, 'control.sock')
    const ask = async <T>(work: (client: ControlClient) => Promise<T>): Promise<T> => {
      const client = await ControlClient.connect(control)
      try {
        return await work(client)
      } finally {
        client.close()
      }
    }
    process.kill((await ask(async ({ hello }) => hello)).devicePid!, 'SIGKILL')
    const back = async (): Promise<boolean> =>
      ask(async (client) => {
        const ports = await client.request('port.list', {})
        return client.hello.restarts === 1 && ports.every(({ guestReady }) => guestReady)
      })
    await until(back, 'the guest end has started anew', 60_000)
    await movesBytes(rig)
  }, 240_000)

  it('goes on after the guest end was killed and started again', async ({ skip }) => {
    skip(old, 'asked of QEMU 11.1: each new start of a guest end takes its seconds')
    await rig.machine.sh('kill -9 $(pidof node); true')
    await connected(rig.machine)
    await movesBytes(rig)
  }, 240_000)
})
