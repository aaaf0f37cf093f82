/**
 * A unix socket: listening (one peer at a time, the next waits) or connecting. Called by the registry.
 */

import { chmodSync } from 'node:fs'
import { VmchannelError } from '../errors.ts'
import { connectUnix, listenUnix } from '../ffi/unix-listen.ts'
import type { Chardev, ChardevEnd } from './chardev.ts'
import { dial } from './dialer.ts'
import { HALF_CLOSE_MS } from './fd-end.ts'
import { listeningSlot, waitForPeer } from './listener.ts'
import { formatChardevSpec, type UnixSpec } from './spec.ts'

export async function openUnix(spec: UnixSpec, end: ChardevEnd, signal?: AbortSignal): Promise<Chardev> {
  const label = formatChardevSpec(spec)
  const halfCloseMs = spec.halfCloseMs ?? HALF_CLOSE_MS
  if (spec.server === false) {
    const connect = async (): Promise<number> => connectUnix(spec.path)
    return dial(end, { label, halfCloseMs, target: spec.path, connect, reconnectMs: spec.reconnectMs ?? 0 }, signal)
  }
  const source = listenUnix(spec.path)
  try {
    // Made for the owner alone; only ever widened.
    if (spec.mode !== undefined && spec.mode !== 0o600) chmodSync(spec.path, spec.mode)
  } catch (cause) {
    source.close()
    throw new VmchannelError('ERR_VMCHANNEL_CHARDEV', `${spec.path}: cannot set mode 0${spec.mode!.toString(8)}`, {
      cause,
    })
  }
  const slot = listeningSlot(end, source, { label, halfCloseMs })
  if (spec.wait) await waitForPeer(slot, signal)
  return slot.start()
}
