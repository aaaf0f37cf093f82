/**
 * The two kinds of error of this house.
 *
 * `VmchannelError` goes to a person or a calling program: it names the thing, what was found, what was expected and
 * the next step, and carries a stable `code`. `PeerFault` never leaves a half: the other half (guest, VMM, device)
 * said something that cannot be right, and whoever catches it resets, closes or marks the device broken.
 */

import { escapeLine } from './escape.ts'

export type ErrorCode =
  | 'ERR_VMCHANNEL_USAGE' // a flag, an option string or a config entry is wrong
  | 'ERR_VMCHANNEL_CHARDEV' // a back end cannot be opened: missing directory, refused, no permission
  | 'ERR_VMCHANNEL_IN_USE' // socket, name or number already taken by a live owner
  | 'ERR_VMCHANNEL_NOT_FOUND' // no such port, VM, device, file
  | 'ERR_VMCHANNEL_PORT' // a port operation that cannot be done: id out of range, no free id, wrong kind
  | 'ERR_VMCHANNEL_MEMORY' // guest memory that cannot be shared
  | 'ERR_VMCHANNEL_QEMU' // QEMU missing, too old, or without vfio-user-pci
  | 'ERR_VMCHANNEL_PLATFORM' // this operating system, kernel or Node lacks something
  | 'ERR_VMCHANNEL_CONTROL' // the device process does not answer, or answers nonsense
  | 'ERR_VMCHANNEL_CLOSED' // the device or the port is gone
  | 'ERR_VMCHANNEL_ABORTED' // an AbortSignal ended the wait
  | 'ERR_VMCHANNEL_TIMEOUT'
  | 'ERR_VMCHANNEL_DISK' // a disk image that cannot be inspected: empty, damaged, encrypted, no disk
  | 'ERR_VMCHANNEL_AGENT' // the agent in the guest refused, or answered nonsense
  | 'ERR_VMCHANNEL_CLIPBOARD' // content that its owner does not give, or that is too large
  | 'ERR_VMCHANNEL_INTERNAL'

/** Exit status of the command line for each code; documented in the man page. */
export const EXIT_CODES: Readonly<Record<ErrorCode, number>> = {
  ERR_VMCHANNEL_USAGE: 2,
  ERR_VMCHANNEL_CHARDEV: 3,
  ERR_VMCHANNEL_IN_USE: 4,
  ERR_VMCHANNEL_NOT_FOUND: 5,
  ERR_VMCHANNEL_PORT: 6,
  ERR_VMCHANNEL_MEMORY: 7,
  ERR_VMCHANNEL_QEMU: 8,
  ERR_VMCHANNEL_PLATFORM: 9,
  ERR_VMCHANNEL_CONTROL: 10,
  ERR_VMCHANNEL_CLOSED: 11,
  ERR_VMCHANNEL_ABORTED: 12,
  ERR_VMCHANNEL_TIMEOUT: 13,
  ERR_VMCHANNEL_DISK: 14,
  ERR_VMCHANNEL_AGENT: 15,
  ERR_VMCHANNEL_CLIPBOARD: 16,
  ERR_VMCHANNEL_INTERNAL: 70,
}

export interface ErrorDetail {
  /** The next step, as a sentence for a person. */
  hint?: string
  cause?: unknown
  /** Kept from a system call: name ("ENOENT") and call ("bind"). */
  errno?: string
  syscall?: string
}

/**
 * The one error class callers meet. Match on `code`, never on the text. What it quotes may come from anywhere: message
 * and hint are one line each, whatever is in them.
 */
export class VmchannelError extends Error {
  readonly code: ErrorCode
  readonly hint: string | undefined
  readonly errno: string | undefined
  readonly syscall: string | undefined

  constructor(code: ErrorCode, message: string, detail: ErrorDetail = {}) {
    super(escapeLine(message), detail.cause === undefined ? undefined : { cause: detail.cause })
    this.name = 'VmchannelError'
    this.code = code
    this.hint = detail.hint === undefined ? undefined : escapeLine(detail.hint)
    this.errno = detail.errno
    this.syscall = detail.syscall
  }
}

/**
 * The other half broke the rules. The text says which rule, with the section of the specification where there is one.
 */
export class PeerFault extends Error {
  constructor(message: string) {
    super(message)
    this.name = 'PeerFault'
  }
}

/** The message of anything thrown, with the hint on a line of its own where there is one. */
export function describeError(error: unknown): string {
  if (error instanceof VmchannelError) return error.hint ? `${error.message}\n  ${error.hint}` : error.message
  return escapeLine(error instanceof Error ? error.message : String(error))
}
