/**
 * The machine's memory, made here and mapped here: a memfd that QEMU opens too (`memory-backend-file` with the path of
 * an inherited descriptor), so that nothing is left behind whoever dies first.
 */

import { ftruncateSync } from 'node:fs'
import { VmchannelError } from '../../../errors.ts'
import { closeFd } from '../../../ffi/libc.ts'
import { createMemfd, sealMemfd, SharedMapping } from '../../../ffi/mmap.ts'
import { DMA_PAGE_SIZE, roundUp } from '../../../mem/dma-pool.ts'
import type { Region } from '../../../mem/guest-memory.ts'

/** Firmware and its tables may lie below. */
const START = 16 << 20

export class QtestRam {
  readonly fd: number
  /** Bytes; at most 1 GiB, so that it is below every hole and in one view. */
  readonly size: number
  readonly #mapping: SharedMapping
  #next = START

  constructor(size: number = 256 << 20) {
    if (!Number.isInteger(size) || size % (1 << 20) !== 0 || size < 2 * START || size > 2 ** 30)
      throw new VmchannelError(
        'ERR_VMCHANNEL_USAGE',
        `memory of ${size} bytes: expected whole MiB from 32 MiB to 1 GiB`,
      )
    this.fd = createMemfd('qtest-ram', true)
    this.size = size
    try {
      ftruncateSync(this.fd, size)
      sealMemfd(this.fd)
      this.#mapping = new SharedMapping(this.fd, size, true)
    } catch (error) {
      closeFd(this.fd)
      throw error
    }
  }

  /** Pages that nobody else uses, at their address in the machine. They are not given back. */
  allocate(len: number): Region {
    const size = roundUp(len, DMA_PAGE_SIZE)
    if (this.#next + size > this.size)
      throw new VmchannelError('ERR_VMCHANNEL_MEMORY', `the machine's ${this.size} bytes of memory are all in use`)
    const base = this.#next
    this.#next += size
    const [piece] = this.#mapping.pieces(base, size)
    const { bytes, address } = piece!
    return { base, size, bytes: bytes.subarray(0, size), address, writable: true }
  }

  /** What QEMU is told; `fd` is the number under which it inherits ours. */
  args(fd: number): string[] {
    const backend = `memory-backend-file,id=qtest-ram,size=${this.size},mem-path=/proc/self/fd/${fd},share=on`
    return ['-object', backend, '-m', `${this.size >> 20}M`]
  }

  close(): void {
    this.#mapping.drop()
    closeFd(this.fd)
  }
}
