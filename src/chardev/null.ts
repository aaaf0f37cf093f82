/** Takes everything, gives nothing. Called by the registry. */

import type { Iovec } from '../mem/iovec.ts'
import { WOULD_BLOCK, type Chardev } from './chardev.ts'

export function openNull(): Chardev {
  return {
    label: 'null',
    connected: true,
    place: undefined,
    writev: (list: Iovec) => list.total,
    readv: () => WOULD_BLOCK,
    setReading() {},
    discardInput: () => 0,
    disconnect() {},
    close() {},
  }
}
