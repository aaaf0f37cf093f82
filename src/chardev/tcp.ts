/**
 * A TCP socket: listening (on the loopback address unless the user names another: there is no authentication) or
 * connecting. Called by the registry.
 */

import { lookup } from 'node:dns/promises'
import { describeError, VmchannelError } from '../errors.ts'
import { closeFd } from '../ffi/libc.ts'
import { Watch } from '../ffi/poll.ts'
import {
  boundPort,
  connectError,
  formatTcpAddress,
  listenTcp,
  setKeepalive,
  setNoDelay,
  startConnect,
  type TcpAddress,
} from '../ffi/socket.ts'
import { acceptFd } from '../ffi/socket-calls.ts'
import type { Store } from '../store.ts'
import type { Chardev, ChardevEnd } from './chardev.ts'
import { dial } from './dialer.ts'
import { HALF_CLOSE_MS } from './fd-end.ts'
import { aborted, listeningSlot, waitForPeer } from './listener.ts'
import { formatChardevSpec, type TcpSpec } from './spec.ts'

const CONNECT_MS = 10_000
const KEEPALIVE_MS = 120_000

export async function openTcp(spec: TcpSpec, end: ChardevEnd, signal?: AbortSignal, store?: Store): Promise<Chardev> {
  const label = formatChardevSpec(spec)
  const halfCloseMs = spec.halfCloseMs ?? HALF_CLOSE_MS
  const options = { label, halfCloseMs, silentHangup: true, store }
  const resumed = (store?.left().length ?? 0) > 0
  if (spec.server === false) {
    const target = `tcp ${spec.host ?? 'loopback'} port ${spec.port}`
    const connect = (stop: AbortSignal): Promise<number> => connectAny(spec, stop)
    return dial(end, { ...options, target, connect, reconnectMs: spec.reconnectMs ?? 0 }, signal)
  }
  const left = store?.recall('listener')
  const { fd, place } = left ? { fd: left.fds[0]!, place: left.note } : await listen(spec, label, signal)
  if (!left) store?.keep('listener', [fd], place)
  const source = { fd, accept: () => prepared(acceptFd(fd), spec), close: () => closeFd(fd) }
  const slot = listeningSlot(end, source, options)
  slot.place = place
  if (spec.wait && !resumed) await waitForPeer(slot, signal)
  return slot.start()
}

async function listen(
  spec: TcpSpec,
  label: string,
  signal: AbortSignal | undefined,
): Promise<{ fd: number; place: string }> {
  const address = (await resolve(spec))[0]!
  if (signal?.aborted) throw aborted(label)
  const fd = listenTcp(address)
  try {
    return { fd, place: formatTcpAddress({ ...address, port: boundPort(fd) }) }
  } catch (error) {
    closeFd(fd)
    throw error
  }
}

function prepared<T extends number | undefined>(fd: T, spec: TcpSpec): T {
  const { nodelay = true, keepaliveMs = KEEPALIVE_MS } = spec
  if (fd !== undefined && nodelay) setNoDelay(fd)
  if (fd !== undefined && keepaliveMs > 0) setKeepalive(fd, keepaliveMs)
  return fd
}

/** The addresses a spec means, in the order to try. */
async function resolve(spec: TcpSpec): Promise<TcpAddress[]> {
  const { port } = spec
  // ipv6=on alone, or ipv4=off, means IPv6 only; both or neither leave the choice to the name.
  const family = spec.ipv4 === false || (spec.ipv6 && !spec.ipv4) ? 6 : spec.ipv6 === false || spec.ipv4 ? 4 : 0
  const only = spec.ipv4 && spec.ipv6 ? 0 : family
  if (!spec.host) return [only === 6 ? { ip: '::1', family: 6, port } : { ip: '127.0.0.1', family: 4, port }]
  try {
    const found = await lookup(spec.host, { all: true, family: only })
    return found.map(({ address, family }) => ({ ip: address, family: family === 6 ? 6 : 4, port }))
  } catch (cause) {
    const which = only === 0 ? '' : ` over IPv${only}`
    throw new VmchannelError('ERR_VMCHANNEL_CHARDEV', `tcp: the host name ${spec.host} cannot be resolved${which}`, {
      hint: 'check the name, or give a numeric address',
      cause,
    })
  }
}

async function connectAny(spec: TcpSpec, stop: AbortSignal): Promise<number> {
  const failures: string[] = []
  for (const address of await resolve(spec)) {
    stop.throwIfAborted()
    try {
      return prepared(await connectOne(address, stop), spec)
    } catch (error) {
      failures.push(describeError(error))
    }
  }
  throw new VmchannelError('ERR_VMCHANNEL_CHARDEV', failures.join('; '))
}

/** Connects to one address; the fd is closed again where it fails, takes too long, or is given up. */
function connectOne(address: TcpAddress, stop: AbortSignal): Promise<number> {
  const fd = startConnect(address)
  return new Promise((resolve, reject) => {
    const finish = (failure: string | undefined): void => {
      clearTimeout(timer)
      stop.removeEventListener('abort', abort)
      watch.close()
      if (failure === undefined) return resolve(fd)
      closeFd(fd)
      reject(new VmchannelError('ERR_VMCHANNEL_CHARDEV', `${formatTcpAddress(address)}: ${failure}`))
    }
    const abort = (): void => finish('given up')
    const watch = new Watch(fd, () => finish(connectError(fd)))
    const timer = setTimeout(() => finish(`no answer within ${CONNECT_MS / 1000} s`), CONNECT_MS)
    stop.addEventListener('abort', abort)
    watch.want(false, true)
  })
}
