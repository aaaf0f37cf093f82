/**
 * All that one device process owns: its VMs, its state directory, its control socket. `start` makes everything or
 * nothing, `close` removes all of it. Called by main.ts; methods.ts works on it.
 */

import { symlinkSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { describeError, VmchannelError } from '../errors.ts'
import { holdDir } from '../ffi/flock.ts'
import { closeFd } from '../ffi/libc.ts'
import type { Log } from '../log.ts'
import type { PortSpec } from '../port-spec.ts'
import type { Store } from '../store.ts'
import { ControlServer } from './control-server.ts'
import type { KeeperLink } from './keeper-link.ts'
import { makeOwnDir } from './own-dir.ts'
import {
  CONTROL_SOCKET,
  PROTOCOL_VERSION,
  type ControlEvent,
  type DaemonConfig,
  type ProcessInfo,
  type VmInfo,
  type VmOptions,
} from './protocol.ts'
import { makePrivateDir, removeDir } from './state-dir.ts'
import { Vm } from './vm.ts'
import { VERSION } from '../version.ts'

const VMS_MAX = 64

export interface DeviceProcessHooks {
  /** Somebody asked for the end. */
  stop(): void
  /** A VMM has gone, and none is left. */
  deserted(): void
}

export class DeviceProcess {
  readonly log: Log
  readonly #hooks: DeviceProcessHooks
  readonly #vms = new Map<string, Vm>()
  /** Names of VMs that are being started. */
  readonly #starting = new Set<string>()
  readonly #stopStarts = new AbortController()
  #control: ControlServer | undefined
  #stateDir = ''
  #madeDir = false
  /** Says that the directory is in use, until this process and its successors have gone. */
  #dirLock: number | undefined
  #closed = false

  readonly #link: KeeperLink | undefined

  constructor(log: Log, link: KeeperLink | undefined, hooks: DeviceProcessHooks) {
    this.log = log
    this.#link = link
    this.#hooks = hooks
  }

  async start(config: DaemonConfig): Promise<void> {
    try {
      const link = this.#link
      const left = link?.recall('state-dir')
      if (left) {
        const { path, made, version } = JSON.parse(left.note) as { path: string; made: boolean; version: string }
        // What lies where in a ledger is a matter of the version.
        if (version !== VERSION)
          throw new VmchannelError('ERR_VMCHANNEL_INTERNAL', `vmchannel ${VERSION} cannot go on where ${version} was`, {
            hint: 'the package was replaced while the device process ran: stop it and start it again',
          })
        this.#stateDir = path
        this.#madeDir = made
        this.#dirLock = left.fds[0]
      } else if (config.stateDir === undefined) {
        this.#stateDir = makeOwnDir()
        this.#madeDir = true
      } else {
        this.#stateDir = resolve(config.stateDir)
        this.#madeDir = makePrivateDir(this.#stateDir)
      }
      if (!left) this.#dirLock = holdDir(this.#stateDir)
      const lock = this.#dirLock === undefined ? [] : [this.#dirLock]
      link?.keep('state-dir', lock, JSON.stringify({ path: this.#stateDir, made: this.#madeDir, version: VERSION }))
      if (link?.resumed) await this.#takeOver(link)
      else for (const vm of config.vms) await this.addVm(vm)
      const usual = join(this.#stateDir, CONTROL_SOCKET)
      const path = config.controlSocket === undefined ? usual : resolve(config.controlSocket)
      this.#control = new ControlServer(path, this, link?.scope('control'))
      // Whoever looks for device processes looks into state directories.
      if (path !== usual && this.#madeDir && !link?.resumed) symlinkSync(path, usual)
      link?.ready()
    } catch (error) {
      // A successor that fails leaves everything as it is, for the next one.
      if (!this.#link?.resumed) this.close()
      throw error
    }
  }

  /** Whom to signal. */
  get pid(): number {
    return this.#link?.pid ?? process.pid
  }

  get info(): ProcessInfo {
    const { pid, stateDir } = this
    const info: ProcessInfo = { version: VERSION, protocol: PROTOCOL_VERSION, pid, stateDir }
    return this.#link ? { ...info, devicePid: process.pid, restarts: this.#link.inheritance.restarts } : info
  }

  get stateDir(): string {
    return this.#stateDir
  }

  get controlSocket(): string {
    return this.#control?.path ?? ''
  }

  get vms(): VmInfo[] {
    return [...this.#vms.values()].map((vm) => vm.info)
  }

  get attached(): boolean {
    return [...this.#vms.values()].some((vm) => vm.attached)
  }

  async addVm(
    options: VmOptions & { ports?: (string | PortSpec)[] },
    signal?: AbortSignal,
    resumed = false,
  ): Promise<VmInfo> {
    const name = options.name ?? this.#freeName()
    if (this.#vms.has(name) || this.#starting.has(name))
      throw new VmchannelError('ERR_VMCHANNEL_IN_USE', `VM name "${name}" is already in use in this device process`)
    if (this.#vms.size + this.#starting.size >= VMS_MAX)
      throw new VmchannelError('ERR_VMCHANNEL_IN_USE', `this device process has ${VMS_MAX} VMs, and takes no more`, {
        hint: 'start another device process',
      })
    this.#starting.add(name)
    try {
      const context = {
        log: this.log,
        stateDir: this.#stateDir,
        store: this.#store(name),
        restarts: this.#link?.inheritance.restarts ?? 0,
        resumed,
        emit: (event: Omit<ControlEvent, 'time'>) => this.#emit(event),
        detached: () => !this.attached && this.#hooks.deserted(),
      }
      const stop = this.#stopStarts.signal
      const vm = await Vm.start(name, options, context, signal ? AbortSignal.any([signal, stop]) : stop)
      const { ports: _, ...own } = options
      this.#store(name)?.keep('options', [], JSON.stringify({ ...own, name }))
      if (this.#closed) {
        vm.close()
        throw new VmchannelError('ERR_VMCHANNEL_CLOSED', 'the device process is ending')
      }
      this.#vms.set(name, vm)
      this.#emit({ event: 'vm-added', vm: name })
      return vm.info
    } finally {
      this.#starting.delete(name)
    }
  }

  removeVm(name: string | undefined): void {
    const vm = this.vm(name)
    this.#vms.delete(vm.name)
    // First: a successor has all of it or nothing.
    this.#store(vm.name)?.clear()
    vm.close()
    this.#emit({ event: 'vm-removed', vm: vm.name })
  }

  /** The VM of that name; without a name the only one there is. */
  vm(name: string | undefined): Vm {
    const names = [...this.#vms.keys()]
    if (name === undefined && names.length > 1)
      throw new VmchannelError('ERR_VMCHANNEL_USAGE', `this device process has ${names.length} VMs: which one?`, {
        hint: `name one of: ${names.join(', ')}`,
      })
    const vm = this.#vms.get(name ?? names[0] ?? '')
    if (vm) return vm
    const what =
      name === undefined ? 'this device process has no VM' : `there is no VM "${name}" in this device process`
    throw new VmchannelError(
      'ERR_VMCHANNEL_NOT_FOUND',
      what,
      names.length === 0 ? {} : { hint: `it has: ${names.join(', ')}` },
    )
  }

  /** The VMs that a request is about: the named one, or all. */
  select(name: string | undefined): Vm[] {
    return name === undefined ? [...this.#vms.values()] : [this.vm(name)]
  }

  stop(): void {
    this.#hooks.stop()
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#stopStarts.abort()
    const steps = [...this.#vms.values()].map((vm) => () => vm.close())
    for (const step of [() => this.#control?.close(), ...steps])
      try {
        step()
      } catch (error) {
        this.log.error(`at the end: ${String(error)}`)
      }
    if (this.#madeDir) removeDir(this.#stateDir)
    if (this.#dirLock !== undefined) closeFd(this.#dirLock)
  }

  #store(vm: string): Store | undefined {
    return this.#link?.scope('vm').scope(vm)
  }

  /** Goes on where the process before this one died: with its VMs, those that were added while it ran included. */
  async #takeOver(link: KeeperLink): Promise<void> {
    const vms = link.scope('vm')
    for (const name of vms.left()) {
      const left = name.endsWith('/options') ? vms.recall(name) : undefined
      if (!left) continue
      try {
        await this.addVm(JSON.parse(left.note) as VmOptions, undefined, true)
      } catch (error) {
        // It alone ends: what is left of it nobody recalls, and its VMM finds its connection closed.
        this.log.error(
          `VM ${name.slice(0, -'/options'.length)} cannot be taken over, and ends: ${describeError(error)}`,
        )
        setImmediate(() => !this.attached && this.#hooks.deserted())
      }
    }
    const { restarts, why, diedAt } = link.inheritance
    this.log.warn(`taken over after ${Date.now() - diedAt} ms from a process that died of ${why} (restart ${restarts})`)
  }

  #freeName(): string {
    for (let i = 0; ; i++) if (!this.#vms.has(`vm${i}`) && !this.#starting.has(`vm${i}`)) return `vm${i}`
  }

  #emit(event: Omit<ControlEvent, 'time'>): void {
    this.#control?.publish({ ...event, time: Date.now() })
  }
}
