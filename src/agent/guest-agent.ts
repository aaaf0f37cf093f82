/**
 * qemu-guest-agent as a program on the host sees it. Made by connect.ts; used by `vmchannel agent` and
 * `vmchannel screenlock`, and part of the library.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { wait, type WaitOptions } from '../client/abort.ts'
import { VmchannelError } from '../errors.ts'
import type { AgentChannel } from './channel.ts'
import { exec, type ExecOptions, type ExecResult } from './exec.ts'
import { getByCommands, putByCommands } from './file.ts'
import {
  frozen,
  FILE_SYSTEM,
  INTERFACE,
  isDisabled,
  list,
  nonsense,
  number,
  OS_INFO,
  shape,
  USER,
  type AgentCommand,
  type AgentInfo,
  type FreezeStatus,
  type GuestFileSystem,
  type GuestInterface,
  type GuestOsInfo,
  type GuestUser,
} from './protocol.ts'
import { getBySide, NoSide, putBySide, type OpenSide } from './transfer.ts'

/** For one request of which nothing is said; programs and file transfers have no limit of their own. */
const REQUEST_MS = 30_000
/** Freezing waits for everything that is being written. */
const FREEZE_MS = 120_000
/** Thawing after a freeze that failed is tried for so long. */
const THAW_MS = 1_800_000

export interface FileOptions {
  signal?: AbortSignal
  /**
   * `port` adds a port of the device for the file (fast, needs guest-exec and a shell in the guest); `commands` uses
   * the agent's file commands. Left out: a port where there can be one.
   */
  via?: 'port' | 'commands'
}

export interface PutOptions extends FileOptions {
  /** Permission bits, octal: "0644". */
  mode?: string
  /** Bytes of the source, where that is a stream and it is known. */
  size?: number
}

export type PutSource = string | Uint8Array | AsyncIterable<Uint8Array>

/** Calls fail with VmchannelError; `ERR_VMCHANNEL_AGENT` where the guest's agent refused. */
export class GuestAgent {
  readonly #channel: AgentChannel
  readonly #openSide: OpenSide | undefined
  readonly #onClose = new Set<(reason: VmchannelError) => void>()

  readonly #endings = new Set<Promise<void>>()

  /** @internal */
  constructor(channel: AgentChannel, openSide?: OpenSide) {
    this.#channel = channel
    this.#openSide = openSide
    channel.onClose = (reason) => {
      for (const listener of this.#onClose) listener(reason)
    }
  }

  get closed(): boolean {
    return this.#channel.closed
  }

  /** Calls back once when the connection has ended, whoever ended it. */
  onClose(listener: (reason: VmchannelError) => void): void {
    this.#onClose.add(listener)
  }

  /** Until programs that were given up have been killed in the guest, `ms` at most. */
  async settled(ms: number): Promise<void> {
    await Promise.race([Promise.all(this.#endings), sleep(ms, undefined, { ref: false })])
  }

  /** Ends the connection; the agent goes on. */
  close(): void {
    this.#channel.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close()
  }

  /** Any command of the agent, by the name and with the arguments that its schema gives them; see `info`. */
  call(command: string, args: Record<string, unknown> = {}, options: WaitOptions = {}): Promise<unknown> {
    return this.#ask(command, args, options)
  }

  async ping(options: WaitOptions = {}): Promise<void> {
    await this.#ask('guest-ping', {}, options)
  }

  /** Version of the agent, and its commands. */
  async info(options: WaitOptions = {}): Promise<AgentInfo> {
    const what = 'guest-info'
    const answer = shape<{ version: string; supported_commands: AgentCommand[] }>(
      what,
      await this.#ask(what, {}, options),
      { version: 'string', supported_commands: [{ name: 'string', enabled: 'boolean' }] },
    )
    const commands = answer.supported_commands.map(({ name, enabled }) => ({ name, enabled }))
    return { version: answer.version, commands: commands.toSorted((a, b) => (a.name < b.name ? -1 : 1)) }
  }

  async osInfo(options: WaitOptions = {}): Promise<GuestOsInfo> {
    return shape<GuestOsInfo>('guest-get-osinfo', await this.#ask('guest-get-osinfo', {}, options), OS_INFO)
  }

  async hostName(options: WaitOptions = {}): Promise<string> {
    const answer = await this.#ask('guest-get-host-name', {}, options)
    return shape<{ 'host-name': string }>('guest-get-host-name', answer, { 'host-name': 'string' })['host-name']
  }

  async users(options: WaitOptions = {}): Promise<GuestUser[]> {
    const answer = await this.#ask('guest-get-users', {}, options)
    return list<GuestUser>('guest-get-users', answer, USER)
  }

  async interfaces(options: WaitOptions = {}): Promise<GuestInterface[]> {
    const answer = await this.#ask('guest-network-get-interfaces', {}, options)
    return list<GuestInterface>('guest-network-get-interfaces', answer, INTERFACE)
  }

  async fileSystems(options: WaitOptions = {}): Promise<GuestFileSystem[]> {
    const answer = await this.#ask('guest-get-fsinfo', {}, options)
    return list<GuestFileSystem>('guest-get-fsinfo', answer, FILE_SYSTEM)
  }

  /** Runs a program and waits for its end. A program that cannot be started is an error, one that fails is not. */
  exec(path: string, args: readonly string[] = [], options: ExecOptions = {}): Promise<ExecResult> {
    return exec(this.#plain, path, args, options, this.#later)
  }

  /** Writes a file of the guest; gives the number of bytes. */
  async put(source: PutSource, path: string, { signal, via, mode, size }: PutOptions = {}): Promise<number> {
    const whole = typeof source === 'string' ? Buffer.from(source) : source instanceof Uint8Array ? source : undefined
    const pieces = whole ? [whole] : (source as AsyncIterable<Uint8Array>)
    const limits = { signal }
    if (this.#openSide && via !== 'commands') {
      try {
        return await putBySide(this.#plain, this.#openSide, path, pieces, { size: whole?.length ?? size, mode, signal })
      } catch (error) {
        if (!(error instanceof NoSide) || via === 'port') throw explain(error)
      }
    } else if (via === 'port') throw explain(new NoSide())
    const written = await putByCommands(this.#ask, path, pieces, limits)
    if (mode !== undefined) {
      const { status, stderr } = await this.exec('chmod', [mode, path], limits)
      if (status !== 0) throw new VmchannelError('ERR_VMCHANNEL_AGENT', `chmod ${mode} ${path}: ${stderr.toString()}`)
    }
    return written
  }

  /** Reads a file of the guest, piece by piece. */
  async *read(path: string, { signal, via }: FileOptions = {}): AsyncGenerator<Buffer, void, void> {
    if (this.#openSide && via !== 'commands') {
      let begun = false
      try {
        for await (const piece of getBySide(this.#plain, this.#openSide, path, { signal })) {
          begun = true
          yield piece
        }
        return
      } catch (error) {
        if (begun || !(error instanceof NoSide) || via === 'port') throw explain(error)
      }
    } else if (via === 'port') throw explain(new NoSide())
    yield* getByCommands(this.#ask, path, { signal })
  }

  /** A whole file of the guest, `maxSize` at most (64 MiB). */
  async get(
    path: string,
    { maxSize = 64 << 20, ...options }: FileOptions & { maxSize?: number } = {},
  ): Promise<Buffer> {
    const pieces: Buffer[] = []
    let length = 0
    for await (const piece of this.read(path, options)) {
      length += piece.length
      if (length > maxSize)
        throw new VmchannelError('ERR_VMCHANNEL_AGENT', `${path} in the guest has more than ${maxSize} bytes`, {
          hint: 'raise maxSize, or take it piece by piece with read()',
        })
      pieces.push(piece)
    }
    return Buffer.concat(pieces, length)
  }

  /** Freezes file systems, all or some; gives their number. Until `fsThaw` the agent does little else. */
  async fsFreeze(mountpoints?: readonly string[], options: WaitOptions = {}): Promise<number> {
    const limits = { timeout: FREEZE_MS, ...options }
    // Somebody else's freeze is not ours to end.
    if ((await this.fsStatus(options)) === 'frozen') throw frozen('guest-fsfreeze-freeze')
    try {
      const what = mountpoints ? 'guest-fsfreeze-freeze-list' : 'guest-fsfreeze-freeze'
      return number(what, await this.#ask(what, mountpoints ? { mountpoints } : {}, limits), 'count')
    } catch (error) {
      // Some may be frozen; a guest that stands still is worse than any error.
      if (await this.#thaw()) throw error
      throw new VmchannelError('ERR_VMCHANNEL_AGENT', `${describe(error)}; the guest may still be frozen`, {
        hint: '"vmchannel agent fsthaw" ends that, once its agent answers',
        cause: error,
      })
    }
  }

  /** A hook of the guest may hold up its agent for minutes: until it answers, or the connection ends. */
  async #thaw(): Promise<boolean> {
    for (const deadline = Date.now() + THAW_MS; !this.closed && Date.now() < deadline;) {
      try {
        await this.fsThaw()
        return true
      } catch (error) {
        if (!(error instanceof VmchannelError) || error.code !== 'ERR_VMCHANNEL_TIMEOUT') return false
      }
    }
    return false
  }

  /** Ends a freeze; gives the number of file systems. */
  async fsThaw(options: WaitOptions = {}): Promise<number> {
    const what = 'guest-fsfreeze-thaw'
    return number(what, await this.#ask(what, {}, { timeout: FREEZE_MS, ...options }), 'count')
  }

  async fsStatus(options: WaitOptions = {}): Promise<FreezeStatus> {
    const answer = await this.#ask('guest-fsfreeze-status', {}, options)
    if (answer === 'thawed' || answer === 'frozen') return answer
    throw nonsense('guest-fsfreeze-status', 'neither thawed nor frozen')
  }

  /** The guest's clock set to the host's. */
  async setTime(time: Date = new Date(), options: WaitOptions = {}): Promise<void> {
    // The schema wants nanoseconds, more than a number holds exactly: the last digits do not matter here.
    await this.#ask('guest-set-time', { time: time.getTime() * 1e6 }, options)
  }

  /** Asks the guest to go down. There is no answer; it resolves when the connection ends, or after `timeout` (5 s). */
  async shutdown(
    mode: 'powerdown' | 'reboot' | 'halt' = 'powerdown',
    { signal, timeout = 5000 }: WaitOptions = {},
  ): Promise<void> {
    const asked = this.#ask('guest-shutdown', { mode }, { signal, timeout })
    const over = wait<void>('guest-shutdown', { signal }, (resolve) => {
      const timer = setTimeout(resolve, timeout)
      this.onClose(() => resolve())
      return () => clearTimeout(timer)
    })
    await Promise.race([
      over,
      asked.then(
        () => over,
        (error: unknown) => {
          if (error instanceof VmchannelError && error.code === 'ERR_VMCHANNEL_AGENT') throw error
          return over
        },
      ),
    ])
  }

  readonly #ask = (what: string, args: unknown, options: WaitOptions = {}): Promise<unknown> =>
    this.#plain(what, args, { timeout: REQUEST_MS, ...options })

  readonly #later = (work: Promise<void>): void => {
    this.#endings.add(work)
    void work.finally(() => this.#endings.delete(work))
  }

  /** Without a time limit. */
  readonly #plain = async (what: string, args: unknown, options: WaitOptions = {}): Promise<unknown> => {
    try {
      return await this.#channel.request(what, args, options)
    } catch (error) {
      // The agent has the same words for what its options forbid and for what would hang now.
      if (isDisabled(error) && (await this.#status()) === 'frozen') throw frozen(what)
      throw error
    }
  }

  #status(): Promise<unknown> {
    return this.#channel.request('guest-fsfreeze-status', {}, { timeout: REQUEST_MS }).catch(() => undefined)
  }
}

function describe(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

function explain(error: unknown): unknown {
  if (!(error instanceof NoSide)) return error
  return new VmchannelError('ERR_VMCHANNEL_AGENT', 'no port of the device can be used for this file', {
    hint: 'that needs a connection over our device with a free port number, guest-exec, a shell, and a regular file',
    cause: error,
  })
}
