/**
 * TCP sockets as bare descriptors, so that bytes can go straight between them and guest memory. Path sockets are in
 * unix-listen.ts. Called by chardev/tcp.ts; addresses are numeric here, names are resolved by the caller.
 */

import { VmchannelError } from '../errors.ts'
import { check, closeFd, declare, EINPROGRESS, errno, errnoName, systemError } from './libc.ts'
import {
  bindFunction,
  connectFunction,
  getsockoptFunction,
  listenFunction,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_STREAM,
  setsockoptFunction,
  socketFunction,
  SOL_SOCKET,
} from './socket-calls.ts'

const getsocknameFunction = declare('int getsockname(int fd, void *address, void *len)')

const AF_INET = 2
const AF_INET6 = 10
const SO_REUSEADDR = 2
const SO_ERROR = 4
const IPPROTO_TCP = 6
const TCP_NODELAY = 1
const SO_KEEPALIVE = 9
const TCP_KEEPIDLE = 4
const TCP_KEEPINTVL = 5
const TCP_KEEPCNT = 6
/** Probes that a peer may leave without an answer. */
const PROBES = 6
const IPPROTO_IPV6 = 41
const IPV6_V6ONLY = 26

/** A numeric address, as dns.lookup gives it. */
export interface TcpAddress {
  ip: string
  family: 4 | 6
  port: number
}

/** "127.0.0.1:80" or "[::1]:80". */
export function formatTcpAddress({ ip, family, port }: TcpAddress): string {
  return family === 6 ? `[${ip}]:${port}` : `${ip}:${port}`
}

/** struct sockaddr_in or sockaddr_in6. */
function sockaddr({ ip, family, port }: TcpAddress): Uint8Array {
  const bytes = new Uint8Array(family === 6 ? 28 : 16)
  const view = new DataView(bytes.buffer)
  view.setUint16(0, family === 6 ? AF_INET6 : AF_INET, true)
  view.setUint16(2, port) // network order
  if (family === 4) ip.split('.').forEach((part, i) => view.setUint8(4 + i, Number(part)))
  else bytes.set(parseIpv6(ip), 8)
  return bytes
}

function words(part: string | undefined): number[] {
  return part ? part.split(':').map((word) => parseInt(word, 16)) : []
}

/** The 16 bytes of an address that dns.lookup or net.isIPv6 has already accepted; a scope ("%eth0") is not kept. */
function parseIpv6(text: string): Uint8Array {
  const bytes = new Uint8Array(16)
  let address = text.split('%')[0]!
  const dotted = /^(.*:)(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(address)
  if (dotted) {
    const [a, b, c, d] = dotted.slice(2).map(Number) as [number, number, number, number]
    address = `${dotted[1]}${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`
  }
  const [head, tail] = address.split('::') as [string, string | undefined]
  words(head).forEach((word, i) => new DataView(bytes.buffer).setUint16(i * 2, word))
  const last = words(tail)
  last.forEach((word, i) => new DataView(bytes.buffer).setUint16(16 - (last.length - i) * 2, word))
  return bytes
}

function open(address: TcpAddress, thing: string): number {
  const domain = address.family === 6 ? AF_INET6 : AF_INET
  return check(socketFunction(domain, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), 'socket', thing)
}

function setOption(fd: number, level: number, name: number, value = 1): void {
  setsockoptFunction(fd, level, name, new Uint8Array(Uint32Array.of(value).buffer), 4)
}

/** Listens; returns the fd. An IPv6 address takes IPv6 only, so that what the user wrote is what is open. */
export function listenTcp(address: TcpAddress, backlog = 8): number {
  const thing = formatTcpAddress(address)
  const fd = open(address, thing)
  setOption(fd, SOL_SOCKET, SO_REUSEADDR)
  if (address.family === 6) setOption(fd, IPPROTO_IPV6, IPV6_V6ONLY)
  const bytes = sockaddr(address)
  if (bindFunction(fd, bytes, bytes.length) === 0 && listenFunction(fd, backlog) === 0) return fd
  const name = errnoName(errno())
  closeFd(fd)
  throw listenError(thing, name)
}

function listenError(thing: string, name: string): VmchannelError {
  const detail = { errno: name, syscall: 'bind' }
  if (name === 'EADDRINUSE')
    return new VmchannelError('ERR_VMCHANNEL_IN_USE', `cannot listen at tcp ${thing}: another process listens there`, {
      ...detail,
      hint: 'choose another port, or 0 for any free one',
    })
  if (name === 'EADDRNOTAVAIL')
    return new VmchannelError(
      'ERR_VMCHANNEL_CHARDEV',
      `cannot listen at tcp ${thing}: this machine has no such address`,
      {
        ...detail,
        hint: 'use 127.0.0.1, ::1 or an address of this machine (see "ip address")',
      },
    )
  if (name === 'EACCES')
    return new VmchannelError('ERR_VMCHANNEL_CHARDEV', `cannot listen at tcp ${thing}: no permission for this port`, {
      ...detail,
      hint: 'ports below 1024 are for root; choose a higher one',
    })
  return new VmchannelError('ERR_VMCHANNEL_CHARDEV', `cannot listen at tcp ${thing}: ${name}`, detail)
}

/** Port that a socket is bound to: where port 0 was asked for. */
export function boundPort(fd: number): number {
  const bytes = new Uint8Array(28)
  check(getsocknameFunction(fd, bytes, new Uint8Array([28, 0, 0, 0])), 'getsockname', 'tcp socket')
  return new DataView(bytes.buffer).getUint16(2)
}

/** Starts to connect; returns the fd, which becomes writable when `connectError` has the outcome. */
export function startConnect(address: TcpAddress): number {
  const thing = formatTcpAddress(address)
  const fd = open(address, thing)
  const bytes = sockaddr(address)
  if (connectFunction(fd, bytes, bytes.length) === 0 || errno() === EINPROGRESS) return fd
  const error = systemError('connect', `tcp ${thing}`, 'ERR_VMCHANNEL_CHARDEV')
  closeFd(fd)
  throw error
}

/** Name of the error a connect has ended with, undefined when it is connected. Reading it clears it. */
export function connectError(fd: number): string | undefined {
  const value = new Uint8Array(4)
  if (getsockoptFunction(fd, SOL_SOCKET, SO_ERROR, value, new Uint8Array([4, 0, 0, 0])) !== 0) return errnoName(errno())
  const error = new DataView(value.buffer).getInt32(0, true)
  return error === 0 ? undefined : errnoName(error)
}

/** Small writes go out at once: a port is usually a dialogue. */
export function setNoDelay(fd: number): void {
  setOption(fd, IPPROTO_TCP, TCP_NODELAY)
}

/**
 * An idle peer from which nothing comes for `ms` any more, probes (keepalive) included, is gone: its machine was
 * switched off, or the way to it has ended. The kernel counts in seconds; two are the least. Not TCP_USER_TIMEOUT: that
 * ends the connection of a peer, too, that answers all probes and only does not read.
 */
export function setKeepalive(fd: number, ms: number): void {
  const idle = Math.max(1, Math.floor(ms / 2000))
  const interval = Math.max(1, Math.floor(ms / 2000 / PROBES))
  setOption(fd, IPPROTO_TCP, TCP_KEEPIDLE, idle)
  setOption(fd, IPPROTO_TCP, TCP_KEEPINTVL, interval)
  setOption(fd, IPPROTO_TCP, TCP_KEEPCNT, Math.max(1, Math.ceil((ms / 1000 - idle) / interval)))
  setOption(fd, SOL_SOCKET, SO_KEEPALIVE)
}
