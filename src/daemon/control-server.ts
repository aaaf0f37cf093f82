/**
 * The control socket: accepts this user and root, nobody else, and hands events to those who have subscribed.
 * Made by device-process.ts. Bare descriptors rather than node:net, because a connection can become the far end of a port.
 */

import { describeError } from '../errors.ts'
import { closeFd } from '../ffi/libc.ts'
import { peerCredentials } from '../ffi/local-socket.ts'
import { Watch } from '../ffi/poll.ts'
import { listenKept, type UnixListener } from '../ffi/unix-listen.ts'
import type { Store } from '../store.ts'
import { ControlConnection } from './control-connection.ts'
import type { DeviceProcess } from './device-process.ts'
import type { ControlEvent } from './protocol.ts'

/** Connections that talk at once; those that carry a port's bytes do not count. */
const CONNECTIONS_MAX = 128
const ACCEPT_PAUSE_MS = 1000
const BACKLOG = 511
/** Connections taken in one turn of the event loop. */
const ACCEPT_TURN = 16

export class ControlServer {
  readonly path: string
  readonly #device: DeviceProcess
  readonly #listener: UnixListener
  readonly #watch: Watch
  readonly #connections = new Set<ControlConnection>()
  #pause: NodeJS.Timeout | undefined
  #refused = false
  #full = false
  #closed = false

  constructor(path: string, device: DeviceProcess, store?: Store) {
    this.path = path
    this.#device = device
    this.#listener = listenKept(path, store, BACKLOG)
    this.#watch = new Watch(this.#listener.fd, () => {
      for (let i = 0; i < ACCEPT_TURN && !this.#full && !this.#closed && this.#accept(); i++);
    })
    this.#watch.want(true, false)
  }

  /** Tells everybody who wants to know. Nothing waits for them. */
  publish(event: ControlEvent): void {
    let line: Buffer | undefined
    for (const connection of this.#connections) {
      if (!connection.wants(event)) continue
      line ??= Buffer.from(`${JSON.stringify(event)}\n`)
      connection.publish(line)
    }
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    clearTimeout(this.#pause)
    this.#watch.close()
    for (const connection of this.#connections) connection.close()
    this.#listener.close()
  }

  /** Takes one connection; false where none waits. */
  #accept(): boolean {
    const { log } = this.#device
    let fd: number | undefined
    try {
      fd = this.#listener.accept()
      if (fd === undefined) return false
      if (this.#mayTalk(fd)) this.#open(fd)
      else closeFd(fd)
      return true
    } catch (error) {
      log.error(`control socket: ${describeError(error)}`)
      if (fd !== undefined) closeFd(fd)
      // Out of descriptors, most likely: the connection waits instead of keeping us busy.
      this.#watch.want(false, false)
      this.#pause ??= setTimeout(() => {
        this.#pause = undefined
        if (!this.#full && !this.#closed) this.#watch.want(true, false)
      }, ACCEPT_PAUSE_MS)
      return false
    }
  }

  /** The mode of the socket says so already; a directory that somebody opened to others must not undo it. */
  #mayTalk(fd: number): boolean {
    const { uid, pid } = peerCredentials(fd)
    if (uid === 0 || uid === process.getuid?.()) return true
    if (!this.#refused) this.#device.log.warn(`control socket: user ${uid} (process ${pid}) was turned away`)
    this.#refused = true
    return false
  }

  #open(fd: number): void {
    const connection: ControlConnection = new ControlConnection(fd, this.#device, () => {
      this.#connections.delete(connection)
      if (!this.#full || this.#closed) return
      this.#full = false
      this.#watch.want(true, false)
    })
    this.#connections.add(connection)
    if (this.#connections.size < CONNECTIONS_MAX) return
    // The next ones wait in the kernel's backlog.
    this.#full = true
    this.#watch.want(false, false)
    this.#device.log.warn(`control socket: ${CONNECTIONS_MAX} connections are open, others have to wait`)
  }
}
