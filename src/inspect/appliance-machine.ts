/**
 * The appliance as a running VM: QEMU with our device, the disk to look at, and the daemon at the other end of a port.
 * The disk is opened read-only; what the appliance writes (a journal that it replays) goes to a file that is thrown
 * away. No network. Called by inspect-disk.ts.
 */

import { spawn, type ChildProcess } from 'node:child_process'
import { accessSync, constants, readFileSync } from 'node:fs'
import type { WaitOptions } from '../client/abort.ts'
import { VmchannelError } from '../errors.ts'
import { createDevice } from '../library/create-device.ts'
import type { Device } from '../library/device.ts'
import type { PortStream } from '../library/port-stream.ts'
import { printable } from '../log.ts'
import type { Appliance } from './appliance.ts'
import type { DiskFormat } from './disk-file.ts'

export interface ApplianceOptions extends WaitOptions {
  qemu: string
  appliance: Appliance
  disk: string
  format: DiskFormat
  /** The disk is a block device of the host. */
  device: boolean
  /** The QEMU process is gone, with the reason. */
  onExit: (reason: VmchannelError) => void
}

const PORT = 'org.libguestfs.channel.0'
const MEMORY = '1280M'
const TAIL = 16_384
const LINE_MAX = 2000
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
    const device = await createDevice({ log: 'ignore', signal: options.signal, timeout: options.timeout })
    try {
      const port = await device.addPort({ name: PORT, signal: options.signal })
      return new ApplianceMachine(device, port, options)
    } catch (error) {
      await device.close()
      throw error
    }
  }

  private constructor(device: Device, port: PortStream, options: ApplianceOptions) {
    this.#device = device
    this.port = port
    const words = ['-c', KEEPER, 'sh', options.qemu, ...qemuArguments(device, options)]
    // In a session of its own: Ctrl-C is our program's to act on, and when that has ended, however it ended, so has QEMU.
    this.#child = spawn('/bin/sh', words, { stdio: ['pipe', 'pipe', 'pipe'], detached: true })
    this.#child.stdin!.on('error', () => {})
    const hear = (text: unknown): void => void (this.#tail = (this.#tail + String(text)).slice(-TAIL))
    this.#child.stdout!.setEncoding('latin1').on('data', hear)
    this.#child.stderr!.setEncoding('utf8').on('data', hear)
    this.#exited = new Promise((resolve) => {
      const end = (what: string): void => {
        if (!this.#closing) options.onExit(this.#reason(options.disk, what))
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

  #reason(disk: string, what: string): VmchannelError {
    const lines = this.#tail
      .split(/\r?\n/)
      .map((line) => printable(line, LINE_MAX).trim())
      .filter((line) => line !== '')
    // QEMU's own words are about the command line, and there the only stranger is the disk.
    const own = lines.find((line) => /^\S*qemu[^ ]*: /.test(line) && !/warning/.test(line))
    if (own !== undefined) {
      return new VmchannelError(
        'ERR_VMCHANNEL_DISK',
        `${disk} cannot be opened: ${own.replace(/^\S+: (-drive .*?,if=none: )?/, '')}`,
        {
          hint: 'is it damaged, or of another format? See qemu-img check, and --format',
        },
      )
    }
    // A kernel that gives up says why some lines before its end.
    const last = lines.find((line) => line.includes('Kernel panic')) ?? lines.slice(-3).join('; ')
    return new VmchannelError('ERR_VMCHANNEL_QEMU', `the appliance's QEMU ${what}${last && `: ${last}`}`, {
      hint: 'see whether libguestfs-test-tool works here',
    })
  }
}

function qemuArguments(device: Device, { appliance, disk, format, device: isDevice }: ApplianceOptions): string[] {
  const drive = (id: string, path: string, kind: string, driver = 'file'): string[] => [
    '-drive',
    `file.driver=${driver},file.filename=${path.replaceAll(',', ',,')},file.locking=off,format=${kind},snapshot=on,cache=unsafe,id=${id},if=none`,
    ...['-device', `scsi-hd,drive=${id}`],
  ]
  return [
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot', '-serial', 'stdio'],
    ...accelerator(),
    ...['-machine', 'graphics=off'],
    ...['-kernel', appliance.kernel, '-initrd', appliance.initrd],
    ...['-append', `${KERNEL_WORDS} root=UUID=${appliance.uuid}`],
    ...['-object', 'rng-random,filename=/dev/urandom,id=rng0', '-device', 'virtio-rng-pci,rng=rng0'],
    ...['-device', 'virtio-scsi-pci,id=scsi'],
    ...drive('hd0', disk, format, isDevice ? 'host_device' : 'file'),
    ...drive('appliance', appliance.root, 'raw'),
    ...device.memoryArgs(MEMORY),
    ...device.qemuArgs,
  ]
}

/** KVM where it can be believed in: in a VM without nested virtualisation /dev/kvm opens and guests hang. */
function accelerator(): string[] {
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK)
    if (/^flags\s*:.*\s(vmx|svm)(\s|$)/m.test(readFileSync('/proc/cpuinfo', 'utf8'))) {
      return ['-accel', 'kvm', '-accel', 'tcg', '-cpu', 'max']
    }
  } catch {
    // no KVM for us
  }
  return ['-accel', 'tcg', '-cpu', 'max,la57=off']
}
