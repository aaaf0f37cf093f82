/**
 * The appliance as a running VM: QEMU with our device, the disks to look at, and the daemon at the other end of a port.
 * QEMU is handed the disks as descriptors that can only be read; what the appliance writes (a journal that it replays)
 * goes to a file that is thrown away. No network. Called by inspect-disk.ts.
 */

import { spawn, type ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chmodSync, chownSync, fstatSync, openSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import type { WaitOptions } from '../client/abort.ts'
import { VmchannelError } from '../errors.ts'
import { createDevice } from '../library/create-device.ts'
import type { Device } from '../library/device.ts'
import type { PortStream } from '../library/port-stream.ts'
import { printable } from '../log.ts'
import type { Appliance } from './appliance.ts'
import type { Confinement } from './confinement.ts'
import type { DiskFile } from './disk-file.ts'
import { driveArguments } from './drive.ts'
import { nameless } from './header-overlay.ts'
import { Inheritance } from './inheritance.ts'

export interface ApplianceOptions extends WaitOptions {
  qemu: string
  appliance: Appliance
  disks: readonly DiskFile[]
  confinement: Confinement
  /** The QEMU process is gone, with the reason. */
  onExit: (reason: VmchannelError) => void
}

const PORT = 'org.libguestfs.channel.0'
const MEMORY = '1280M'
const TAIL = 16_384
const LINE_MAX = 2000
const NO_HEAD: Uint8Array = new Uint8Array()
/** Becomes QEMU's parent, and kills it when our end of standard input goes. */
const KEEPER =
  'exec 3<&0; "$@" </dev/null 3<&- & qemu=$!; ' +
  '{ cat <&3; kill -KILL $qemu; } >/dev/null 2>&1 & exec 3<&- 0</dev/null; wait $qemu'
/** As libguestfs starts it; without the messages of the kernel, which cost time. */
const KERNEL_WORDS =
  'panic=1 console=ttyS0 edd=off udevtimeout=6000 udev.event-timeout=6000 no_timer_check printk.time=1 ' +
  'cgroup_disable=memory usbcore.nousb cryptomgr.notests tsc=reliable 8250.nr_uarts=1 selinux=0 quiet TERM=dumb'

export class ApplianceMachine {
  readonly port: PortStream
  readonly #device: Device
  readonly #child: ChildProcess
  readonly #exited: Promise<void>
  #closing = false
  /** The end of what QEMU and the appliance's console said. */
  #tail = ''

  static async start(options: ApplianceOptions): Promise<ApplianceMachine> {
    const { user } = options.confinement
    const device = await createDevice({
      ...{ log: 'ignore', signal: options.signal, timeout: options.timeout },
      // Its usual place is closed to everybody else.
      ...(user && { stateDir: join(tmpdir(), `vmchannel-inspect-${randomBytes(6).toString('hex')}`) }),
    })
    const inherited = new Inheritance()
    try {
      if (user) {
        chmodSync(dirname(device.socket), 0o711)
        chownSync(device.socket, user.uid, user.gid)
      }
      const port = await device.addPort({ name: PORT, signal: options.signal })
      return new ApplianceMachine(device, port, options, inherited)
    } catch (error) {
      await device.close()
      throw error
    } finally {
      inherited.close() // QEMU has its own by now
    }
  }

  private constructor(device: Device, port: PortStream, options: ApplianceOptions, inherited: Inheritance) {
    this.#device = device
    this.port = port
    const words = ['-c', KEEPER, 'sh', options.qemu, ...qemuArguments(device, options, inherited)]
    // In a session of its own: Ctrl-C is our program's to act on, and when that has ended, however it ended, so has
    // QEMU.
    this.#child = spawn('/bin/sh', words, {
      ...options.confinement.user,
      stdio: ['pipe', 'pipe', 'pipe', ...inherited.stdio],
      detached: true,
    })
    this.#child.stdin!.on('error', () => {})
    const hear = (text: unknown): void => void (this.#tail = (this.#tail + String(text)).slice(-TAIL))
    this.#child.stdout!.setEncoding('latin1').on('data', hear)
    this.#child.stderr!.setEncoding('utf8').on('data', hear)
    this.#exited = new Promise((resolve) => {
      const end = (what: string): void => {
        if (!this.#closing) options.onExit(this.#reason(options.disks, what))
        resolve()
      }
      this.#child.on('exit', () => void this.#child.stdin!.end())
      this.#child.on('error', (error: NodeJS.ErrnoException) => end(`does not start: ${error.code}`))
      // After its last words.
      this.#child.on('close', (status, signal) => end(`ended with ${signal ?? `status ${status}`}`))
    })
  }

  /** Ends it at once: nothing in it is worth keeping. */
  async close(): Promise<void> {
    this.#closing = true
    this.#child.stdin!.end()
    await this.#exited
    await this.#device.close()
  }

  #reason(disks: readonly DiskFile[], what: string): VmchannelError {
    const lines = this.#tail
      .split(/\r?\n/)
      .map((line) => printable(line, LINE_MAX).trim())
      .filter((line) => line !== '')
    // QEMU's own words are about the command line, and there the only stranger is the disk.
    const own = lines.find((line) => /^\S*qemu[^ ]*: /.test(line) && !/warning/.test(line))
    if (own !== undefined) {
      const disk = disks[Number(/,id=hd(\d+),if=none: /.exec(own)?.[1] ?? 0)] ?? disks[0]!
      const why = own
        .replace(/^\S+: (-drive .*?,if=none: )?/, '')
        .replaceAll(/'?(json:\{.*\}|\/dev\/fdset\/\d+)'?/g, 'it')
      return new VmchannelError('ERR_VMCHANNEL_DISK', `${disk.path} cannot be opened: ${why}`, {
        hint: 'is it damaged, or of another format? See qemu-img check, and --format',
      })
    }
    // A kernel that gives up says why some lines before its end.
    const last = lines.find((line) => line.includes('Kernel panic')) ?? lines.slice(-3).join('; ')
    return new VmchannelError('ERR_VMCHANNEL_QEMU', `the appliance's QEMU ${what}${last && `: ${last}`}`, {
      hint: 'see whether libguestfs-test-tool works here',
    })
  }
}

function qemuArguments(device: Device, options: ApplianceOptions, inherited: Inheritance): string[] {
  const { appliance, disks, confinement } = options
  const fd = (path: string): number => inherited.keep(openSync(path, 'r'))
  const root = {
    fd: fd(appliance.root),
    format: 'raw',
    device: false,
    size: 0,
    head: NO_HEAD,
    sectorSize: 512,
  } as const
  const forUser = (path: string): string =>
    confinement.user ? inherited.path(readableByAll(fd(path), inherited)) : path
  const drives = [...disks.entries()].flatMap(([at, disk]) => driveArguments(`hd${at}`, disk, inherited))
  return [
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot', '-serial', 'stdio'],
    ...confinement.arguments,
    ...accelerator(inherited),
    ...['-machine', 'graphics=off'],
    ...['-kernel', forUser(appliance.kernel), '-initrd', forUser(appliance.initrd)],
    ...['-append', `${KERNEL_WORDS} root=UUID=${appliance.uuid}`],
    ...['-object', 'rng-random,filename=/dev/urandom,id=rng0', '-device', 'virtio-rng-pci,rng=rng0'],
    ...['-device', 'virtio-scsi-pci,id=scsi'],
    ...drives,
    ...driveArguments('appliance', root, inherited),
    ...device.memoryArgs(MEMORY),
    ...device.qemuArgs,
    ...inherited.arguments,
  ]
}

/** Kernels are often closed to everybody but root. */
function readableByAll(fd: number, inherited: Inheritance): number {
  return (fstatSync(fd).mode & 0o004) === 0 ? inherited.keep(nameless(readFileSync(fd), 0o444)) : fd
}

/** KVM where it can be believed in: in a VM without nested virtualisation /dev/kvm opens and guests hang. */
function accelerator(inherited: Inheritance): string[] {
  try {
    const kvm = inherited.keep(openSync('/dev/kvm', 'r+'))
    if (/^flags\s*:.*\s(vmx|svm)(\s|$)/m.test(readFileSync('/proc/cpuinfo', 'utf8')))
      return ['-accel', `kvm,device=${inherited.set(kvm)}`, '-accel', 'tcg', '-cpu', 'max']
  } catch {
    // no KVM for us
  }
  return ['-accel', 'tcg', '-cpu', 'max,la57=off']
}
