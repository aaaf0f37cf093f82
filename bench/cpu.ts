/** What a process costs the machine, from /proc. */
import { readdirSync, readFileSync } from 'node:fs'

/** Clock ticks of /proc a second: the same on every Linux that Node runs on. */
const TICKS = 100

/** Processor seconds of a process with all its threads, the ended ones too. */
export function cpuSeconds(pid: number): number {
  const words = readFileSync(`/proc/${pid}/stat`, 'latin1')
    .replace(/^.*\) /s, '')
    .split(' ')
  return (Number(words[11]) + Number(words[12])) / TICKS
}

/** The same to the nanosecond, of the threads that live: for processes that do next to nothing, and start none meanwhile. */
export function livingCpuSeconds(pid: number): number {
  const times = readdirSync(`/proc/${pid}/task`).map((thread) => {
    const [ns] = readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'latin1').split(' ')
    return Number(ns)
  })
  return times.reduce((sum, one) => sum + one, 0) / 1e9
}

/** Bytes that a process has for itself, with its part of what several share; not the guests' own memory. */
export function ownMemory(pid: number): number {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, 'latin1')
  const kilobytes = [...text.matchAll(/^Pss_(?:Anon|File):\s+(\d+) kB/gm)].map((found) => Number(found[1]))
  return kilobytes.reduce((sum, one) => sum + one, 0) * 1024
}
