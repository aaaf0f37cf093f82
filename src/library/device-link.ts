/**
 * A program's connection to one VM of a device process: requests, and the state of the VM and its ports kept up to date
 * from events. Where the device process has a keeper and dies, the connection is made anew to its successor. device.ts
 * shows it to the program.
 */

import { wait, type WaitOptions } from '../client/abort.ts'
import { ControlClient, type RequestMethod } from '../client/control-client.ts'
import type { ControlEvent, Methods, PortInfo } from '../daemon/protocol.ts'
import { VmchannelError } from '../errors.ts'
import { PortHandle } from './port-handle.ts'

type WithoutVm<M extends RequestMethod> = Omit<Methods[M]['params'], 'vm'>

export interface LinkOwner {
  /** After the state has changed. */
  event(event: ControlEvent, port: PortHandle | undefined): void
  /** The device process has died, and another one has its place. */
  restarted(restarts: number): void
  closed(reason: VmchannelError): void
}

/** What may be asked twice: it changes nothing, or comes to the same. */
const TWICE: ReadonlySet<RequestMethod> = new Set(['hello', 'vm.list', 'port.list', 'port.stats', 'port.resize'])
/** A successor answers in a fraction of this; where there is none, its socket says so at once. */
const SUCCESSOR_MS = 20_000

export class DeviceLink {
  readonly vm: string
  readonly path: string
  readonly handles: Map<number, PortHandle> = new Map()
  attached = false
  started = false
  problem: string | null = null
  readonly #owner: LinkOwner
  #client: ControlClient
  /** While a successor is looked for; rejects where there is none. */
  #next: Promise<void> | undefined
  #closed = false
  #referenced = true

  /** Subscribes, and learns what is there. */
  static async open(client: ControlClient, vm: string, owner: LinkOwner, options: WaitOptions): Promise<DeviceLink> {
    const link = new DeviceLink(client, vm, owner)
    await link.#use(client, options)
    return link
  }

  private constructor(client: ControlClient, vm: string, owner: LinkOwner) {
    this.path = client.path
    this.vm = vm
    this.#owner = owner
    this.#client = client
  }

  /** Process id of the device process; of its keeper where it has one. */
  get pid(): number {
    return this.#client.hello.pid
  }

  /** Whether nobody is there who could be asked. */
  get closed(): boolean {
    return this.#closed || (this.#client.closed && !this.#next)
  }

  close(): void {
    this.#closed = true
    this.#client.close()
  }

  /** Whether this connection alone keeps the program running. */
  setReferenced(on: boolean): void {
    this.#referenced = on
    if (on) this.#client.ref()
    else this.#client.unref()
  }

  /** Asks about this VM. */
  request<M extends RequestMethod>(
    method: M,
    params: WithoutVm<M>,
    options: WaitOptions,
  ): Promise<Methods[M]['result']> {
    return this.#request(method, { ...params, vm: this.vm }, options)
  }

  /** Ends the device process. */
  async stop(options: WaitOptions): Promise<void> {
    this.#closed = true
    await this.#client.request('stop', {}, options)
  }

  async #request<M extends RequestMethod>(
    method: M,
    params: Methods[M]['params'],
    options: WaitOptions,
  ): Promise<Methods[M]['result']> {
    await this.#ready(method, options)
    const client = this.#client
    try {
      return await client.request(method, params, options)
    } catch (error) {
      if (!client.closed || !this.#next) throw error
      if (TWICE.has(method)) return this.#request(method, params, options)
      const what = `the device process died while it was asked (${method}), and another one has its place`
      throw new VmchannelError('ERR_VMCHANNEL_CLOSED', what, { cause: error, hint: 'see ports() for what came of it' })
    }
  }

  #ready(what: string, options: WaitOptions): Promise<void> {
    const next = this.#next
    if (!next) return Promise.resolve()
    return wait<void>(what, options, (resolve, reject) => {
      next.then(resolve, reject)
      return () => {}
    })
  }

  async #use(client: ControlClient, options: WaitOptions): Promise<void> {
    this.#client = client
    client.onClose((reason) => this.#lost(client, reason))
    await client.subscribe((event) => this.#event(event), { vm: this.vm, ...options })
    await this.#refresh(client, options)
  }

  /** The connection has ended. */
  #lost(client: ControlClient, reason: VmchannelError): void {
    if (this.#client !== client || this.#next) return
    if (this.#closed || client.hello.devicePid === undefined) return this.#end(reason)
    this.#next = this.#find(client.hello.restarts ?? 0)
    const done = (found: boolean): void => {
      this.#next = undefined
      if (!found || this.#closed) this.#end(reason)
    }
    this.#next.then(
      () => done(true),
      () => done(false),
    )
  }

  /** A keeper holds the control socket: who connects to it meets the successor, or nobody at all. */
  async #find(before: number): Promise<void> {
    const deadline = performance.now() + SUCCESSOR_MS
    for (;;) {
      const client = await ControlClient.connect(this.path, { timeout: Math.max(1, deadline - performance.now()) })
      if (this.#closed) return client.close()
      if (!this.#referenced) client.unref()
      const { restarts = 0 } = client.hello
      try {
        if (restarts === before) throw new VmchannelError('ERR_VMCHANNEL_CONTROL', 'it lives, and has hung up')
        await this.#use(client, { timeout: SUCCESSOR_MS })
      } catch (error) {
        // It died in its turn.
        if (client.closed && !this.#closed && performance.now() < deadline) continue
        client.close()
        throw error
      }
      return this.#owner.restarted(restarts)
    }
  }

  /** The handle of a port that the device process has just told us about. */
  handle({ port, name, guestOpen, hostConnected }: PortInfo): PortHandle {
    const known = this.handles.get(port)
    // Its event came before; what it says may be newer than the information here.
    if (known && known.name === name) return known
    const handle = this.#add(port, name)
    handle.update({ guestOpen, hostConnected })
    return handle
  }

  #add(port: number, name: string | null): PortHandle {
    this.#remove(port)
    const handle = new PortHandle(this, port, name)
    this.handles.set(port, handle)
    return handle
  }

  #remove(port: number): PortHandle | undefined {
    const handle = this.handles.get(port)
    this.handles.delete(port)
    handle?.setGone(new VmchannelError('ERR_VMCHANNEL_CLOSED', `port ${handle.name ?? handle.id} was removed`))
    return handle
  }

  #event(event: ControlEvent): void {
    this.#owner.event(event, this.#apply(event))
  }

  /** Brings the state up to date; returns the port that it is about. */
  #apply({ event, port = -1, name = null, message }: ControlEvent): PortHandle | undefined {
    if (event === 'port-added') return this.#add(port, name)
    if (event === 'port-removed') return this.#remove(port)
    const handle = this.handles.get(port)
    if (event === 'guest-open' || event === 'guest-close') handle?.update({ guestOpen: event === 'guest-open' })
    else if (event === 'host-connect' || event === 'host-disconnect')
      handle?.update({ hostConnected: event === 'host-connect' })
    else if (event === 'port-ready') handle?.emit('ready')
    else if (event === 'vmm-attached' || event === 'vmm-detached') {
      this.attached = event === 'vmm-attached'
      this.started &&= this.attached
      this.problem = null
    } else if (event === 'driver-started' || event === 'driver-reset') this.started = event === 'driver-started'
    else if (event === 'problem') this.problem = message ?? ''
    else if (event === 'lost') void this.#refresh(this.#client, {}).catch(() => {})
    else if (event === 'vm-removed') {
      this.#end(new VmchannelError('ERR_VMCHANNEL_CLOSED', `VM ${this.vm} was removed from its device process`))
      this.close()
    }
    return handle
  }

  /** Learns what is there now, and tells what has changed as if the events had come. */
  async #refresh(client: ControlClient, options: WaitOptions): Promise<void> {
    const [vms, ports] = await Promise.all([
      client.request('vm.list', {}, options),
      client.request('port.list', { vm: this.vm }, options),
    ])
    const tell = (event: ControlEvent['event'], more: Partial<ControlEvent> = {}): void =>
      this.#event({ event, vm: this.vm, time: Date.now(), ...more })
    const vm = vms.find((info) => info.vm === this.vm)
    if (vm) {
      if (vm.attached !== this.attached) tell(vm.attached ? 'vmm-attached' : 'vmm-detached')
      if (vm.started !== this.started) tell(vm.started ? 'driver-started' : 'driver-reset')
      if (vm.problem !== null && vm.problem !== this.problem) tell('problem', { message: vm.problem })
      this.problem = vm.problem
    }
    for (const [id, { name }] of this.handles)
      if (!ports.some(({ port }) => port === id)) tell('port-removed', { port: id, name })
    for (const info of ports) {
      const { port, name } = info
      if (this.handles.get(port)?.name !== name) tell('port-added', { port, name })
      this.handle(info).update(info)
    }
  }

  #end(reason: VmchannelError): void {
    for (const handle of this.handles.values()) handle.setGone(reason)
    this.handles.clear()
    this.attached = false
    this.started = false
    this.#owner.closed(reason)
  }
}
