/**
 * MSI-X without a processor: QEMU's ivshmem-doorbell device turns a write to its doorbell register into a write to an
 * eventfd of ours, and a message-signalled interrupt is nothing but a write to an address of one's choice. This is the
 * ivshmem server for that one device: says who it is and hands it our eventfds.
 */

import { ftruncateSync } from 'node:fs'
import { VmchannelError } from '../../../errors.ts'
import { createEventfd, drainEventfd } from '../../../ffi/eventfd.ts'
import { closeFd } from '../../../ffi/libc.ts'
import { createMemfd } from '../../../ffi/mmap.ts'
import { Watch } from '../../../ffi/poll.ts'
import { sendWithFds } from '../../../ffi/scm.ts'
import { listenUnix, type UnixListener } from '../../../ffi/unix-listen.ts'

const PROTOCOL_VERSION = 0
const SHARED_LEN = 4096
/** Ids of the two peers: QEMU's device, and us. */
const DEVICE_PEER = 0
const OUR_PEER = 1
/** The doorbell register in BAR 0, and what is written there: peer << 16 | vector. */
const REGISTER = 12

/** What a function's MSI-X table entry says. */
export interface DoorbellMessage {
  address: number
  data: number
}

export interface DoorbellLine {
  readonly message: DoorbellMessage
  /** Nobody rings it any more. */
  release(): void
}

export class Doorbell {
  /** vendor and device id of ivshmem. */
  static readonly pciId: number = 0x1110_1af4
  readonly lines: number
  readonly #listener: UnixListener
  readonly #accept: Watch
  readonly #connections: number[] = []
  readonly #events: number[] = []
  readonly #watches: Watch[] = []
  readonly #free: number[] = []
  #address = 0

  /** Listens at `path` for QEMU's device. */
  constructor(path: string, lines = 64) {
    this.lines = lines
    this.#listener = listenUnix(path)
    for (let i = 0; i < lines; i++) {
      this.#events.push(createEventfd())
      this.#free.push(lines - 1 - i)
    }
    this.#accept = new Watch(this.#listener.fd, () => this.#connect())
    this.#accept.want(true, false)
  }

  args(slot: number): string[] {
    const device = `ivshmem-doorbell,chardev=qtest-doorbell,vectors=${this.lines},addr=0x${slot.toString(16)}`
    return ['-chardev', `socket,id=qtest-doorbell,path=${this.#listener.path}`, '-device', device]
  }

  /** Where BAR 0 of the device lies in the machine. */
  setBar(address: number): void {
    this.#address = address + REGISTER
  }

  /** A line that calls `onRing`, from the event loop, with the number of times it was rung. */
  connect(onRing: (times: number) => void): DoorbellLine {
    const line = this.#free.pop()
    if (line === undefined)
      throw new VmchannelError('ERR_VMCHANNEL_USAGE', `all ${this.lines} lines of the doorbell are in use`, {
        hint: 'Attach with fewer vectors.',
      })
    const fd = this.#events[line]!
    drainEventfd(fd)
    const watch = new Watch(fd, () => {
      onRing(drainEventfd(fd))
    })
    watch.want(true, false)
    this.#watches[line] = watch
    return {
      message: { address: this.#address, data: OUR_PEER * 65_536 + line },
      release: () => {
        watch.close()
        this.#free.push(line)
      },
    }
  }

  close(): void {
    this.#accept.close()
    this.#listener.close()
    for (const watch of this.#watches) watch?.close()
    for (const fd of [...this.#events, ...this.#connections]) closeFd(fd)
  }

  /** All that it is ever told fits into the socket: 8 bytes a message, each with at most one descriptor. */
  #connect(): void {
    for (let fd; (fd = this.#listener.accept()) !== undefined;) {
      this.#connections.push(fd)
      const shared = createMemfd('qtest-doorbell', false)
      ftruncateSync(shared, SHARED_LEN)
      say(fd, PROTOCOL_VERSION)
      say(fd, DEVICE_PEER)
      say(fd, -1, shared)
      for (const event of this.#events) say(fd, OUR_PEER, event)
      closeFd(shared)
    }
  }
}

function say(fd: number, value: number, passed?: number): void {
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setBigInt64(0, BigInt(value), true)
  const sent = sendWithFds(fd, bytes, passed === undefined ? [] : [passed])
  if (sent !== bytes.length)
    throw new VmchannelError('ERR_VMCHANNEL_QEMU', `the doorbell device takes no messages: ${sent}`)
}
