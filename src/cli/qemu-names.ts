/** Names of the VMs of one QEMU, for `--vm`: what -name says, else qemu-PID; this process becomes QEMU and keeps its id. */

import { argumentOptions, splitCommandLine } from '../qemu/command-line.ts'
import { optionText } from '../qemu/option.ts'
import type { PlannedDevice } from '../qemu/plan.ts'

/** Sockets in the state directory have the name, and a socket's path has 107 bytes at most. */
const NAME_MAX = 32

/** One for each device: the first has the plain name, the others their id behind it. */
export function vmNames(devices: readonly PlannedDevice[], argv: readonly string[]): string[] {
  const named = splitCommandLine(argv).findLast(({ name }) => name === 'name')
  const option = named && argumentOptions(named)
  const given = option && clean(optionText(option, 'guest') ?? '')
  const base = given || `qemu-${process.pid}`
  const names: string[] = []
  for (const [at, { id }] of devices.entries()) {
    const own = at === 0 ? base : `${base}.${clean(id)}`
    names.push(names.includes(own) ? `${own}.${at}` : own)
  }
  return names
}

function clean(name: string): string {
  return name
    .replaceAll(/[^A-Za-z0-9_.-]+/g, '-')
    .replace(/^[-.]+/, '')
    .slice(0, NAME_MAX)
}
