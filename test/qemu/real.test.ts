/** Planned command lines on a real QEMU with real devices behind them; one of them with a stock guest. */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createServer, connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ensureKernel } from '../../lab/fetch/kernel.ts'
import { ensureQemu } from '../../lab/fetch/qemu.ts'
import { Machine } from '../../lab/machine.ts'
import { QmpClient } from '../../src/qmp/client.ts'
import { openChardev } from '../../src/chardev/registry.ts'
import { listenVfioUser, type VfioUserServer } from '../../src/device/attach/vfio-user/server.ts'
import { ConsoleDevice } from '../../src/device/console.ts'
import { VirtioPci } from '../../src/device/pci/virtio-pci.ts'
import { SILENT } from '../../src/log.ts'
import { GuestMemory } from '../../src/mem/guest-memory.ts'
import { planQemu, type Plan, type PlannedDevice } from '../../src/qemu/plan.ts'

let qemu = ''
let kernel = ''
let dir = ''
beforeAll(async () => {
  qemu = (await ensureQemu()).path
  kernel = (await ensureKernel('6.1')).vmlinuz
  dir = mkdtempSync(join(tmpdir(), 'vmchannel-plan-'))
  writeFileSync(join(dir, 'disk'), Buffer.alloc(1 << 20))
})
afterAll(() => {
  rmSync(dir, { recursive: true, force: true })
})

interface Served {
  device: ConsoleDevice
  server: VfioUserServer
  unshared: unknown[]
}

async function serve(planned: PlannedDevice, path: string): Promise<Served> {
  const device = new ConsoleDevice({ maxPorts: planned.maxPorts, log: SILENT, defer: setImmediate })
  const memory = new GuestMemory()
  const unshared: unknown[] = []
  const server = await listenVfioUser({
    path,
    memory,
    function: new VirtioPci(device, memory),
    log: SILENT,
    onUnshared: (what) => void unshared.push(what),
  })
  for (const port of planned.ports) {
    const { id, name, console = false, policy = 'block', buffer = 65_536, onClose, drainMs = 1000 } = port
    const settings = { id, name, console, policy, buffer, onClose, drainMs }
    await device.addPort(settings, (end) => openChardev(port.chardev, end))
  }
  return { device, server, unshared }
}

const hostOf = (plan: Plan): string => plan.warnings.join('\n')
const fileKind = (path: string) =>
  !existsSync(path) ? 'missing' : statSync(path).isDirectory() ? ('directory' as const) : ('file' as const)

interface Seen {
  devices: { id: string; bus: string; addr: string }[]
  memory: { share: boolean; size: number; id: string }[]
  ram: number
  unshared: number
}

/** Runs the planned line on QEMU, stopped before the first instruction, and asks what came of it. */
async function look(plan: Plan): Promise<Seen> {
  const sockets = plan.devices.map((_, index) => join(dir, `d${index}`))
  const served = await Promise.all(plan.devices.map((device, index) => serve(device, sockets[index] ?? '')))
  const qmpPath = join(dir, 'qmp')
  const listener = createServer().listen(qmpPath)
  const args = [...plan.qemuArgs(sockets), '-display', 'none', '-S', '-qmp', `unix:${qmpPath}`]
  const child: ChildProcess = spawn(qemu, args, { stdio: ['ignore', 'ignore', 'pipe'] })
  let stderr = ''
  child.stderr?.on('data', (chunk: Buffer) => (stderr += chunk.toString()))
  const ended = once(child, 'close').then(() => Promise.reject(new Error(`QEMU ended: ${stderr}`)))
  try {
    const [socket] = (await Promise.race([once(listener, 'connection'), ended])) as [Socket]
    ended.catch(() => {})
    const qmp = new QmpClient(socket)
    await qmp.negotiate().catch(() => ended)
    for (const { server } of served) expect(server.attached).toBe(true)
    const memory = (await qmp.execute('query-memdev')) as Seen['memory']
    const summary = (await qmp.execute('query-memory-size-summary')) as { 'base-memory': number }
    return {
      devices: await Promise.all(plan.devices.map(({ id }) => whereIs(qmp, id))),
      memory,
      ram: summary['base-memory'],
      unshared: served.reduce((sum, one) => sum + one.unshared.length, 0),
    }
  } finally {
    listener.close()
    child.kill()
    await ended.catch(() => {})
    for (const { server, device } of served) {
      server.close()
      device.close()
    }
  }
}

/** QEMU's own tree: bridges have no bus numbers before the firmware has run. */
async function whereIs(qmp: QmpClient, id: string): Promise<Seen['devices'][0]> {
  const get = (property: string) => qmp.execute('qom-get', { path: `/machine/peripheral/${id}`, property })
  expect(await get('type')).toBe('vfio-user-pci')
  const devfn = Number(await get('addr'))
  return {
    id,
    bus:
      String(await get('parent_bus'))
        .split('/')
        .at(-1) ?? '',
    addr: `${(devfn >> 3).toString(16)}.${devfn & 7}`,
  }
}

const M = 2 ** 20
const words = (text: string): string[] => text.split(' ')

describe('QEMU takes what was planned, and shares all memory', () => {
  const port = '-chardev null,id=c0 -device virtserialport,chardev=c0,name=a'
  it.each<[string, string, Partial<Seen>]>([
    [
      'nothing but a port',
      '-virtioserial null',
      { ram: 128 * M, devices: [{ id: 'vmchannel', bus: 'pci.0', addr: '4.0' }] },
    ],
    ['a size with a fraction', '-m 0.25G -nodefaults -virtioserial null', { ram: 256 * M }],
    ['an odd size', '-m 67108865B -nodefaults -virtioserial null', { ram: 67117056 }],
    [
      '-m in pieces, over memory.size',
      '-M pc,memory.size=1G -m 64 -m slots=2,maxmem=1G -nodefaults -virtioserial null',
      { ram: 64 * M },
    ],
    [
      'libguestfs',
      '-global virtio-blk-pci.scsi=off -no-user-config -nodefaults -machine accel=tcg,graphics=off -cpu max,la57=off -m 320 ' +
        '-no-reboot -rtc driftfix=slew -global kvm-pit.lost_tick_policy=discard -kernel KERNEL ' +
        '-object rng-random,filename=/dev/urandom,id=rng0 -device virtio-rng-pci,rng=rng0 -device virtio-scsi-pci,id=scsi ' +
        '-drive file=DIR/disk,cache=unsafe,format=raw,id=hd0,if=none -device scsi-hd,drive=hd0 ' +
        '-device virtio-serial-pci -serial null -chardev socket,path=LISTENER,id=channel0 ' +
        '-device virtserialport,chardev=channel0,name=org.libguestfs.channel.0 -append panic=1',
      { ram: 320 * M, devices: [{ id: 'vmchannel', bus: 'pci.0', addr: '4.0' }] },
    ],
    [
      'libvirt',
      '-machine pc-q35-10.1,usb=off,dump-guest-core=off,memory-backend=pc.ram -accel tcg -m size=262144k -nodefaults ' +
        '-object {"qom-type":"memory-backend-ram","id":"pc.ram","size":268435456} -overcommit mem-lock=off -no-user-config ' +
        '-device {"driver":"pcie-root-port","port":16,"chassis":1,"id":"pci.1","bus":"pcie.0","multifunction":true,"addr":"0x2"} ' +
        '-device {"driver":"virtio-serial-pci","id":"virtio-serial0","bus":"pci.1","addr":"0x0"} ' +
        '-chardev pty,id=charserial0 -device {"driver":"isa-serial","chardev":"charserial0","id":"serial0","index":0} ' +
        '-chardev socket,id=charchannel0,path=DIR/agent,server=on,wait=off ' +
        '-device {"driver":"virtserialport","bus":"virtio-serial0.0","nr":1,"chardev":"charchannel0","id":"channel0","name":"org.qemu.guest_agent.0"}',
      {
        devices: [{ id: 'virtio-serial0', bus: 'pci.1', addr: '0.0' }],
        memory: [expect.objectContaining({ id: 'pc.ram', share: true, size: 256 * M }) as Seen['memory'][0]],
      },
    ],
    [
      'proxmox',
      '-nodefaults -cpu qemu64 -m 256 -device vmgenid,guid=c773c261-d800-4348-9f5d-167fadd53cf8 -device VGA,id=vga,bus=pci.0,addr=0x2 ' +
        '-chardev socket,path=DIR/qga,server=on,wait=off,id=qga0 -device virtio-serial,id=qga0,bus=pci.0,addr=0x8 ' +
        '-device virtserialport,chardev=qga0,name=org.qemu.guest_agent.0 -device virtio-balloon-pci,id=b,bus=pci.0,addr=0x3 -machine type=pc',
      { devices: [{ id: 'qga0', bus: 'pci.0', addr: '8.0' }] },
    ],
    [
      'numa',
      '-M q35 -nodefaults -m 256 -smp 2 -object memory-backend-ram,id=a,size=128M,policy=default -numa node,cpus=0,memdev=a ' +
        `-object {"qom-type":"memory-backend-ram","id":"b","size":134217728} -numa node,cpus=1,memdev=b -device virtio-serial ${port}`,
      { ram: 256 * M },
    ],
    [
      '-mem-path',
      `-M q35 -nodefaults -m 128 -mem-path /dev/shm -mem-prealloc -device virtio-serial ${port}`,
      { ram: 128 * M },
    ],
    [
      'a file backend that says nothing about sharing',
      `-M q35,memory-backend=m -nodefaults -object memory-backend-file,id=m,size=128M,mem-path=/dev/shm -device virtio-serial ${port}`,
      { ram: 128 * M },
    ],
    [
      'memory plugged in from the start',
      `-M q35 -nodefaults -m 128,slots=2,maxmem=1G -object memory-backend-ram,id=d,size=128M -device pc-dimm,memdev=d -device virtio-serial ${port}`,
      {
        memory: [expect.objectContaining({ share: true }), expect.objectContaining({ share: true })] as Seen['memory'],
      },
    ],
    ['microvm', '-M microvm,pcie=on -nodefaults -virtioserial null', {}],
    [
      'two devices of QEMU and one of ours',
      '-M q35 -nodefaults -chardev null,id=c1 -chardev null,id=c2 -device pcie-root-port,id=rp,addr=3,chassis=1 ' +
        '-device virtio-serial-pci,id=a,bus=rp,max_ports=4 -device virtio-serial-pci-non-transitional,id=b,addr=1d.1,multifunction=on,rombar=0 ' +
        '-device virtserialport,bus=a.0,chardev=c1 -device virtconsole,bus=b.0,chardev=c2 ' +
        '-virtioserial null -virtioserial-device id=own,addr=0x1c,acpi-index=7',
      {
        devices: [
          { id: 'a', bus: 'rp', addr: '0.0' },
          { id: 'own', bus: 'pcie.0', addr: '1c.0' },
          { id: 'b', bus: 'pcie.0', addr: '1d.1' },
        ],
      },
    ],
  ])('%s', async (_, text, expected) => {
    const listener = createServer((socket) => socket.resume()).listen(join(dir, 'listener'))
    try {
      const argv = words(text).map((word) =>
        word.replace('KERNEL', kernel).replace('LISTENER', join(dir, 'listener')).replace('DIR', dir),
      )
      const plan = planQemu(argv, { fileKind })
      expect(plan.passThrough, hostOf(plan)).toBeUndefined()
      const seen = await look(plan)
      const sort = (devices: Seen['devices']) => devices.toSorted((a, b) => a.id.localeCompare(b.id))
      expect({ ...seen, devices: sort(seen.devices) }).toMatchObject({
        ...expected,
        ...(expected.devices && { devices: sort(expected.devices) }),
        unshared: 0,
      })
      expect(seen.memory.every((one) => one.share)).toBe(true)
    } finally {
      listener.close()
    }
  })

  it('while memory that is not shared would be noticed', async () => {
    const plan = planQemu(['-nodefaults', '-virtioserial', 'null'])
    const stripped = {
      ...plan,
      qemuArgs: (paths: readonly string[]) =>
        plan.qemuArgs(paths).filter((word) => !/memory-backend|^-object$|^-machine$/.test(word)),
    }
    expect((await look(stripped)).unshared).toBeGreaterThan(0)
  })
})

it('a stock guest talks through a device that QEMU was asked for', async () => {
  const socketPath = join(dir, 'agent')
  const served: Served[] = []
  let plan: Plan | undefined
  const machine = await Machine.boot({
    qemu,
    kernel: await ensureKernel('6.1'),
    bootTimeout: 40_000,
    args: words(
      `-device virtio-serial-pci,id=vs -chardev socket,id=ch,path=${socketPath},server=on,wait=off ` +
        '-device virtserialport,bus=vs.0,chardev=ch,name=org.example.0,nr=3',
    ),
    launcher: async (file, args, folder) => {
      plan = planQemu(args)
      const paths = plan.devices.map((_, index) => join(folder, `d${index}`))
      for (const [index, device] of plan.devices.entries()) served.push(await serve(device, paths[index] ?? ''))
      return { file, args: plan.qemuArgs(paths) }
    },
  })
  try {
    expect(plan?.passThrough).toBeUndefined()
    const peer = connect(socketPath)
    await once(peer, 'connect')
    expect((await machine.run('ls /sys/class/virtio-ports; cat /sys/class/virtio-ports/*/name')).output).toMatch(
      /^vport\dp3\norg\.example\.0\n$/,
    )
    const answer = once(peer, 'data') as Promise<[Buffer]>
    await machine.run('echo from the guest > /dev/$(ls /sys/class/virtio-ports)', { timeout: 10_000 })
    expect((await answer)[0].toString()).toBe('from the guest\n')
    peer.destroy()
  } finally {
    await machine.close()
    for (const { server, device } of served) {
      server.close()
      device.close()
    }
  }
})

it('a Node program becomes QEMU: same process, its own standard streams, its own status', async () => {
  const script = join(dir, 'become.mjs')
  const built = join(import.meta.dirname, '../../dist/src/ffi/exec.js')
  const args = JSON.stringify([qemu, '-M', 'none', '-display', 'none', '-qmp', 'stdio', '-pidfile', join(dir, 'pid')])
  writeFileSync(script, `import { execve } from '${built}'\nprocess.stdin.pause()\nexecve('${qemu}', ${args})\n`)
  const child = spawn(process.execPath, [script], { stdio: ['pipe', 'pipe', 'inherit'] })
  let stdout = ''
  child.stdout.on('data', (chunk: Buffer) => {
    stdout += chunk.toString()
    if (stdout.split('\n').length === 2) child.stdin.write('{"execute":"qmp_capabilities"}\n')
    if (stdout.split('\n').length === 3) {
      expect(Number(readFileSync(join(dir, 'pid'), 'utf8'))).toBe(child.pid)
      child.stdin.write('{"execute":"quit"}\n')
    }
  })
  const [status] = (await once(child, 'close')) as [number]
  expect(stdout).toMatch(/^\{"QMP".*\r\n\{"return": \{\}\}\r\n/)
  expect(status).toBe(0)
})
