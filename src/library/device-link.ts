/**
 * A program's connection to one VM of a device process: requests, and the state of the VM and its ports kept up to date
 * from events. device.ts shows it to the program.
 */

import type { WaitOptions } from '../client/abort.ts'
import type { ControlClient, RequestMethod } from '../client/control-client.ts'
import type { ControlEvent, Methods, PortInfo } from '../daemon/protocol.ts'
import { VmchannelError } from '../errors.ts'
import { PortHandle } from './port-handle.ts'

type WithoutVm<M extends RequestMethod> = Omit<Methods[M]['params'], 'vm'>

export interface LinkOwner {
  /** After the state has changed. */
  event(event: ControlEvent, port: PortHandle | undefined): void
  closed(reason: VmchannelError): void
}

export class DeviceLink {
  readonly vm: string
  readonly client: ControlClient
  readonly handles: Map<number, PortHandle> = new Map()
  attached = false
  started = false
  problem: string | null = null
  readonly #owner: LinkOwner

  /** Subscribes, and learns what is there. */
  static async open(client: ControlClient, vm: string, owner: LinkOwner, options: WaitOptions): Promise<DeviceLink> {
    const link = new DeviceLink(client, vm, owner)
    client.onClose((reason) => link.#end(reason))
    await client.subscribe((event) => link.#event(event), { vm, ...options })
    await link.#refresh(options)
    return link
  }

  private constructor(client: ControlClient, vm: string, owner: LinkOwner) {
    this.client = client
    this.vm = vm
    this.#owner = owner
  }

  request<M extends RequestMethod>(
    method: M,
    params: WithoutVm<M>,
    options: WaitOptions,
  ): Promise<Methods[M]['result']> {
    return this.client.request(method, { ...params, vm: this.vm }, options)
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
    else if (event === 'lost') void this.#refresh({}).catch(() => {})
    else if (event === 'vm-removed') {
      this.#end(new VmchannelError('ERR_VMCHANNEL_CLOSED', `VM ${this.vm} was removed from its device process`))
      this.client.close()
    }
    return handle
  }

  async #refresh(options: WaitOptions): Promise<void> {
    const [vms, ports] = await Promise.all([
      this.client.request('vm.list', {}, options),
      this.request('port.list', {}, options),
    ])
    const vm = vms.find((info) => info.vm === this.vm)
    if (vm) {
      this.attached = vm.attached
      this.started = vm.started
      this.problem = vm.problem
    }
    for (const id of this.handles.keys()) if (!ports.some(({ port }) => port === id)) this.#remove(id)
    for (const info of ports) this.handle(info).update({ guestOpen: info.guestOpen, hostConnected: info.hostConnected })
  }

  #end(reason: VmchannelError): void {
    for (const handle of this.handles.values()) handle.setGone(reason)
    this.handles.clear()
    this.attached = false
    this.started = false
    this.#owner.closed(reason)
  }
}
