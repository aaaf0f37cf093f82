/**
 * One VM of the device process: its memory, the console device as a PCI function, the socket its VMM connects to, and
 * its ports with their back ends. Made by device-process.ts.
 */

import { join } from 'node:path'
import type { Chardev, ChardevEnd } from '../chardev/chardev.ts'
import { openChardev } from '../chardev/registry.ts'
import { listenVfioUser, UNSHARED_HINT, type VfioUserServer } from '../device/attach/vfio-user/server.ts'
import { ConsoleDevice } from '../device/console.ts'
import { VirtioPci } from '../device/pci/virtio-pci.ts'
import type { Port } from '../device/port.ts'
import { Scheduler } from '../device/work.ts'
import { VmmNotes } from '../device/attach/vfio-user/vmm-notes.ts'
import { describeError, VmchannelError } from '../errors.ts'
import { soon } from '../ffi/soon.ts'
import type { Log } from '../log.ts'
import { GuestMemory } from '../mem/guest-memory.ts'
import { checkPortSpec, type PortSpec } from '../port-spec.ts'
import type { Ledger } from '../mem/ledger.ts'
import type { Store } from '../store.ts'
import { UsernetServer } from '../usernet/host-end.ts'
import { usernetArguments } from '../usernet/place.ts'
import { probeCoherency } from './coherency.ts'
import { sharedLedger, type SharedLedger } from './keeper-link.ts'
import type { ControlEvent, PortInfo, PortRef, PortStats, VmInfo, VmOptions } from './protocol.ts'

const DRAIN_MS = 5000
const BUFFER = 64 << 10
/** All VMs of this process share its event loop. */
const SCHEDULER = new Scheduler(setImmediate)

export interface VmContext {
  log: Log
  stateDir: string
  /** For a VM that outlives this process. */
  store: Store | undefined
  /** Processes that had this VM before, and died. */
  restarts: number
  /** This VM was theirs: what they have left in the store is its. */
  resumed: boolean
  emit(event: Omit<ControlEvent, 'time'>): void
  /** The VMM has gone. */
  detached(): void
}

export class Vm {
  readonly name: string
  readonly memory: GuestMemory = new GuestMemory()
  readonly #context: VmContext
  readonly #log: Log
  readonly #device: ConsoleDevice
  readonly #stop = new AbortController()
  readonly #ledger: Ledger
  readonly #shared: SharedLedger
  #server: VfioUserServer | UsernetServer | undefined
  #problem: string | null = null

  /** Opens everything or nothing. */
  static async start(
    name: string,
    options: VmOptions & { ports?: readonly (string | PortSpec)[] },
    context: VmContext,
    signal?: AbortSignal,
  ): Promise<Vm> {
    const vm = new Vm(name, options, context)
    try {
      const missing = context.resumed ? await vm.#resumePorts() : []
      if (!context.resumed)
        for (const [i, port] of (options.ports ?? []).entries())
          await vm.addPort(checkPortSpec(port, `vm ${name}, port ${i + 1}`), signal)
      if (options.transport === 'usernet') vm.#listenUsernet(options)
      else await vm.#listen(options)
      // Only now does the device know what the guest was told.
      for (const id of missing) vm.removePort(id)
      vm.#shared.commit()
      return vm
    } catch (error) {
      vm.close()
      vm.#shared.abandon()
      throw error
    }
  }

  private constructor(name: string, options: VmOptions, context: VmContext) {
    this.name = name
    this.#context = context
    this.#log = context.log.scope?.(name) ?? context.log
    const { maxPorts, queueSize, resizeOrder, iommuPlatform } = options
    // Over user networking the rings are this process's own, and end with it.
    this.#shared = sharedLedger(options.transport === 'usernet' ? undefined : context.store)
    const { ledger } = this.#shared
    this.#ledger = ledger
    this.#device = new ConsoleDevice({
      ledger,
      ...(maxPorts === undefined ? {} : { maxPorts }),
      ...(queueSize === undefined ? {} : { queueSize }),
      ...(resizeOrder === undefined ? {} : { resizeOrder }),
      ...(iommuPlatform === undefined ? {} : { iommuPlatform }),
      log: this.#log,
      scheduler: SCHEDULER,
      // Over user networking a notification is a call.
      soon: options.transport === 'usernet' ? undefined : soon,
      onEvent: ({ event, port }) => this.#emit({ event, port: port.id, name: port.settings.name ?? null }),
      onDriver: (started) => this.#emit({ event: started ? 'driver-started' : 'driver-reset' }),
    })
  }

  #listenUsernet({ socket }: VmOptions): void {
    this.#server = new UsernetServer({
      path: socket ?? join(this.#context.stateDir, `${this.name}.usernet.sock`),
      device: this.#device,
      log: this.#log,
      store: this.#context.store?.scope('usernet'),
      onAttach: () => this.#emit({ event: 'vmm-attached' }),
      onDetach: () => this.#detached(),
    })
  }

  #detached(): void {
    this.#emit({ event: 'vmm-detached' })
    this.#context.detached()
  }

  async #listen(options: VmOptions): Promise<void> {
    const { vectors, socket } = options
    const ledger = this.#ledger
    const pci = new WatchedPci(this.#device, this.memory, { ledger, ...(vectors === undefined ? {} : { vectors }) })
    const notes = new VmmNotes(ledger)
    const store = this.#context.store?.scope('vfio')
    const server = await listenVfioUser({
      path: socket ?? join(this.#context.stateDir, `${this.name}.vfio.sock`),
      memory: this.memory,
      function: pci,
      log: this.#log,
      keep: store && { store, notes },
      onAttach: () => {
        this.#solved()
        this.#emit({ event: 'vmm-attached' })
      },
      onDetach: () => {
        this.#solved()
        this.#detached()
      },
      onUnshared: () => this.#refuse(`the VMM does not share the guest's memory; ${UNSHARED_HINT}`),
    })
    pci.onBusMaster = () => void this.#checkMemory(server)
    this.#server = server
  }

  get info(): VmInfo {
    const socket = this.#server?.path ?? ''
    const usernet = this.#server instanceof UsernetServer
    return {
      vm: this.name,
      socket,
      transport: usernet ? 'usernet' : 'vfio-user',
      attached: this.#server?.attached ?? false,
      started: this.#device.started,
      maxPorts: this.#device.maxPorts,
      ports: this.#device.ports.length,
      problem: this.#problem,
      qemuArgs: usernet
        ? usernetArguments(socket, 'vmchannel')
        : ['-device', JSON.stringify({ driver: 'vfio-user-pci', socket: { type: 'unix', path: socket } })],
    }
  }

  get attached(): boolean {
    return this.#server?.attached ?? false
  }

  /** Adds a port; the signal ends the wait for its back end. */
  async addPort(spec: PortSpec, signal?: AbortSignal, resumed = false): Promise<PortInfo> {
    const { chardev, name, id, console = false, policy = 'block', buffer = BUFFER, onClose, drainMs = DRAIN_MS } = spec
    const both = signal ? AbortSignal.any([signal, this.#stop.signal]) : this.#stop.signal
    const settings = { name, id, console, policy, buffer, onClose, drainMs }
    const open = async (end: ChardevEnd): Promise<Chardev> => {
      if (both.aborted) throw closed(this.name)
      const opened = await openChardev(chardev, end, both, this.#endStore((end as Port).id))
      if (!both.aborted) return opened
      opened.close()
      throw closed(this.name)
    }
    const port = await this.#device.addPort(settings, open, resumed)
    this.#context.store?.scope('port').keep(String(port.id), [], JSON.stringify({ ...spec, id: port.id }))
    const { cols, rows } = spec
    if (!resumed && console && cols !== undefined && rows !== undefined) this.#device.resizePort(port.id, cols, rows)
    return this.portInfo(port)
  }

  removePort(ref: PortRef): void {
    const { id } = this.port(ref)
    // First: a successor goes on with the removal, or has the port as it was.
    this.#context.store?.scope('port').forget(String(id))
    this.#device.removePort(id)
    this.#endStore(id)?.clear()
  }

  /**
   * The ports that the process before had, with who was there. Of one whose back end cannot be had again there is only
   * what the guest has; returned are those, which are to be removed.
   */
  async #resumePorts(): Promise<number[]> {
    const store = this.#context.store!.scope('port')
    const missing: number[] = []
    for (const id of store.left()) {
      const spec = checkPortSpec(JSON.parse(store.recall(id)!.note), `port ${id}`)
      const { resumed } = this.#ledger
      try {
        await this.addPort(spec, undefined, resumed)
      } catch (error) {
        this.#log.error(`port ${id} cannot be taken over, and is removed: ${describeError(error)}`)
        await this.addPort({ ...spec, chardev: { kind: 'null' } }, undefined, resumed)
        missing.push(Number(id))
      }
    }
    return missing
  }

  #endStore(id: number): Store | undefined {
    return this.#context.store?.scope('end').scope(String(id))
  }

  resizePort(ref: PortRef, cols: number, rows: number): void {
    this.#device.resizePort(this.port(ref).id, cols, rows)
  }

  get ports(): Port[] {
    return this.#device.ports
  }

  /** A port by number, or by name. */
  port(ref: PortRef): Port {
    const port = typeof ref === 'number' ? this.#device.port(ref) : this.ports.find((p) => p.settings.name === ref)
    if (port) return port
    const names = this.ports.map((p) => (p.settings.name === undefined ? String(p.id) : `${p.id} (${p.settings.name})`))
    const what = typeof ref === 'number' ? `number ${ref}` : `named ${JSON.stringify(ref)}`
    throw new VmchannelError('ERR_VMCHANNEL_NOT_FOUND', `VM ${this.name} has no port ${what}`, {
      hint: names.length === 0 ? 'it has no ports at all' : `it has: ${names.slice(0, 32).join(', ')}`,
    })
  }

  portInfo(port: Port): PortInfo {
    const { id, settings, chardev } = port
    return {
      vm: this.name,
      port: id,
      name: settings.name ?? null,
      console: settings.console,
      chardev: chardev?.label ?? '',
      place: chardev?.place ?? null,
      policy: settings.policy,
      guestOpen: port.guestOpen,
      guestReady: port.guestReady,
      hostConnected: port.hostConnected,
    }
  }

  portStats(port: Port): PortStats {
    return { ...this.portInfo(port), restarts: this.#context.restarts, counters: port.stats() }
  }

  /** Hangs up on the VMM, removes sockets and back ends. */
  close(): void {
    this.#stop.abort()
    this.#server?.close()
    this.#device.close()
  }

  /** Before the driver is told that the device takes it, or soon after: a guest that spins needs at least a reason. */
  async #checkMemory(server: VfioUserServer): Promise<void> {
    if (!server.attached || this.#problem !== null) return
    const found = await probeCoherency(server, this.memory)
    if (found === 'different' && server.attached)
      this.#refuse(`the VMM keeps what the guest writes to itself (share=off); ${UNSHARED_HINT}`)
  }

  #refuse(reason: string): void {
    if (this.#problem !== null) return
    this.#problem = reason
    this.#device.refuse(reason)
    this.#log.error(reason)
    this.#emit({ event: 'problem', message: reason })
  }

  #solved(): void {
    this.#problem = null
    this.#device.refuse(undefined)
  }

  #emit(event: Omit<ControlEvent, 'time' | 'vm'>): void {
    this.#context.emit({ ...event, vm: this.name })
  }
}

/** Tells when the guest lets the device touch memory. */
class WatchedPci extends VirtioPci {
  onBusMaster: (() => void) | undefined
  #on = false

  override writeConfig(offset: number, data: Uint8Array): void {
    super.writeConfig(offset, data)
    const command = new Uint8Array(2)
    this.readConfig(4, command)
    const on = (command[0]! & 4) !== 0
    if (on && !this.#on) this.onBusMaster?.()
    this.#on = on
  }

  override reset(): void {
    super.reset()
    this.#on = false
  }
}

function closed(name: string): VmchannelError {
  return new VmchannelError('ERR_VMCHANNEL_CLOSED', `VM ${name} was closed before its port was open`)
}
