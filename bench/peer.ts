/** The host's end of a bench port: `peer.c`, compiled once, started for each run. And `awake.c`, for round trips. */
import { spawn, type ChildProcess } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { guestProgram } from '../lab/fetch/compiler.ts'
import { repoRoot } from '../lab/paths.ts'

export interface PeerResult {
  bytes: number
  ns: number
}

async function program(name: string): Promise<string> {
  return guestProgram(name, await readFile(join(repoRoot(), 'bench', `${name}.c`), 'utf8'))
}

/** Path of the program. */
export function peerProgram(): Promise<string> {
  return program('peer')
}

/**
 * Starts `sink BYTES`, `source BYTES SIZE` or `echo` on a socket, `sinks BYTES COUNT` on as many (a path with %d).
 * Resolves when it is connected.
 */
export async function startPeer(
  program: string,
  socket: string,
  mode: 'sink' | 'sinks' | 'source' | 'echo',
  ...words: number[]
): Promise<() => Promise<PeerResult>> {
  const { child, output, ended } = await start(program, [mode, socket, ...words.map(String)])
  return async () => {
    if (mode === 'echo') child.kill('SIGTERM')
    child.stdin?.end()
    await ended
    if (mode === 'echo') return { bytes: 0, ns: 0 }
    const result = JSON.parse(output().trim().split('\n').at(-1) ?? '') as PeerResult
    if (result.bytes < words[0]!) throw new Error(`the peer got ${result.bytes} of ${words[0]} bytes`)
    return result
  }
}

/** Runs `work` while no processor of the host may sleep. */
export async function keepAwake<T>(work: () => Promise<T>): Promise<T> {
  const { child, ended } = await start(await program('awake'), [])
  try {
    return await work()
  } finally {
    child.kill('SIGKILL')
    await ended
  }
}

async function start(
  file: string,
  words: string[],
): Promise<{ child: ChildProcess; output: () => string; ended: Promise<void> }> {
  const child = spawn(file, words, { stdio: ['pipe', 'pipe', 'inherit'] })
  let text = ''
  const ended = new Promise<void>((resolve) => child.on('close', () => resolve()))
  await new Promise<void>((resolve) => {
    child.stdout.on('data', (chunk: Buffer) => {
      text += chunk.toString()
      if (text.includes('ready\n')) resolve()
    })
    child.on('close', () => resolve())
  })
  return { child, output: () => text, ended }
}
