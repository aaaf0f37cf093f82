/**
 * A device process as its keeper starts it: loaded, with its end of the channel and the page that both share, waiting
 * on standard input for its configuration. The first one gets it at once, a spare when it is needed.
 */

import { spawn, type ChildProcess, type IOType } from 'node:child_process'
import { DEVICE_FLAGS, type DaemonConfig } from '../daemon/protocol.ts'
import { closeFd } from '../ffi/libc.ts'
import { packetPair } from '../ffi/socket-calls.ts'
import { createStatusPage, type StatusPage } from './status-page.ts'

export interface ChildOptions {
  /** Descriptors that the keeper was given: the same numbers in the child. */
  inherited: readonly number[]
  /** Whether it answers on the keeper's standard output. */
  answers: boolean
  /** Its log is pino's: loaded before it is needed. */
  json: boolean
}

export class Child {
  readonly process: ChildProcess
  /** The keeper's end of the channel. */
  readonly channel: number
  readonly page: StatusPage
  /** What the device process has to know of its keeper: a part of its configuration. */
  readonly place: NonNullable<DaemonConfig['keeper']>

  /** Throws where this process has no descriptors left. */
  constructor({ inherited, answers, json }: ChildOptions) {
    const { fd, page } = createStatusPage()
    this.page = page
    try {
      const pair = packetPair()
      this.channel = pair.ours
      const top = Math.max(2, ...inherited) + 1
      const stdio: (IOType | number)[] = ['pipe', answers ? 1 : 'ignore', 2]
      while (stdio.length < top) stdio.push(inherited.includes(stdio.length) ? stdio.length : 'ignore')
      stdio.push(pair.theirs, fd)
      this.place = { channel: top, page: top + 1, pid: process.pid }
      const entry = decodeURIComponent(new URL('../daemon/main.js', import.meta.url).pathname)
      try {
        this.process = spawn(process.execPath, [...DEVICE_FLAGS, entry, ...(json ? ['json'] : [])], { stdio })
      } catch (error) {
        closeFd(pair.ours)
        throw error
      } finally {
        closeFd(pair.theirs)
      }
    } catch (error) {
      page.close()
      throw error
    } finally {
      closeFd(fd)
    }
    // It ended before it read all: its exit says more.
    this.process.stdin?.on('error', () => {})
  }

  configure(text: string): void {
    this.process.stdin?.end(text)
  }
}
