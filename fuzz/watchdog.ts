/**
 * A thread beside the fuzzer: where an episode never gives the event loop back, nothing there can say so. It keeps the
 * input as a finding and ends the process.
 */

import { writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { isMainThread, workerData } from 'node:worker_threads'

export interface Watched {
  storage: Uint8Array
  /** The number of the episode, and the index of its target in `names`. */
  turns: Int32Array
  names: string[]
  folder: string
  hangMs: number
}

const LOOK_MS = 1000

if (!isMainThread) watch(workerData as Watched)

function watch({ storage, turns, names, folder, hangMs }: Watched): void {
  let [episode, since] = [-1, 0]
  setInterval(() => {
    const now = Atomics.load(turns, 0)
    if (now !== episode) [episode, since] = [now, performance.now()]
    else if (now > 0 && performance.now() - since > hangMs) {
      const target = names[turns[1]!]!
      const file = join(folder, `${target}-hang-${process.pid}`)
      writeFileSync(file, storage)
      writeSync(2, `fuzz: ${target}: no end of one turn after ${hangMs / 1000} s\n`)
      writeSync(2, `Again: npm run fuzz -- --input ${file} ${target}\n`)
      process.kill(process.pid, 'SIGKILL')
    }
  }, LOOK_MS)
}
