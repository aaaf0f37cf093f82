/**
 * The interrupt lines of one VMM: SET_IRQS connects eventfds, the function fires them.
 *
 * The MSI-X table is the VMM's; here is only which eventfd a vector ends in. The newest descriptor always wins: QEMU
 * swaps them under KVM whenever the guest masks a vector.
 */

import { closeFd } from '../../../ffi/libc.ts'
import { Watch } from '../../../ffi/poll.ts'
import { adoptEventfd, drainShared, signalShared } from '../../../ffi/shared-eventfd.ts'
import { recallFd, type Store } from '../../../store.ts'
import type { PciFunction, PciIrq } from '../../pci/function.ts'
import { ERRNO, IRQ, SET_IRQS, SET_IRQS_ACTION, SET_IRQS_DATA, SET_IRQS_FLAG, type Message } from './wire.ts'

const NONE = -1

export class Irqs implements PciIrq {
  readonly #msix: Int32Array
  /** Fired while masked (no eventfd): delivered when one comes, as the pending bit of a real table does. */
  readonly #pending: Uint8Array
  readonly #store: Store | undefined
  readonly #hasIntx: boolean
  #intx = NONE
  #level = false
  /** The VMM has a signal of ours that it has not finished with, or asked for silence. */
  #masked = false
  #unmask: { fd: number; watch: Watch } | undefined

  constructor(pci: PciFunction, store?: Store) {
    this.#msix = new Int32Array(pci.vectors).fill(NONE)
    this.#pending = new Uint8Array(pci.vectors)
    this.#hasIntx = pci.intx
    for (const name of store?.left() ?? []) {
      const fd = recallFd(store, name)!
      if (name === 'intx') this.#intx = fd
      else if (name === 'unmask') this.#connectUnmask(fd)
      else this.#msix[Number(name)] = fd
    }
    this.#store = store
  }

  msix(vector: number): void {
    const fd = this.#msix[vector]
    if (fd === undefined) return
    if (fd === NONE) this.#pending[vector] = 1
    else signalShared(fd)
  }

  intx(level: boolean): void {
    this.#level = level
    this.#signalIntx()
  }

  /** SET_IRQS: 0, or -errno. */
  set(message: Message): number {
    const { view, at, len } = message
    if (len < SET_IRQS.size || view.getUint32(at + SET_IRQS.argsz, true) < SET_IRQS.size) return -ERRNO.EINVAL
    const flags = view.getUint32(at + SET_IRQS.flags, true)
    const index = view.getUint32(at + SET_IRQS.index, true)
    const start = view.getUint32(at + SET_IRQS.start, true)
    const count = view.getUint32(at + SET_IRQS.count, true)
    const data = flags & SET_IRQS_DATA
    const action = flags & SET_IRQS_ACTION
    if (!isOneBit(data) || !isOneBit(action) || flags !== (data | action)) return -ERRNO.EINVAL
    const lines = index === IRQ.MSIX ? this.#msix.length : index === IRQ.INTX && this.#hasIntx ? 1 : 0
    if (start + count > lines && count > 0) return -ERRNO.EINVAL
    if (count === 0 && (data !== SET_IRQS_FLAG.NONE || action !== SET_IRQS_FLAG.TRIGGER)) return -ERRNO.EINVAL
    if (data === SET_IRQS_FLAG.BOOL && len - SET_IRQS.size < count) return -ERRNO.EINVAL
    const { fds } = message
    if (fds.length !== 0 && (data !== SET_IRQS_FLAG.EVENTFD || fds.length !== count)) return -ERRNO.EINVAL
    if (!fds.every(adoptEventfd)) return -ERRNO.EINVAL
    if (index === IRQ.INTX) return this.#setIntx(message, data, action, count)
    if (index === IRQ.MSIX) return this.#setMsix(message, data, action, start, count)
    // Nothing there: switching it off is fine.
    return index === IRQ.MSI && count === 0 ? 0 : -ERRNO.EINVAL
  }

  /** Closes every descriptor. */
  close(): void {
    for (let i = 0; i < this.#msix.length; i++) this.#connect(i, NONE)
    this.#connectIntx(NONE)
    this.#connectUnmask(NONE)
    this.#pending.fill(0)
    this.#level = false
  }

  #setMsix(message: Message, data: number, action: number, start: number, count: number): number {
    if (action !== SET_IRQS_FLAG.TRIGGER) return -ERRNO.ENOTTY
    if (count === 0) {
      for (let i = 0; i < this.#msix.length; i++) this.#connect(i, NONE)
      this.#pending.fill(0)
      return 0
    }
    for (let i = 0; i < count; i++) {
      if (data === SET_IRQS_FLAG.EVENTFD) this.#connect(start + i, take(message, i))
      else if (asked(message, data, i)) this.msix(start + i)
    }
    return 0
  }

  #setIntx(message: Message, data: number, action: number, count: number): number {
    const eventfd = data === SET_IRQS_FLAG.EVENTFD
    if (action === SET_IRQS_FLAG.TRIGGER) {
      if (count === 0) {
        this.#connectIntx(NONE)
        this.#connectUnmask(NONE)
      } else if (eventfd) this.#connectIntx(take(message, 0))
      else if (asked(message, data, 0) && this.#intx !== NONE) signalShared(this.#intx)
    } else if (action === SET_IRQS_FLAG.UNMASK) {
      if (eventfd) this.#connectUnmask(take(message, 0))
      else if (asked(message, data, 0)) this.#unmaskIntx()
    } else {
      if (eventfd) return -ERRNO.ENOTTY
      if (asked(message, data, 0)) this.#masked = true
    }
    return 0
  }

  #connect(vector: number, fd: number): void {
    const old = this.#msix[vector]!
    if (old !== NONE) closeFd(old)
    this.#msix[vector] = fd
    this.#note(String(vector), old, fd)
    if (fd === NONE || this.#pending[vector] === 0) return
    this.#pending[vector] = 0
    signalShared(fd)
  }

  #note(name: string, before: number, fd: number): void {
    if (fd !== NONE) this.#store?.keep(name, [fd])
    else if (before !== NONE) this.#store?.forget(name)
  }

  #connectIntx(fd: number): void {
    // From unconnected: whatever was signalled before went to somebody else.
    if (this.#intx === NONE || fd === NONE) this.#masked = false
    if (this.#intx !== NONE) closeFd(this.#intx)
    this.#note('intx', this.#intx, fd)
    this.#intx = fd
    this.#signalIntx()
  }

  /** KVM writes this eventfd when the guest ends the interrupt. */
  #connectUnmask(fd: number): void {
    const old = this.#unmask
    this.#unmask = undefined
    this.#note('unmask', old?.fd ?? NONE, fd)
    if (old) {
      old.watch.close()
      closeFd(old.fd)
    }
    if (fd === NONE) return
    const watch = new Watch(fd, () => {
      if (drainShared(fd) > 0) this.#unmaskIntx()
    })
    this.#unmask = { fd, watch }
    watch.want(true, false)
  }

  #unmaskIntx(): void {
    this.#masked = false
    this.#signalIntx()
  }

  /**
   * The pin is a level, the eventfd is not: one signal, then silence until the VMM unmasks; then again if still high.
   */
  #signalIntx(): void {
    if (!this.#level || this.#masked || this.#intx === NONE) return
    this.#masked = true
    signalShared(this.#intx)
  }
}

/** Takes descriptor i out of the message; NONE where the message has none: disconnect. */
function take(message: Message, i: number): number {
  const fd = message.fds[i] ?? NONE
  if (fd !== NONE) message.fds[i] = NONE
  return fd
}

/** Whether line i of a message without descriptors is meant: all of NONE, the set ones of BOOL. */
function asked({ bytes, at }: Message, data: number, i: number): boolean {
  return data === SET_IRQS_FLAG.NONE || bytes[at + SET_IRQS.data + i] !== 0
}

function isOneBit(bits: number): boolean {
  return bits !== 0 && (bits & (bits - 1)) === 0
}
