/**
 * The VERSION handshake. Called by the session for the first message of a VMM.
 */

import { HEADER_SIZE, MAX_DATA_XFER, MAX_MSG_FDS, VERSION, type Message, type Reply } from './wire.ts'

/** Longest JSON that is looked at; QEMU sends about 200 bytes. */
const JSON_MAX = 4096
/** Longest reply that is written. */
export const VERSION_REPLY_MAX = 214

/**
 * What we offer, exactly. QEMU reads a reply without JSON as if its own offer had been accepted, write_multiple
 * included, and takes a reply of at most 214 bytes.
 */
const offer = (maxDataXfer: number): string =>
  `${JSON.stringify({ capabilities: { max_msg_fds: MAX_MSG_FDS, max_data_xfer_size: maxDataXfer } })}\0`

/** What the VMM said; `maxDataXfer` bounds what we may ask of it. */
export interface VmmVersion {
  major: number
  minor: number
  maxDataXfer: number
}

/** Reads the VMM's version; a string says what is wrong with it. */
export function parseVersion(message: Message): VmmVersion | string {
  const { view, bytes, at, len } = message
  if (len < VERSION.size) return `a version message of ${len} bytes`
  const major = view.getUint16(at + VERSION.major, true)
  const minor = view.getUint16(at + VERSION.minor, true)
  if (major !== 0) return `protocol version ${major}.${minor}, expected 0.x`
  const version: VmmVersion = { major, minor, maxDataXfer: MAX_DATA_XFER }
  const json = bytes.subarray(at + VERSION.json, at + len)
  if (json.length === 0) return version
  if (json.length > JSON_MAX) return `capabilities of ${json.length} bytes`
  if (json.at(-1) !== 0) return 'capabilities without a closing NUL'
  const limit = maxDataXfer(new TextDecoder().decode(json.subarray(0, -1)))
  if (limit === undefined) return 'capabilities that are no JSON object'
  version.maxDataXfer = Math.min(limit, MAX_DATA_XFER)
  return version
}

function maxDataXfer(text: string): number | undefined {
  let found: unknown
  try {
    found = JSON.parse(text)
  } catch {
    return undefined
  }
  if (typeof found !== 'object' || found === null) return undefined
  const capabilities = (found as Record<string, unknown>)['capabilities']
  if (typeof capabilities !== 'object' || capabilities === null) return MAX_DATA_XFER
  const limit = (capabilities as Record<string, unknown>)['max_data_xfer_size']
  return typeof limit === 'number' && limit >= 0 ? limit : MAX_DATA_XFER
}

/** Writes our half; returns its length. */
export function writeVersion(reply: Reply, maxDataXfer: number): number {
  reply.view.setUint16(HEADER_SIZE + VERSION.major, 0, true)
  reply.view.setUint16(HEADER_SIZE + VERSION.minor, 0, true)
  const json = new TextEncoder().encode(offer(maxDataXfer))
  reply.bytes.set(json, HEADER_SIZE + VERSION.json)
  return VERSION.json + json.length
}
