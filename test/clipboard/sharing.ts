/** `vmchannel clipboard` as a process, and what it says; and the wish for both sides to agree. */
import type { ChildProcess } from 'node:child_process'
import { expect } from 'vitest'
import type { ClipboardEvent } from '../../src/clipboard/sync.ts'
import { type Bench, collect, type Result, until } from '../cli/run.ts'
import type { Desk } from './desk.ts'

export const PATIENCE = 60_000

export class Sharing {
  readonly events: ClipboardEvent[] = []
  readonly ended: Promise<Result>
  readonly #child: ChildProcess

  /** Waits until the agent is there. */
  static async start(bench: Bench, args: readonly string[], env: NodeJS.ProcessEnv): Promise<Sharing> {
    const sharing = new Sharing(bench.start(['clipboard', '--json', ...args], { env }))
    await Promise.race([
      sharing.next('agent', 0),
      sharing.ended.then(({ status, stderr }) => {
        throw new Error(`vmchannel clipboard ended with ${status}: ${stderr}`)
      }),
    ])
    return sharing
  }

  private constructor(child: ChildProcess) {
    this.#child = child
    this.ended = collect(child)
    let text = ''
    child.stdout!.on('data', (chunk: string) => {
      const lines = (text + chunk).split('\n')
      text = lines.pop()!
      for (const line of lines) this.events.push(JSON.parse(line) as ClipboardEvent)
    })
  }

  next(kind: ClipboardEvent['event'], from: number): Promise<ClipboardEvent> {
    return until(`event ${kind}`, () => this.events.slice(from).find(({ event }) => event === kind), PATIENCE)
  }

  /** Does something, and waits until a side is said to have copied something. */
  async copied(from: 'guest' | 'host', act: () => Promise<unknown>): Promise<void> {
    const before = this.events.length
    await act()
    await until(
      `the ${from} copied`,
      () =>
        this.events.slice(before).some((one) => one.event === 'copied' && one.from === from && one.types.length > 0),
      PATIENCE,
    )
  }

  /** Words for what it said, from there on. */
  said(from = 0): string[] {
    return this.events.slice(from).map((one) => {
      if (one.event === 'copied') return `${one.from} ${one.selection}${one.types.length === 0 ? ' let go' : ''}`
      return one.event === 'refused' ? `refused ${one.from}: ${one.why}` : one.event
    })
  }

  async end(signal: NodeJS.Signals = 'SIGTERM'): Promise<Result> {
    this.#child.kill(signal)
    return this.ended
  }
}

/** Until a side pastes just this. */
export async function pastes(
  desk: Desk,
  text: string,
  selection: 'clipboard' | 'primary' = 'clipboard',
): Promise<void> {
  let last = ''
  await until(
    `${JSON.stringify(text)} is pasted`,
    async () => (last = await desk.paste(selection)) === text,
    PATIENCE,
  ).catch((error: unknown) => {
    throw new Error(`pasted last: ${JSON.stringify(last.slice(0, 60))}`, { cause: error })
  })
  expect(last).toBe(text)
}
