/**
 * What a case for a device has in its hands: a raw driver, and the host's side of the ports where there is one. Made anew
 * for each case (suite.ts).
 */

import { VIRTIO_CONSOLE_PORT_OPEN } from '../../src/spec/console.ts'
import { VIRTIO_CONSOLE_F_MULTIPORT } from '../../src/spec/features.ts'
import { Finding, NotApplicable } from '../case.ts'
import { RawDriver, type PortInfo } from './driver.ts'
import type { HostPeer } from './machine.ts'

export class DeviceTest extends RawDriver {
  /** What the case has done may outlive it: the next one gets a machine of its own. */
  spoiled = false
  /** A host peer has connected since the last `leave`. */
  #peers = false

  /** A port that is no console. */
  serial(): PortInfo {
    for (const port of this.ports.values()) if (!port.console) return port
    throw new NotApplicable('the device has no port that is not a console')
  }
  /** Any port. */
  port(): PortInfo {
    for (const port of [...this.ports.values()].toSorted((a, b) => Number(a.console) - Number(b.console))) return port
    throw new NotApplicable('the device has no port')
  }
  consolePort(): PortInfo {
    for (const port of this.ports.values()) if (port.console) return port
    throw new NotApplicable('the device has no console port')
  }

  /** Opens a port in the guest. */
  async open(port: PortInfo): Promise<void> {
    if (this.negotiated(VIRTIO_CONSOLE_F_MULTIPORT)) await this.say(port.id, VIRTIO_CONSOLE_PORT_OPEN, 1)
  }

  /** A host peer of a port, of which the guest may not have heard yet; undefined where nobody said how to connect. */
  dial(port: PortInfo): Promise<HostPeer | undefined> {
    this.#peers = true
    return this.machine.host.connect(port)
  }

  /** A host peer of a port, of which the guest has heard; undefined where nobody said how to connect. */
  async tryConnect(port: PortInfo): Promise<HostPeer | undefined> {
    const peer = await this.dial(port)
    if (peer)
      await this.until(() => (this.hear(), port.open), `PORT_OPEN 1 for port ${port.id} when its host peer connects`)
    if (!peer || !port.console) return peer
    // A console may have kept what nobody was there to read.
    await this.settle()
    const old = peer.received().length
    return { ...peer, received: () => peer.received().subarray(old) }
  }
  async connect(port: PortInfo): Promise<HostPeer> {
    const peer = await this.tryConnect(port)
    if (!peer) throw new NotApplicable(`nobody said how the host connects to port ${port.id}`)
    return peer
  }

  /** A port with both ends open; a serial one where there is one. */
  async channel(port: PortInfo = this.port()): Promise<{ port: PortInfo; peer: HostPeer }> {
    const peer = await this.connect(port)
    await this.open(port)
    return { port, peer }
  }

  /** Bytes from the guest, in one buffer. */
  send(port: PortInfo, bytes: Uint8Array | string): void {
    const queue = this.transmitq(port.id)
    queue.put(typeof bytes === 'string' ? Buffer.from(bytes) : bytes)
    queue.notify()
  }

  /** Until the host peer has got exactly these bytes since `from`. */
  async arrives(peer: HostPeer, bytes: Uint8Array | string, from = 0): Promise<void> {
    const expected = Buffer.from(bytes as string)
    await this.until(
      () => peer.received().length >= from + expected.length,
      `${expected.length} bytes at the host's end`,
    )
    const found = peer.received().subarray(from)
    if (!found.equals(expected))
      throw new Finding(
        `the host got ${JSON.stringify(found.subarray(0, 40).toString('latin1'))} of ${found.length} bytes, expected ${JSON.stringify(expected.subarray(0, 40).toString('latin1'))} of ${expected.length}`,
      )
  }

  /**
   * All host peers leave, and the device knows. One that has left bytes for the guest may count as connected until they
   * are read.
   */
  async leave(): Promise<void> {
    if (!this.#peers) return
    this.#peers = false
    this.machine.hangUp()
    await this.up()
    for (const port of this.ports.values()) {
      if (port.console || !port.open) continue
      await this.open(port)
      const queue = this.receiveq(port.id)
      for (let i = 0; i < queue.size; i++) queue.postPage(i)
      queue.notify()
      await this.until(() => {
        const used = queue.takeUsed()
        for (const { id } of used) queue.postPage(id)
        if (used.length > 0) queue.notify()
        this.hear()
        return !port.open
      }, `PORT_OPEN 0 for port ${port.id} after its host peer left`)
    }
    this.reset()
  }

  /** The device still serves a driver from the start: what every attack has to leave behind. */
  async works(): Promise<void> {
    const dead = this.machine.dead()
    if (dead !== undefined) throw new Finding(dead)
    this.registers.busMaster(true)
    await this.leave()
    await this.up()
    const port = this.port()
    const peer = await this.tryConnect(port)
    await this.open(port)
    const queue = this.transmitq(port.id)
    this.send(port, 'still here')
    await this.until(() => queue.usedIdx === 1, 'a buffer back from a transmitq after a reset')
    if (!peer) return
    await this.until(() => peer.received().includes('still here'), 'bytes at the host after a reset')
    peer.close()
  }

  /** Several attacks under one id, each on a fresh driver; all that fail are told, by name. */
  async parts(parts: Readonly<Record<string, () => void | Promise<void>>>): Promise<void> {
    const found: string[] = []
    const not: string[] = []
    for (const [name, run] of Object.entries(parts)) {
      try {
        await run()
      } catch (error) {
        if (error instanceof NotApplicable) not.push(`${name}: ${error.message}`)
        else if (error instanceof Finding) found.push(`${name}: ${error.message}`)
        else throw error
      }
      const dead = this.machine.dead()
      if (dead !== undefined) throw new Finding([...found, `${name}: ${dead}`].join('; '))
    }
    if (found.length > 0) throw new Finding(found.join('; '))
    if (not.length === Object.keys(parts).length) throw new NotApplicable(not.join('; '))
  }
}
