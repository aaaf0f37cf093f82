/**
 * The ports of a driver as character devices: each generic port gets its node, each console a pty, when the host has
 * said what it is, and loses it when it goes. Called by session.ts with the driver's events.
 */

import { readFileSync } from 'node:fs'
import { BusyLoop, type Waker } from '../chardev/cuse/busy-loop.ts'
import { CuseDevice } from '../chardev/cuse/device.ts'
import { openPtyChardev } from '../chardev/pty.ts'
import { describeError } from '../errors.ts'
import type { DriverPort } from '../driver/port.ts'
import type { DriverPortEvent } from '../driver/port-settings.ts'
import type { Log } from '../log.ts'
import { chooseName, linkPort, unlinkPort } from './names.ts'
import { Settling } from './settling.ts'
import type { PortView } from './session.ts'

export interface BoardOptions {
  /** Several programs may have a port open. */
  share?: boolean
  log: Log
}

/** Ports that are looked at in one go by who looks all the time; interrupts tell of the others. */
const LOOKS_MAX = 32

interface Shown {
  /** Undefined for a console, which is a pty. */
  readonly device: CuseDevice | undefined
  /** Below /dev. */
  readonly name: string
  readonly minor: number | undefined
  /** The link in virtio-ports, where there is one. */
  link: string | undefined
}

export class PortBoard implements PortView {
  readonly #options: BoardOptions
  readonly #shown = new Map<DriverPort, Shown>()
  /** Those of them that are character devices, for who comes by all the time. */
  readonly #devices: { readonly port: DriverPort; readonly device: CuseDevice }[] = []
  readonly #settling = new Settling((port) => this.#show(port))
  /** Device number of all our nodes: the kernel has few majors, and gives one to each device that names none. */
  #major = 0
  readonly #busy = new BusyLoop(
    () => this.#poll(),
    () => this.#rest(),
    () => this.#devices[0]?.port.turnOver ?? false,
  )
  #next = 0

  constructor(options: BoardOptions) {
    this.#options = options
  }

  attached(wakers: readonly Waker[]): void {
    this.#busy.setWakers(wakers)
  }

  /** After an interrupt: there is more to come. */
  served(): void {
    this.#busy.run()
  }

  handle({ event, port }: DriverPortEvent): void {
    if (event === 'added') this.#settling.begin(port)
    else if (event === 'console') this.#showConsole(port)
    else if (event === 'named' && this.#shown.has(port)) this.#link(port)
    else if (event === 'named' || event === 'host-open') this.#settling.now(port)
    else if (event === 'removed' || event === 'broken' || event === 'stopped') this.#hide(port)
    if (event === 'host-open' || event === 'host-close') this.#shown.get(port)?.device?.setHostOpen(port.hostOpen)
  }

  /**
   * Looks into the rings of ports that programs have open: of all, or of some where there are many, others each time.
   */
  #poll(): boolean {
    let some = false
    const all = this.#devices
    for (let n = Math.min(all.length, LOOKS_MAX); n > 0; n--) {
      if (this.#next >= all.length) this.#next = 0
      const one = all[this.#next++]
      if (one?.device.connected && one.port.poll()) some = true
    }
    return some
  }

  #rest(): void {
    for (const { port } of this.#devices) port.rest()
  }

  #show(port: DriverPort): void {
    if (port.gone || port.console || this.#shown.has(port)) return
    const { log, share = false } = this.#options
    const all = [...this.#shown.values()].filter(({ device }) => device !== undefined)
    const name = chooseName(port.name, new Set(all.map((shown) => shown.name)))
    const minor = lowestFree(new Set(all.map((shown) => shown.minor)))
    const major = all.length === 0 ? 0 : this.#major
    try {
      const device = port.attach(
        (end) => new CuseDevice({ name, major, minor, share, busy: this.#busy }, end),
      ) as CuseDevice
      this.#shown.set(port, { device, name, minor, link: undefined })
      this.#devices.push({ port, device })
      if (major === 0) this.#major = majorOf(name)
      device.setHostOpen(port.hostOpen)
    } catch (error) {
      log.error(`port ${port.id}: ${describeError(error)}`)
      return
    }
    this.#link(port)
    log.info(`port ${port.id}: /dev/${name}${port.name === undefined ? '' : ` (${port.name})`}`)
  }

  /** A console is for a terminal program or a getty: its ports have line settings and a size, so it is a pty. */
  #showConsole(port: DriverPort): void {
    this.#settling.forget(port)
    // The host may say so of a port that has a node already: it keeps that.
    if (port.gone || this.#shown.has(port)) return
    try {
      const { place = '' } = port.attach((end) => openPtyChardev({ kind: 'pty' }, end))
      this.#shown.set(port, { device: undefined, name: place.replace('/dev/', ''), minor: undefined, link: undefined })
      this.#options.log.info(`port ${port.id}: console at ${place}`)
    } catch (error) {
      this.#options.log.error(`port ${port.id}: ${describeError(error)}`)
      return
    }
    this.#link(port)
  }

  #link(port: DriverPort): void {
    const shown = this.#shown.get(port)
    if (!shown || port.name === undefined || shown.link !== undefined) return
    const problem = linkPort(port.name, shown.name)
    if (problem === undefined) shown.link = port.name
    else this.#options.log.warn(`port ${port.id}: ${problem}; it is /dev/${shown.name} only`)
  }

  #hide(port: DriverPort): void {
    this.#settling.forget(port)
    const shown = this.#shown.get(port)
    if (!shown) return
    this.#shown.delete(port)
    const at = this.#devices.findIndex((one) => one.port === port)
    if (at >= 0) this.#devices.splice(at, 1)
    if (shown.link !== undefined) unlinkPort(shown.link, shown.name)
    this.#options.log.info(`port ${port.id}: /dev/${shown.name} is gone`)
  }
}

function lowestFree(taken: ReadonlySet<number | undefined>): number {
  let n = 0
  while (taken.has(n)) n++
  return n
}

function majorOf(name: string): number {
  return Number(readFileSync(`/sys/class/cuse/${name}/dev`, 'latin1').split(':')[0])
}
