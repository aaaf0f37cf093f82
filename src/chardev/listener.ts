/**
 * Fills a PeerSlot from a listening socket: one peer at a time, the next waits in the kernel's backlog, as with QEMU.
 * Used by unix.ts and tcp.ts.
 */

import { describeError, VmchannelError } from '../errors.ts'
import { Watch } from '../ffi/poll.ts'
import { readableNow } from '../ffi/rw.ts'
import type { ChardevEnd } from './chardev.ts'
import { PeerSlot, type SlotOptions } from './peer-slot.ts'

/** Pause after an accept that failed for want of descriptors or memory. */
const ACCEPT_PAUSE_MS = 1000

export interface ListenSource {
  readonly fd: number
  /** A waiting connection, or undefined. Throws where it cannot be had. */
  accept(): number | undefined
  /** Stops listening and removes what it made. */
  close(): void
}

/** A slot that takes its peers from `source`. */
export function listeningSlot(
  end: ChardevEnd,
  source: ListenSource,
  options: Pick<SlotOptions, 'label' | 'halfCloseMs' | 'silentHangup' | 'store'>,
): PeerSlot {
  let warned = false
  let pause: NodeJS.Timeout | undefined
  const watch = new Watch(source.fd, () => take())
  const slot = new PeerSlot(end, {
    ...options,
    contested: () => readableNow(source.fd),
    onVacant: () => take(),
    onClose: () => {
      clearTimeout(pause)
      watch.close()
      source.close()
    },
  })
  const take = (): void => {
    if (slot.closed || slot.connected) return
    let fd: number | undefined
    try {
      fd = source.accept()
    } catch (error) {
      if (!warned) end.warn(`${slot.label}: cannot take a connection: ${describeError(error)}; trying again`)
      warned = true
      watch.want(false, false)
      pause = setTimeout(take, ACCEPT_PAUSE_MS)
      return
    }
    watch.want(fd === undefined, false)
    if (fd !== undefined) {
      warned = false
      slot.adopt(fd)
    }
  }
  watch.want(true, false)
  return slot
}

/** What a caller gets who gave up waiting. */
export function aborted(label: string): VmchannelError {
  return new VmchannelError('ERR_VMCHANNEL_ABORTED', `${label}: opening was given up`)
}

/** Waits for the first peer; closes the slot and rejects when the signal fires first. */
export async function waitForPeer(slot: PeerSlot, signal: AbortSignal | undefined): Promise<void> {
  if (!signal) return slot.firstPeer()
  await new Promise<void>((resolve, reject) => {
    const abort = (): void => {
      slot.close()
      reject(aborted(slot.label))
    }
    if (signal.aborted) return abort()
    signal.addEventListener('abort', abort, { once: true })
    void slot.firstPeer().then(() => {
      signal.removeEventListener('abort', abort)
      resolve()
    })
  })
}
