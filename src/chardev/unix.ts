/**
 * A unix socket: listening (one peer at a time, the next waits) or connecting. Called by the registry.
 */

import { chmodSync } from 'node:fs'
import { VmchannelError } from '../errors.ts'
import { adoptListener, connectUnix, listenKept, type UnixListener } from '../ffi/unix-listen.ts'
import type { Store } from '../store.ts'
import type { Chardev, ChardevEnd } from './chardev.ts'
import { dial } from './dialer.ts'
import { HALF_CLOSE_MS } from './fd-end.ts'
import { listeningSlot, waitForPeer } from './listener.ts'
import { formatChardevSpec, type UnixSpec } from './spec.ts'

export async function openUnix(spec: UnixSpec, end: ChardevEnd, signal?: AbortSignal, store?: Store): Promise<Chardev> {
  const label = formatChardevSpec(spec)
  const halfCloseMs = spec.halfCloseMs ?? HALF_CLOSE_MS
  const { path, fd } = spec
  const resumed = (store?.left().length ?? 0) > 0
  if (spec.server === false) {
    // The process before has had it.
    let given = resumed ? undefined : fd
    const connect = async (): Promise<number> => {
      if (path !== undefined) return connectUnix(path)
      // A connection that was handed over cannot be made again.
      if (given === undefined) throw new VmchannelError('ERR_VMCHANNEL_CLOSED', `${label}: its peer has gone for good`)
      const once = given
      given = undefined
      return once
    }
    const target = path ?? label
    return dial(end, { label, halfCloseMs, target, connect, reconnectMs: spec.reconnectMs ?? 0, store }, signal)
  }
  const slot = listeningSlot(end, listen(spec, store, resumed), { label, halfCloseMs, store })
  if (spec.wait && !resumed) await waitForPeer(slot, signal)
  return slot.start()
}

function listen({ path, fd, mode }: UnixSpec, store: Store | undefined, resumed: boolean): UnixListener {
  if (path === undefined) return adoptListener(fd!, store)
  const source = listenKept(path, store)
  try {
    // Made for the owner alone; only ever widened.
    if (!resumed && mode !== undefined && mode !== 0o600) chmodSync(path, mode)
    return source
  } catch (cause) {
    source.close()
    throw new VmchannelError('ERR_VMCHANNEL_CHARDEV', `${path}: cannot set mode 0${mode!.toString(8)}`, { cause })
  }
}
