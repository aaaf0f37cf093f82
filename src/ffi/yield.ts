/** Gives the processor to whoever wants it. Called by loops that wait by looking. */

import { declare } from './libc.ts'

const yieldFunction = declare('int sched_yield()')

export function yieldCpu(): void {
  yieldFunction()
}
