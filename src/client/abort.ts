/** Waits that end by an AbortSignal or a deadline, as VmchannelError. Used by the client and the library. */

import { VmchannelError } from '../errors.ts'

export function aborted(what: string, signal: AbortSignal | undefined): VmchannelError {
  const cause: unknown = signal?.reason
  // AbortSignal.timeout is a deadline.
  if (cause instanceof Error && cause.name === 'TimeoutError')
    return new VmchannelError('ERR_VMCHANNEL_TIMEOUT', `${what}: the time is over`, { cause })
  return new VmchannelError('ERR_VMCHANNEL_ABORTED', `${what}: aborted`, { cause })
}

export interface WaitOptions {
  signal?: AbortSignal | undefined
  /** Milliseconds; no limit where it is left out. */
  timeout?: number | undefined
}

/**
 * A promise that `begin` settles through its two arguments, or the signal or the deadline do. `begin` returns the way to
 * stop listening, which is called at the end in any case.
 */
export function wait<T>(
  what: string,
  { signal, timeout }: WaitOptions,
  begin: (resolve: (value: T) => void, reject: (error: Error) => void) => () => void,
): Promise<T> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(aborted(what, signal))
    let timer: NodeJS.Timeout | undefined
    let stop: (() => void) | undefined
    let over = false
    const finish = (settle: () => void): void => {
      if (over) return
      over = true
      clearTimeout(timer)
      signal?.removeEventListener('abort', abort)
      stop?.()
      settle()
    }
    const abort = (): void => finish(() => reject(aborted(what, signal)))
    signal?.addEventListener('abort', abort, { once: true })
    if (timeout !== undefined)
      timer = setTimeout(() => {
        const late = new VmchannelError('ERR_VMCHANNEL_TIMEOUT', `${what}: not within ${timeout} ms`)
        finish(() => reject(late))
      }, timeout)
    stop = begin(
      (value) => finish(() => resolve(value)),
      (error) => finish(() => reject(error)),
    )
    // It may have been settled at once.
    if (over) stop()
  })
}
