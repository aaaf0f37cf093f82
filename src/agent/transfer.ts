/**
 * Files of the guest at the speed of a port: a port is added for one file, a shell in the guest copies between the two,
 * and the port is removed. Where that is not possible (no device process of ours, no free port, guest-exec switched off,
 * no shell) the caller falls back on file.ts. Called by guest-agent.ts.
 */

import { randomBytes } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { aborted, type WaitOptions } from '../client/abort.ts'
import { VmchannelError } from '../errors.ts'
import { exec, type Ask, type ExecResult } from './exec.ts'
import { printable } from './protocol.ts'

/** A port of our device for one file. */
export interface Side {
  stream: Duplex
  /** Takes the port out of the guest. */
  remove(): Promise<void>
}
export type OpenSide = (name: string, options: WaitOptions) => Promise<Side>

/** Thrown where this way is closed and nothing has happened yet. */
export class NoSide extends Error {}

/** Exit statuses of the script. */
const NO_PORT = 90
const NO_FILE = 91
const NOT_REGULAR = 92

/**
 * The guest speaks first: its write waits until the guest has heard that we are there, while a read before that would see
 * the end of the file. dd reads whole blocks; a head that reads byte by byte (busybox) is the second choice.
 */
const SCRIPT = `set -u
way=$1 name=$2 path=$3 size=$4 mode=$5
find_port() {
  dev=/dev/virtio-ports/$name
  [ -c "$dev" ] && return
  for f in /sys/class/virtio-ports/*/name; do
    read -r found <"$f" && [ "$found" = "$name" ] && { dev=/dev/\${f#/sys/class/virtio-ports/}; dev=\${dev%/name}; [ -c "$dev" ]; return; }
  done 2>/dev/null
  return 1
}
if [ "$way" = get ]; then
  [ -d "$path" ] && { echo "$path: Is a directory" >&2; exit ${NO_FILE}; }
  [ -e "$path" ] || { echo "$path: No such file or directory" >&2; exit ${NO_FILE}; }
  [ -f "$path" ] && [ -s "$path" ] || exit ${NOT_REGULAR}
  (: <"$path") || exit ${NO_FILE}
  exec 4<"$path"
  size=$(wc -c <"$path")
else
  (: >>"$path") || exit ${NO_FILE}
  [ -f "$path" ] || exit ${NOT_REGULAR}
  exec 4>"$path"
  [ -z "$mode" ] || chmod "$mode" "$path" || exit ${NO_FILE}
fi
i=0
until find_port; do
  i=$((i + 1))
  [ $i -lt 200 ] || exit ${NO_PORT}
  sleep 0.1
done
exec 3<>"$dev" || exit ${NO_PORT}
echo $size >&3
copy() {
  if dd if=/dev/null bs=1 count=1 iflag=fullblock,count_bytes status=none 2>/dev/null
  then dd bs=65536 count="$size" iflag=fullblock,count_bytes status=none
  else head -c "$size"; fi
}
if [ "$way" = get ]; then copy <&4 >&3; elif [ "$size" = - ]; then cat <&3 >&4; else copy <&3 >&4; fi || { echo "$path: copying failed" >&2; exit ${NO_FILE}; }
exec 4>&-
[ "$way" = get ] || wc -c <"$path"
`

interface Running {
  side: Side
  /** Its end, with status and output. */
  end: Promise<ExecResult>
  /** Ends the script as well as the wait. */
  stop: AbortController
}

/** Writes a file; `size` undefined: until the source ends. Gives the number of bytes. */
export async function putBySide(
  ask: Ask,
  openSide: OpenSide,
  path: string,
  source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  { size, mode = '', ...options }: WaitOptions & { size?: number | undefined; mode?: string | undefined },
): Promise<number> {
  const running = await start(ask, openSide, ['put', path, String(size ?? '-'), mode], options)
  let sent = 0
  try {
    const { stream } = running.side
    // The script may end early: disk full, no such folder.
    let over = false
    const end = running.end.finally(() => (over = true))
    end.catch(() => {})
    const broken = new Promise<void>((resolve) => stream.once('close', resolve))
    await firstLine(running, path)
    for await (const piece of source) {
      if (over || stream.destroyed) break
      sent += piece.length
      if (!stream.write(piece))
        await Promise.race([new Promise((resolve) => stream.once('drain', resolve)), end, broken])
    }
    // The end of a file of which the length is not known, or which has become shorter.
    if (!over && (size === undefined || sent < size)) stream.end()
    check(await end, path)
    const written = Number((await end).stdout.toString().trim())
    if (written !== sent)
      throw new VmchannelError('ERR_VMCHANNEL_AGENT', `${path} in the guest: ${written} of ${sent} bytes arrived`)
    return sent
  } finally {
    await finish(running)
  }
}

export async function* getBySide(
  ask: Ask,
  openSide: OpenSide,
  path: string,
  options: WaitOptions,
): AsyncGenerator<Buffer, void, void> {
  const running = await start(ask, openSide, ['get', path, '-', ''], options)
  try {
    const line = await firstLine(running, path)
    let left = Number(line)
    if (!Number.isSafeInteger(left) || left < 0)
      throw new VmchannelError('ERR_VMCHANNEL_AGENT', `${path} in the guest: "${printable(line, 40)}" is no size`)
    let failed: unknown
    const { stream } = running.side
    // A file that got shorter meanwhile: nothing more comes.
    running.end.then(
      ({ status }) => status !== 0 && stream.destroy(),
      (error: unknown) => ((failed = error), stream.destroy()),
    )
    if (left === 0) return
    try {
      for await (const chunk of stream) {
        const bytes = (chunk as Buffer).subarray(0, left)
        left -= bytes.length
        if (bytes.length > 0) yield bytes
        if (left === 0) break
      }
    } catch (error) {
      failed ??= error
    }
    if (left > 0) {
      if (failed) throw failed
      check(await running.end, path)
      throw new VmchannelError('ERR_VMCHANNEL_AGENT', `${path} in the guest: ended ${left} bytes too early`)
    }
    check(await running.end, path)
  } finally {
    await finish(running)
  }
}

async function start(ask: Ask, openSide: OpenSide, words: readonly string[], options: WaitOptions): Promise<Running> {
  const { signal } = options
  if (signal?.aborted) throw aborted('copying a file', signal)
  const name = `org.vmchannel.file.${randomBytes(6).toString('hex')}`
  const stop = new AbortController()
  const abort = (): void => stop.abort(signal?.reason)
  signal?.addEventListener('abort', abort, { once: true })
  let side: Side
  try {
    side = await openSide(name, options)
  } catch (cause) {
    throw new NoSide('no port could be added', { cause })
  }
  const [way, path, size, mode] = words as [string, string, string, string]
  side.stream.on('error', () => {}) // seen as a stream that is destroyed
  const end = exec(ask, '/bin/sh', ['-c', SCRIPT, 'sh', way, name, path, size, mode], { signal: stop.signal }).finally(
    () => signal?.removeEventListener('abort', abort),
  )
  end.catch(() => {})
  return { side, end, stop }
}

/** What the guest says when it has the port open; or why it never will. */
async function firstLine({ side: { stream }, end }: Running, path: string): Promise<string> {
  let line = ''
  const read = new Promise<string>((resolve, reject) => {
    const take = (): void => {
      for (let byte: Buffer | null; (byte = stream.read(1) as Buffer | null) !== null;) {
        if (byte[0] === 10) {
          stream.off('readable', take)
          return resolve(line)
        }
        line += byte.toString('latin1')
        if (line.length > 40) return reject(new NoSide('the guest said something else'))
      }
    }
    stream.on('readable', take)
    stream.once('close', () => reject(new VmchannelError('ERR_VMCHANNEL_CLOSED', `the port for ${path} was closed`)))
    take()
  })
  const refused = end.then(
    (result) => {
      check(result, path)
      return read
    },
    (error: unknown) => {
      throw error instanceof VmchannelError && error.code === 'ERR_VMCHANNEL_AGENT'
        ? new NoSide('guest-exec is not possible', { cause: error })
        : error
    },
  )
  return Promise.race([read, refused])
}

function check({ status, stderr }: ExecResult, path: string): void {
  if (status === 0) return
  if (status === NO_PORT || status === NOT_REGULAR || status === 127) throw new NoSide(`status ${status}`)
  const said = printable(stderr.toString()) || `the copying shell ended with ${status}`
  const missing = /No such file|nonexistent/i.test(said)
  throw new VmchannelError(missing ? 'ERR_VMCHANNEL_NOT_FOUND' : 'ERR_VMCHANNEL_AGENT', `${path} in the guest: ${said}`)
}

async function finish({ side, end, stop }: Running): Promise<void> {
  side.stream.destroy()
  stop.abort()
  await end.catch(() => {})
  await side.remove().catch(() => {})
}
