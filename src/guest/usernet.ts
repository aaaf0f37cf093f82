/**
 * `vmchannel guest --usernet`: the ports of a host end behind QEMU's guestfwd as character devices, where there is no
 * virtio-serial device. Connects, and again when the connection is lost. Called by main.ts.
 */

import { readdirSync, readFileSync } from 'node:fs'
import { BlockList, connect, createServer, isIPv4, type Server, type Socket } from 'node:net'
import { networkInterfaces } from 'node:os'
import { join } from 'node:path'
import { describeError, VmchannelError } from '../errors.ts'
import { SILENT, type Log } from '../log.ts'
import { GuestEnd } from '../usernet/guest-end.ts'
import { USERNET_GUEST, USERNET_HOST, USERNET_MAC, USERNET_NETWORK, USERNET_PORT } from '../usernet/place.ts'
import { checkRoot, needCuse } from './preflight.ts'
import type { PortView } from './session.ts'

export interface UsernetOptions {
  /** ADDRESS:PORT of the host end; default: that of `vmchannel qemu … transport=usernet`. */
  address?: string
  log?: Log
}

export interface UsernetSession {
  /** Resolves when it was stopped; rejects where trying again is of no use. */
  readonly ended: Promise<void>
  stop(): Promise<void>
}

const CONNECT_MS = 10_000
const AGAIN_MS = 1000
/** Of all guest ends only one gets answers. Not a file: it goes with its process. */
const LOCK = '\0vmchannel-usernet'

/** Resolves when the ports are there. Rejects with VmchannelError. */
export async function startUsernet(options: UsernetOptions, view: PortView): Promise<UsernetSession> {
  checkRoot()
  const place = parseAddress(options.address ?? `${USERNET_HOST}:${USERNET_PORT}`)
  needCuse()
  checkNetwork(place.host)
  const session = new Session(place, view, options.log ?? SILENT, await lock())
  try {
    await session.begin()
    return session
  } catch (error) {
    await session.stop()
    throw error
  }
}

class Session implements UsernetSession {
  readonly ended: Promise<void>
  readonly #place: Place
  readonly #log: Log
  readonly #view: PortView
  readonly #lock: Server
  #end: GuestEnd | undefined
  #over: { resolve: () => void; reject: (error: unknown) => void } | undefined
  #stopping: Promise<void> | undefined
  #wake: (() => void) | undefined

  constructor(place: Place, view: PortView, log: Log, held: Server) {
    this.#place = place
    this.#view = view
    this.#log = log
    this.#lock = held
    this.ended = new Promise((resolve, reject) => (this.#over = { resolve, reject }))
    this.ended.catch(() => {})
  }

  /** The first connection: what is wrong with that is said, later ones are tried for ever. */
  async begin(): Promise<void> {
    await this.#connect()
    void this.#keep()
  }

  stop(): Promise<void> {
    return (this.#stopping ??= this.#stop())
  }

  async #stop(): Promise<void> {
    this.#wake?.()
    await this.#end?.stop()
    this.#lock.close()
    this.#over?.resolve()
  }

  async #connect(): Promise<void> {
    const { host, port } = this.#place
    const socket = await dial(this.#place)
    try {
      this.#end = await GuestEnd.start(socket, { log: this.#log, onPort: (event) => this.#view.handle(event) })
    } catch (error) {
      throw noAnswer(this.#place, error)
    }
    this.#log.info(`${host}:${port}: ${this.#end.maxPorts} ports at most`)
  }

  async #keep(): Promise<void> {
    let told = false
    while (!this.#stopping) {
      const reason = await this.#end?.ended
      this.#end = undefined
      if (this.#stopping) return
      if (reason !== undefined) this.#log.warn(`${reason}; connecting again`)
      try {
        await this.#connect()
        told = false
      } catch (error) {
        if (error instanceof VmchannelError && error.code === 'ERR_VMCHANNEL_CONTROL') {
          this.#lock.close()
          return this.#over?.reject(error)
        }
        if (!told) this.#log.warn(`${describeError(error)}; trying again`)
        told = true
        await new Promise<void>((resolve) => {
          this.#wake = resolve
          setTimeout(resolve, AGAIN_MS)
        })
      }
    }
    await this.#end?.stop()
  }
}

interface Place {
  host: string
  port: number
}

function parseAddress(text: string): Place {
  const [, host = '', port = ''] = /^(.+):(\d{1,5})$/.exec(text) ?? []
  if (isIPv4(host) && Number(port) > 0 && Number(port) < 65_536) return { host, port: Number(port) }
  throw new VmchannelError('ERR_VMCHANNEL_USAGE', `--address: "${text}" is not ADDRESS:PORT`, {
    hint: `that of guestfwd on QEMU's command line, e.g. ${USERNET_HOST}:${USERNET_PORT}; IPv4 only`,
  })
}

function dial({ host, port }: Place): Promise<Socket> {
  const socket = connect({ host, port })
  return new Promise((resolve, reject) => {
    const fail = (why: string): void => {
      socket.destroy()
      reject(noAnswer({ host, port }, new Error(why)))
    }
    const timer = setTimeout(() => fail('it takes no connection'), CONNECT_MS)
    socket.once('connect', () => {
      clearTimeout(timer)
      socket.removeAllListeners()
      resolve(socket)
    })
    socket.once('error', (error) => {
      clearTimeout(timer)
      fail(error.message)
    })
  })
}

function noAnswer({ host, port }: Place, cause: unknown): VmchannelError {
  if (cause instanceof VmchannelError && cause.code === 'ERR_VMCHANNEL_CONTROL') return cause
  const why = cause instanceof Error ? cause.message : String(cause)
  return new VmchannelError('ERR_VMCHANNEL_CLOSED', `no host end at ${host}:${port}: ${why}`, {
    cause,
    hint: 'Give QEMU one on the host: vmchannel qemu -virtioserial unix:/path,transport=usernet.',
  })
}

/** The address is not routed anywhere: without a card in its network there is nobody at it. */
function checkNetwork(host: string): void {
  for (const addresses of Object.values(networkInterfaces()))
    for (const { family, cidr, address } of addresses ?? []) {
      const [, bits] = /\/(\d+)$/.exec(cidr ?? '') ?? []
      if (family !== 'IPv4' || bits === undefined) continue
      const network = new BlockList()
      network.addSubnet(address, Number(bits))
      if (network.check(host)) return
    }
  const card = findCard()
  const hint =
    card === undefined
      ? `There is no network card with the address ${USERNET_MAC}: start QEMU with transport=usernet, and load virtio_net.`
      : `Set it up: ip link set ${card} up && ip addr add ${USERNET_GUEST}/24 dev ${card}; or by DHCP.`
  const network = host === USERNET_HOST ? USERNET_NETWORK : `the network of ${host}`
  throw new VmchannelError('ERR_VMCHANNEL_NOT_FOUND', `no network card of this guest has an address in ${network}`, {
    hint,
  })
}

function findCard(): string | undefined {
  const folder = '/sys/class/net'
  return readdirSync(folder).find((name) => {
    try {
      return readFileSync(join(folder, name, 'address'), 'latin1').trim() === USERNET_MAC
    } catch {
      return false
    }
  })
}

function lock(): Promise<Server> {
  const server = createServer((socket) => socket.destroy())
  return new Promise((resolve, reject) => {
    server.once('error', (cause) =>
      reject(
        new VmchannelError('ERR_VMCHANNEL_IN_USE', 'vmchannel guest --usernet runs already', {
          cause,
          hint: 'End it first: QEMU joins all connections of a guest, only one can be used.',
        }),
      ),
    )
    server.listen(LOCK, () => resolve(server.unref()))
  })
}
