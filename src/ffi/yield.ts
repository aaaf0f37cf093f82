/** Gives the processor to whoever wants it, and the time in microseconds. Called by loops that wait by looking. */

import { declare } from './libc.ts'

const yieldFunction = declare('int sched_yield()')

export function yieldCpu(): void {
  yieldFunction()
}

export function microseconds(): number {
  return performance.now() * 1000
}
