/**
 * Who looks at the guest's screen, from QEMU's VNC events. Pure; watch.ts feeds it.
 *
 * A viewer is a connection that got through the handshake (VNC_INITIALIZED). Others come and go as well: port scans, wrong
 * passwords. Over TCP each has an address of its own. On a unix socket they have none, so they are counted; where it
 * cannot be known whether a viewer or another left, it was the other, which came last and stays shortest.
 */

import type { VncClient } from '../qmp/protocol.ts'

export type ViewerEvent = 'VNC_CONNECTED' | 'VNC_INITIALIZED' | 'VNC_DISCONNECTED'

export function isViewerEvent(name: string): name is ViewerEvent {
  return name === 'VNC_CONNECTED' || name === 'VNC_INITIALIZED' || name === 'VNC_DISCONNECTED'
}

export class Viewers {
  /** Those with an address: whether they are initialised. */
  readonly #named = new Map<string, boolean>()
  #connecting = 0
  #viewing = 0

  /** Those who were there before us count as viewers: QEMU does not say how far they got. */
  constructor(present: readonly VncClient[] = []) {
    for (const client of present) this.take('VNC_INITIALIZED', client)
  }

  get count(): number {
    return this.#viewing + [...this.#named.values()].filter(Boolean).length
  }

  /** True where this was the last viewer leaving. */
  take(event: ViewerEvent, client: VncClient): boolean {
    const before = this.count
    const key = client.host === '' && client.service === '' ? undefined : `${client.host} ${client.service}`
    if (key === undefined) this.#unnamed(event)
    else if (event === 'VNC_DISCONNECTED') this.#named.delete(key)
    else if (event === 'VNC_INITIALIZED') this.#named.set(key, true)
    else if (!this.#named.has(key)) this.#named.set(key, false)
    return before > 0 && this.count === 0
  }

  /** What query-vnc-servers has now: nobody can be there who is not in it. True where the last viewer is gone. */
  correct(present: readonly VncClient[]): boolean {
    const before = this.count
    const keys = new Set(present.map(({ host, service }) => `${host} ${service}`))
    for (const key of this.#named.keys()) if (!keys.has(key)) this.#named.delete(key)
    const unnamed = present.filter(({ host, service }) => host === '' && service === '').length
    this.#viewing = Math.min(this.#viewing, unnamed)
    this.#connecting = Math.min(this.#connecting, unnamed - this.#viewing)
    return before > 0 && this.count === 0
  }

  #unnamed(event: ViewerEvent): void {
    if (event === 'VNC_CONNECTED') this.#connecting++
    else if (event === 'VNC_INITIALIZED') {
      this.#connecting = Math.max(0, this.#connecting - 1)
      this.#viewing++
    } else if (this.#connecting > 0) this.#connecting--
    else this.#viewing = Math.max(0, this.#viewing - 1)
  }
}
