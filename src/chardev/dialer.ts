/**
 * Fills a PeerSlot by connecting to somebody else's socket, and again after the connection is lost where the user asked
 * for that. Pauses start short and double up to the one asked for, so that a server that restarts is found at once and
 * one that is down costs nothing. Used by unix.ts and tcp.ts.
 */

import { describeError, VmchannelError } from '../errors.ts'
import { closeFd } from '../ffi/libc.ts'
import type { ChardevEnd } from './chardev.ts'
import { aborted } from './listener.ts'
import { PeerSlot, type SlotOptions } from './peer-slot.ts'

const FIRST_PAUSE_MS = 50
/** A connection that lasted this long was a good one: the next pause is short again. */
const GOOD_MS = 1000

export interface DialOptions extends Pick<SlotOptions, 'label' | 'halfCloseMs' | 'silentHangup' | 'store'> {
  /** Whom messages name. */
  target: string
  /** One attempt; resolves with a connected fd. */
  connect: (signal: AbortSignal) => Promise<number>
  /** Longest pause between attempts; 0: one attempt, whose failure fails the opening. */
  reconnectMs: number
}

/** Opens a slot that connects by itself. Without reconnecting it rejects where the first attempt fails. */
export async function dial(end: ChardevEnd, options: DialOptions, signal?: AbortSignal): Promise<PeerSlot> {
  const { label, halfCloseMs, target, connect, reconnectMs, store } = options
  const resumed = store?.recall('dialed') !== undefined
  store?.keep('dialed', [])
  const stop = new AbortController()
  let timer: NodeJS.Timeout | undefined
  let pause = 0
  let connectedAt = 0
  let warned = false
  let attempting = false

  const attempt = async (): Promise<void> => {
    if (attempting || slot.closed || slot.connected) return
    attempting = true
    try {
      const fd = await connect(stop.signal)
      if (slot.closed) closeFd(fd)
      else {
        connectedAt = performance.now()
        warned = false
        slot.adopt(fd)
      }
    } finally {
      attempting = false
    }
  }
  const later = (): void => {
    if (slot.closed || reconnectMs === 0) return
    if (connectedAt !== 0 && performance.now() - connectedAt >= GOOD_MS) pause = 0
    connectedAt = 0
    pause = Math.min(reconnectMs, pause === 0 ? FIRST_PAUSE_MS : pause * 2)
    timer = setTimeout(() => void attempt().catch(failed), pause)
  }
  const failed = (error: unknown): void => {
    if (slot.closed) return
    if (!warned) end.warn(`${label}: ${describeError(error)}; trying again at least every ${reconnectMs} ms`)
    warned = true
    later()
  }
  const slotOptions: SlotOptions = {
    label,
    halfCloseMs,
    onVacant: later,
    onClose: () => {
      clearTimeout(timer)
      stop.abort()
    },
  }
  if (options.silentHangup) slotOptions.silentHangup = true
  if (store) slotOptions.store = store
  const slot = new PeerSlot(end, slotOptions)
  const abort = (): void => slot.close()
  signal?.addEventListener('abort', abort, { once: true })
  try {
    if (signal?.aborted) slot.close()
    // Without reconnecting there is one connection: the process before this one has had it. With it nobody waits for
    // it.
    if (!resumed) await attempt()
    else if (reconnectMs > 0) void attempt().catch(failed)
  } catch (error) {
    if (reconnectMs === 0 && !slot.closed) {
      slot.close()
      throw new VmchannelError('ERR_VMCHANNEL_CHARDEV', `cannot connect to ${target}: ${describeError(error)}`, {
        hint: 'start the other side first, or add reconnect-ms=1000 to keep trying',
        cause: error,
      })
    }
    failed(error)
  } finally {
    signal?.removeEventListener('abort', abort)
  }
  if (signal?.aborted) throw aborted(label)
  return slot.start()
}
