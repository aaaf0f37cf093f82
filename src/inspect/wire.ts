/**
 * Messages between libguestfs's library and the daemon in its appliance (guestfs-internals(1)): each is a length and an
 * XDR body; three words that are too big for a length mean something by themselves. Pure.
 */

import { PeerFault } from '../errors.ts'
import { XdrReader, XdrWriter } from './xdr.ts'

const PROGRAM = 0x2000_f5f5
const VERSION = 4
const CALL = 0
const REPLY = 1

export const MESSAGE_MAX: number = 4 << 20
export const CHUNK_MAX = 8192
/** Padding, length and cancel flag around a chunk's data. */
const CHUNK_FRAME_MAX: number = CHUNK_MAX + 8
const ERRNO_MAX = 32
const ERROR_MAX: number = 64 << 10

/** The daemon is there; once, before anything else. */
export const LAUNCH_WORD = 0xf5f5_5ff5
/** Whoever sends a file shall stop. */
export const CANCEL_WORD = 0xffff_eeee
/** A progress message of 24 bytes follows. */
export const PROGRESS_WORD = 0xffff_5555
export const PROGRESS_LEN = 24

/** A call, its length in front. */
export function encodeCall(proc: number, serial: number, args: Uint8Array): Buffer {
  const header = new XdrWriter().uint32(PROGRAM).uint32(VERSION).uint32(proc).uint32(CALL).uint32(serial)
  const body = Buffer.concat([header.uint64(0).uint64(0).uint32(0).bytes(), args])
  return Buffer.concat([new XdrWriter().uint32(body.length).bytes(), body])
}

export function cancelWord(): Buffer {
  return new XdrWriter().uint32(CANCEL_WORD).bytes()
}

export interface DaemonReply {
  proc: number
  serial: number
  /** Where the call failed: errno ("ENOENT") or "", and the text. */
  error: { errno: string; message: string } | undefined
  /** Stands at the return value. */
  result: XdrReader
}

export function decodeReply(body: Buffer): DaemonReply {
  const result = new XdrReader(body)
  const [program, version, proc, direction, serial] = [1, 2, 3, 4, 5].map(() => result.uint32())
  result.uint64()
  result.uint64()
  const status = result.uint32()
  if (program !== PROGRAM) throw new PeerFault(`program ${hex(program)} is not libguestfs's`)
  if (version !== VERSION) throw new PeerFault(`version ${version} of the protocol, ${VERSION} is known here`)
  if (direction !== REPLY) throw new PeerFault('a call where a reply was due')
  if (status > 1) throw new PeerFault(`status ${status}`)
  const error = status === 1 ? { errno: result.string(ERRNO_MAX), message: result.string(ERROR_MAX) } : undefined
  if (error) result.end()
  return { proc: proc!, serial: serial!, error, result }
}

/** Whether the word can be the length of a reply, or of a chunk. */
export function checkLength(word: number, kind: 'message' | 'chunk'): void {
  const max = kind === 'message' ? MESSAGE_MAX : CHUNK_FRAME_MAX
  if (word > max) throw new PeerFault(`a ${kind} of ${hex(word)} bytes, ${max} are allowed`)
}

export interface Chunk {
  cancelled: boolean
  data: Buffer
}

/** No data: that was the last. */
export function decodeChunk(body: Buffer): Chunk {
  const reader = new XdrReader(body)
  const cancelled = reader.int32() !== 0
  const data = reader.opaque(CHUNK_MAX)
  reader.end()
  return { cancelled, data }
}

function hex(value: number | undefined): string {
  return `0x${(value ?? 0).toString(16)}`
}
