/**
 * A console device of one VM, in a process of its own, as a program sees it. Made by create-device.ts and connect.ts.
 *
 * The device does not share this program's event loop: whatever happens here, the guest goes on.
 */

import { EventEmitter } from 'node:events'
import { wait, type WaitOptions } from '../client/abort.ts'
import { attachPort } from '../client/attach.ts'
import type { ControlClient } from '../client/control-client.ts'
import type { StartedDevice } from '../client/start.ts'
import type { ControlEvent, PortInfo, PortRef, PortStats, VmInfo } from '../daemon/protocol.ts'
import { VmchannelError } from '../errors.ts'
import { DeviceLink } from './device-link.ts'
import { portSpec, sharedMemoryArgs, type ChardevPortOptions, type StreamPortOptions } from './options.ts'
import type { PortHandle } from './port-handle.ts'
import { PortStream } from './port-stream.ts'

export interface DeviceEvents {
  'vmm-attached': []
  'vmm-detached': []
  'driver-started': []
  'driver-reset': []
  /** The device refuses the guest's driver; the text says why, e.g. that the guest's memory is not shared. */
  problem: [message: string]
  'port-added': [port: PortHandle]
  'port-removed': [port: PortHandle]
  'guest-open': [port: PortHandle]
  'guest-close': [port: PortHandle]
  /** The device process has died, and its keeper has another one in its place: how often that was so. */
  restarted: [restarts: number]
  /** The last event; with a reason where this program did not ask for the end. */
  close: [reason: VmchannelError | undefined]
}

const STOP_MS = 5000

export class Device extends EventEmitter<DeviceEvents> {
  readonly #info: VmInfo
  readonly #process: StartedDevice | undefined
  readonly #streams = new Set<PortStream>()
  #link!: DeviceLink
  #closing = false
  #closed = false
  #exited: Promise<void> = Promise.resolve()

  /** @internal */
  static async open(
    client: ControlClient,
    info: VmInfo,
    process: StartedDevice | undefined,
    options: WaitOptions,
  ): Promise<Device> {
    const device = new Device(info, process)
    const owner = {
      event: (event: ControlEvent, port: PortHandle | undefined) => device.#event(event, port),
      restarted: (restarts: number) => void device.emit('restarted', restarts),
      closed: (reason: VmchannelError) => device.#end(reason),
    }
    device.#link = await DeviceLink.open(client, info.vm, owner, options)
    return device
  }

  private constructor(info: VmInfo, process: StartedDevice | undefined) {
    super()
    this.#info = info
    this.#process = process
    const child = process?.process
    if (child && child.exitCode === null && child.signalCode === null)
      this.#exited = new Promise((resolve) => child.once('exit', () => resolve()))
  }

  /** Name of the VM in the device process. */
  get name(): string {
    return this.#info.vm
  }

  /** The vfio-user socket that QEMU connects to. */
  get socket(): string {
    return this.#info.socket
  }

  /** Where other programs steer this device; `connect({ control })` takes it. */
  get controlSocket(): string {
    return this.#link.path
  }

  /** Process id of the device process; of its keeper where it has one. */
  get pid(): number {
    return this.#link.pid
  }

  /** QEMU's arguments for this device: `-device` and its value. */
  get qemuArgs(): string[] {
    return [...this.#info.qemuArgs]
  }

  /** QEMU's arguments for guest memory that the device can reach: `size` is "512M", "2G", or a number of bytes. */
  memoryArgs(size: string | number): string[] {
    return sharedMemoryArgs(size)
  }

  /** Whether a VMM is connected. */
  get attached(): boolean {
    return this.#link.attached
  }

  /** Whether a driver in the guest runs the device. */
  get started(): boolean {
    return this.#link.started
  }

  /** Why the device refuses the guest's driver; null where all is well. */
  get problem(): string | null {
    return this.#link.problem
  }

  get closed(): boolean {
    return this.#closed
  }

  /** Adds a port, before the guest starts or while it runs. Without a chardev, its bytes are this program's. */
  addPort(options: ChardevPortOptions): Promise<PortHandle>
  addPort(options?: StreamPortOptions): Promise<PortStream>
  async addPort(options: StreamPortOptions | ChardevPortOptions = {}): Promise<PortHandle | PortStream> {
    const info = await this.#link.request('port.add', { spec: portSpec(options) }, options)
    const handle = this.#link.handle(info)
    if (options.chardev !== undefined) return handle
    try {
      return await this.#attach(info.port, options)
    } catch (error) {
      await handle.remove().catch(() => {})
      throw error
    }
  }

  /** Makes a stream of a port that was added for streams and has none now. */
  attach(port: PortRef, options: WaitOptions & { highWaterMark?: number } = {}): Promise<PortStream> {
    return this.#attach(port, options)
  }

  async #attach(port: PortRef, options: WaitOptions & { highWaterMark?: number }): Promise<PortStream> {
    const { socket, info } = await attachPort(this.controlSocket, { vm: this.name, port }, options)
    const stream = new PortStream(socket, this.#link.handle(info), options.highWaterMark)
    this.#streams.add(stream)
    stream.once('close', () => this.#streams.delete(stream))
    return stream
  }

  ports(options: WaitOptions = {}): Promise<PortInfo[]> {
    return this.#link.request('port.list', {}, options)
  }

  /** What each port has moved and dropped. */
  stats(options: WaitOptions = {}): Promise<PortStats[]> {
    return this.#link.request('port.stats', {}, options)
  }

  async removePort(port: PortRef, options: WaitOptions = {}): Promise<void> {
    for (const stream of this.#streams) if (stream.id === port || stream.name === port) stream.letGo()
    await this.#link.request('port.remove', { port }, options)
  }

  /** Resolves when a driver in the guest runs the device; at once where one does. Rejects where it never will. */
  waitForDriver(options: WaitOptions = {}): Promise<void> {
    return wait<void>('waiting for a driver in the guest', options, (resolve, reject) => {
      const refused = (message: string): void => reject(new VmchannelError('ERR_VMCHANNEL_MEMORY', message))
      const gone = (reason: VmchannelError | undefined): void =>
        reject(reason ?? new VmchannelError('ERR_VMCHANNEL_CLOSED', 'the device was closed'))
      if (this.#closed) gone(undefined)
      else if (this.problem !== null) refused(this.problem)
      else if (this.started) resolve()
      this.on('driver-started', resolve).on('problem', refused).on('close', gone)
      return () => void this.off('driver-started', resolve).off('problem', refused).off('close', gone)
    })
  }

  /**
   * Ends the device process that this program started, and waits for that; of another's it lets go. What is still on its
   * way to the guest is lost: see to it that the guest has closed its ports, where that matters.
   */
  async close(): Promise<void> {
    this.#closing = true
    if (this.#process) for (const stream of this.#streams) stream.letGo()
    if (this.#process && !this.#link.closed) await this.#link.stop({ timeout: STOP_MS }).catch(() => {})
    this.#link.close()
    if (!this.#process) return
    const { process: child, stdin } = this.#process
    stdin.destroy()
    const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS)
    await this.#exited
    clearTimeout(timer)
  }

  /** Ends it at once; streams fail with the reason. */
  destroy(reason?: Error): void {
    this.#closing = true
    for (const stream of this.#streams) stream.destroy(reason)
    this.#link.close()
    this.#process?.process.kill('SIGTERM')
    this.#process?.stdin.destroy()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** Whether the device alone keeps this program running; ports' streams have their own. */
  ref(): this {
    this.#link.setReferenced(true)
    this.#process?.process.ref()
    return this
  }

  unref(): this {
    this.#link.setReferenced(false)
    this.#process?.process.unref()
    // A pipe to the child; its type does not say that it is a socket.
    for (const pipe of [this.#process?.stdin, this.#process?.stderr])
      (pipe as { unref?: () => void } | undefined)?.unref?.()
    return this
  }

  #event({ event, message = '' }: ControlEvent, port: PortHandle | undefined): void {
    if (event === 'problem') this.emit('problem', message)
    else if (
      event === 'vmm-attached' ||
      event === 'vmm-detached' ||
      event === 'driver-started' ||
      event === 'driver-reset'
    )
      this.emit(event)
    else if (
      port &&
      (event === 'port-added' || event === 'port-removed' || event === 'guest-open' || event === 'guest-close')
    )
      this.emit(event, port)
  }

  #end(reason: VmchannelError): void {
    if (this.#closed) return
    this.#closed = true
    this.emit('close', this.#closing ? undefined : reason)
  }
}
