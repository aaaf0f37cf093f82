/**
 * What each test of the server starts with: a toy function behind a listening server, and the way to end it all.
 */

import { mkdtempSync, readdirSync, readlinkSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { UnsharedMemory } from '../../../../src/device/attach/vfio-user/dma.ts'
import {
  listenVfioUser,
  type VfioUserOptions,
  type VfioUserServer,
} from '../../../../src/device/attach/vfio-user/server.ts'
import type { Log } from '../../../../src/log.ts'
import { GuestMemory } from '../../../../src/mem/guest-memory.ts'
import { turn } from '../../../support/fake-vmm.ts'
import { ToyFunction } from './toy-function.ts'

export interface Rig {
  path: string
  server: VfioUserServer
  toy: ToyFunction
  memory: GuestMemory
  /** What was logged: "warn: text". */
  lines: string[]
  /** What the callbacks said. */
  events: string[]
  unshared: UnsharedMemory[]
  /** Waits until the server has noticed that the VMM is gone. */
  detached(): Promise<void>
  end(): void
}

export async function openRig(
  toy: ToyFunction = new ToyFunction(),
  more: Pick<VfioUserOptions, 'keep'> = {},
): Promise<Rig> {
  const folder = mkdtempSync(join(tmpdir(), 'vmchannel-vfio-user-'))
  const path = join(folder, 's.sock')
  const lines: string[] = []
  const events: string[] = []
  const unshared: UnsharedMemory[] = []
  const line = (kind: string) => (text: string) => void lines.push(`${kind}: ${text}`)
  const log: Log = { error: line('error'), warn: line('warn'), info: line('info'), debug: line('debug') }
  const memory = new GuestMemory()
  const server = await listenVfioUser({
    ...more,
    path,
    memory,
    function: toy,
    log,
    onAttach: () => void events.push('attach'),
    onDetach: (reason) => void events.push(`detach: ${reason}`),
    onUnshared: (found) => void unshared.push(found),
  })
  return {
    path,
    server,
    toy,
    memory,
    lines,
    events,
    unshared,
    async detached() {
      await until(() => !server.attached, 'the server to notice the end')
    },
    end() {
      server.close()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** Waits for something that happens on this event loop. */
export async function until(condition: () => boolean, what: string, ms = 30_000): Promise<void> {
  const end = Date.now() + ms
  while (!condition()) {
    if (Date.now() > end) throw new Error(`waited ${ms} ms in vain for ${what}`)
    await turn()
  }
}

/** What every open descriptor of this process refers to, sorted: equal before and after means that nothing leaked. */
export function openFds(): string[] {
  return readdirSync('/proc/self/fd')
    .map((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`)
      } catch {
        return ''
      }
    })
    .filter((target) => target !== '' && !target.startsWith('/proc/'))
    .toSorted()
}
