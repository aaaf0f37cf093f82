/**
 * The vfio-user server: waits at a path for a VMM and lends it a PCI function, one VMM at a time, for ever.
 *
 * Called by the device process, one server per VM. Follows what QEMU 10.1 to 11.1 really sends.
 */

import { describeError } from '../../../errors.ts'
import { closeFd } from '../../../ffi/libc.ts'
import { Watch } from '../../../ffi/poll.ts'
import { listenKept, type UnixListener } from '../../../ffi/unix-listen.ts'
import type { Log } from '../../../log.ts'
import type { GuestMemory } from '../../../mem/guest-memory.ts'
import { recallFd, type Store } from '../../../store.ts'
import type { PciFunction } from '../../pci/function.ts'
import type { Coherency } from './coherency.ts'
import { Connection } from './connection.ts'
import type { UnsharedMemory } from './dma.ts'
import { Session, type SessionCounters } from './session.ts'
import type { VmmNotes } from './vmm-notes.ts'

/** Connections that have not said VERSION yet; each has a few seconds. */
const MAX_WAITING = 4

export interface VfioUserOptions {
  /** Path of the socket that the VMM connects to. */
  path: string
  /** Filled with the guest's memory while a VMM is attached; empty otherwise. Belongs to the server. */
  memory: GuestMemory
  function: PciFunction
  log: Log
  /** For a server that has a successor, or is one. */
  keep?: { store: Store; notes: VmmNotes } | undefined
  onAttach?(): void
  /** The VMM is gone; the function is reset and the memory empty. */
  onDetach?(reason: string): void
  /** The VMM shares no memory with us: the device cannot work. Told once per VMM, before the guest runs. */
  onUnshared?(memory: UnsharedMemory): void
}

export interface VfioUserServer {
  readonly path: string
  readonly attached: boolean
  /** Of the VMM that is attached. */
  readonly counters: Readonly<SessionCounters> | undefined
  /**
   * Compares a piece of guest memory through the VMM with the same piece through our mapping: 'different' means that
   * the VMM keeps the guest's writes to itself (`share=off`). Needs the bus master bit. Choose memory that is not zero.
   */
  checkCoherent(address: number, len: number): Promise<Coherency>
  /** The memory at `address`, where the VMM has it and does not share it. */
  unsharedAt(address: number): UnsharedMemory | undefined
  /** Hangs up, stops listening, removes the socket. */
  close(): void
}

/** What helps against unshared memory; for the log line that `onUnshared` is for. */
export const UNSHARED_HINT =
  'give the machine shared memory: -object memory-backend-memfd,id=mem,size=SIZE,share=on -machine memory-backend=mem'

/** Listens for a VMM. Rejects with VmchannelError. */
export async function listenVfioUser(options: VfioUserOptions): Promise<VfioUserServer> {
  return new Server(options)
}

class Server implements VfioUserServer {
  readonly #options: VfioUserOptions
  readonly #listener: UnixListener
  readonly #watch: Watch
  /** Connected, without having said VERSION. */
  readonly #waiting = new Set<Connection>()
  /** The VMM that has the device. Nobody else has a session. */
  #vmm: { connection: Connection; session: Session } | undefined
  #closed = false
  #retry: NodeJS.Timeout | undefined
  #toldSecond = false

  constructor(options: VfioUserOptions) {
    this.#options = options
    const { keep } = options
    this.#listener = listenKept(options.path, keep?.store)
    this.#watch = new Watch(this.#listener.fd, () => this.#accept())
    this.#watch.want(true, false)
    const fd = recallFd(keep?.store.scope('vmm'), 'connection')
    if (fd === undefined) return
    const connection = this.#start(fd, true)
    if (!keep!.notes.attached) return
    const { incomplete } = this.#makeSession(connection, keep!.notes.dataLimit, true)
    if (incomplete === undefined) return
    options.log.error(`${options.path}: the VMM's connection cannot be taken over, and is ended: ${incomplete}`)
    connection.end(incomplete)
  }

  get path(): string {
    return this.#options.path
  }

  get attached(): boolean {
    return this.#vmm !== undefined
  }

  get counters(): Readonly<SessionCounters> | undefined {
    return this.#vmm?.session.counters
  }

  checkCoherent(address: number, len: number): Promise<Coherency> {
    return this.#vmm?.session.checkCoherent(address, len) ?? Promise.resolve('unknown')
  }

  unsharedAt(address: number): UnsharedMemory | undefined {
    return this.#vmm?.session.unsharedAt(address)
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    clearTimeout(this.#retry)
    this.#watch.close()
    this.#listener.close()
    for (const connection of this.#waiting) connection.end('the device was closed')
    this.#vmm?.connection.end('the device was closed')
  }

  #accept(): void {
    const { log, path } = this.#options
    let fd: number | undefined
    try {
      fd = this.#listener.accept()
    } catch (error) {
      // Out of descriptors, most likely: try again later instead of spinning on a socket that stays readable.
      if (!this.#retry) log.error(`${describeError(error)}; tried again every second`)
      this.#watch.want(false, false)
      this.#retry = setTimeout(() => this.#watch.want(true, false), 1000)
      return
    }
    this.#retry = undefined
    if (fd === undefined) return
    if (this.#waiting.size < MAX_WAITING) {
      this.#start(fd)
      return
    }
    closeFd(fd)
    log.warn(`${path}: a connection was refused, ${MAX_WAITING} others have yet to say who they are`)
  }

  /**
   * A connection is nobody's until it says VERSION. `kept`: its predecessor was about to tell it that it is attached.
   */
  #start(fd: number, kept = false): Connection {
    const { log, path, keep } = this.#options
    const connection: Connection = new Connection(fd, {
      careful: keep !== undefined,
      attach: (version) => this.#attach(connection, version.maxDataXfer),
      ended: (reason) => {
        if (this.#waiting.delete(connection)) {
          log.debug(`${path}: a connection ended before it was a VMM's: ${reason}`)
          if (kept) keep?.store.scope('vmm').forget('connection')
        }
        if (this.#vmm?.connection !== connection) return
        this.#vmm = undefined
        log.info(`${path}: VMM detached: ${reason}`)
        this.#tell('onDetach', () => this.#options.onDetach?.(reason))
      },
    })
    this.#waiting.add(connection)
    return connection
  }

  #attach(connection: Connection, limit: number): Session | undefined {
    const { log, path } = this.#options
    if (this.#vmm) {
      // Whoever tries for ever must not fill the log.
      if (!this.#toldSecond) log.warn(`${path}: a second VMM was refused, one is attached`)
      this.#toldSecond = true
      return undefined
    }
    this.#toldSecond = false
    const session = this.#makeSession(connection, limit, false)
    log.info(`${path}: VMM attached`)
    this.#tell('onAttach', () => this.#options.onAttach?.())
    return session
  }

  /** The one place that gives memory, registers, interrupts and store to somebody. */
  #makeSession(connection: Connection, limit: number, resumed: boolean): Session {
    const { memory, log, keep, function: pci } = this.#options
    const session = new Session(connection.fd, connection.stream, limit, {
      memory,
      pci,
      log,
      keep: keep && { store: keep.store.scope('vmm'), notes: keep.notes, resumed },
      unshared: (found) => this.#tell('onUnshared', () => this.#options.onUnshared?.(found)),
    })
    this.#waiting.delete(connection)
    this.#vmm = { connection, session }
    connection.become(session)
    return session
  }

  /** Our caller's mistakes are not the VMM's problem. */
  #tell(what: string, callback: () => void): void {
    try {
      callback()
    } catch (error) {
      this.#options.log.error(`${what}: ${describeError(error)}`)
    }
  }
}
