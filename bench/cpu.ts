/** What a process costs the machine, from /proc. */
import { readFileSync } from 'node:fs'

/** Clock ticks of /proc a second: the same on every Linux that Node runs on. */
const TICKS = 100

/** Processor seconds of a process with all its threads, the ended ones too. */
export function cpuSeconds(pid: number): number {
  const words = readFileSync(`/proc/${pid}/stat`, 'latin1')
    .replace(/^.*\) /s, '')
    .split(' ')
  return (Number(words[11]) + Number(words[12])) / TICKS
}

/** Bytes that a process has for itself, with its part of what several share; not the guests' own memory. */
export function ownMemory(pid: number): number {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, 'latin1')
  const kilobytes = [...text.matchAll(/^Pss_(?:Anon|File):\s+(\d+) kB/gm)].map((found) => Number(found[1]))
  return kilobytes.reduce((sum, one) => sum + one, 0) * 1024
}
