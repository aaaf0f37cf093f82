/**
 * Standard input of the device process: the configuration, then, where the process ends with its parent, the sign that
 * the parent is gone. Called by main.ts.
 */

import { readSync } from 'node:fs'
import { VmchannelError } from '../errors.ts'
import { Watch } from '../ffi/poll.ts'
import { pollable } from '../ffi/rw.ts'

const STDIN = 0
const CONFIG_MAX = 4 << 20

/** Bytes of one read; nothing at the end; undefined where there is nothing yet. */
function readSome(buffer: Uint8Array, fd: number): number | undefined {
  try {
    return readSync(fd, buffer)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return undefined
    return 0
  }
}

/** Waits for the first line, or the end. */
export async function readConfigText(): Promise<string> {
  const chunks: Uint8Array[] = []
  let len = 0
  /** Takes what is there; true at the end. */
  const take = (): boolean => {
    const chunk = new Uint8Array(64 << 10)
    const done = readSome(chunk, STDIN)
    if (done === undefined) return false
    chunks.push(chunk.subarray(0, done))
    len += done
    if (len > CONFIG_MAX)
      throw new VmchannelError('ERR_VMCHANNEL_USAGE', `the configuration has more than ${CONFIG_MAX} bytes`)
    return done === 0 || chunk.subarray(0, done).includes(10)
  }
  if (pollable(STDIN))
    await new Promise<void>((resolve, reject) => {
      const watch = new Watch(STDIN, () => {
        try {
          if (!take()) return
          watch.close()
          resolve()
        } catch (error) {
          watch.close()
          reject(error)
        }
      })
      watch.want(true, false)
    })
  else while (!take());
  const text = Buffer.concat(chunks).toString()
  const end = text.indexOf('\n')
  return end === -1 ? text : text.slice(0, end)
}

/** Calls back once when standard input, or another descriptor, ends. What else comes is read and forgotten. */
export function onInputEnd(callback: () => void, fd: number = STDIN): void {
  if (!pollable(fd)) {
    setImmediate(callback)
    return
  }
  const buffer = new Uint8Array(4096)
  const watch = new Watch(fd, () => {
    if (readSome(buffer, fd) !== 0) return
    watch.close()
    callback()
  })
  watch.want(true, false)
}
