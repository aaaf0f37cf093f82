/** The host's end of a bench port: `peer.c`, compiled once, started for each run. */
import { spawn } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { guestProgram } from '../lab/fetch/compiler.ts'
import { repoRoot } from '../lab/paths.ts'

export interface PeerResult {
  bytes: number
  ns: number
}

/** Path of the program. */
export async function peerProgram(): Promise<string> {
  return guestProgram('peer', await readFile(join(repoRoot(), 'bench', 'peer.c'), 'utf8'))
}

/** Starts `sink BYTES`, `source BYTES SIZE` or `echo` on a socket. Resolves when it is connected. */
export async function startPeer(
  program: string,
  socket: string,
  mode: 'sink' | 'source' | 'echo',
  ...words: number[]
): Promise<() => Promise<PeerResult>> {
  const child = spawn(program, [mode, socket, ...words.map(String)], { stdio: ['pipe', 'pipe', 'inherit'] })
  let text = ''
  const ended = new Promise<void>((resolve) => child.on('close', () => resolve()))
  await new Promise<void>((resolve) => {
    child.stdout.on('data', (chunk: Buffer) => {
      text += chunk.toString()
      if (text.includes('ready\n')) resolve()
    })
    child.on('close', () => resolve())
  })
  return async () => {
    if (mode === 'echo') child.kill('SIGTERM')
    child.stdin.end()
    await ended
    const line = text.trim().split('\n').at(-1) ?? ''
    return mode === 'echo' ? { bytes: 0, ns: 0 } : (JSON.parse(line) as PeerResult)
  }
}
