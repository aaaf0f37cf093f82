/**
 * Names of the VMs of one QEMU, for `--vm`: what -name says, else qemu-PID; this process becomes QEMU and keeps its id.
 */

import { createHash } from 'node:crypto'
import type { PlannedDevice } from '../qemu/plan.ts'

/** Sockets in the state directory have the name, and a socket's path has 107 bytes at most. */
const PART_MAX = 32
const NAME_MAX = 48
const HASH_LEN = 8

/** One for each device: the first has the plain name, the others their id behind it. `given`: what -name says. */
export function vmNames(devices: readonly Pick<PlannedDevice, 'id'>[], given = ''): string[] {
  const base = clean(given) || `qemu-${process.pid}`
  const names: string[] = []
  for (const [at, { id }] of devices.entries()) {
    const own = at === 0 ? base : shortened(`${base}.${clean(id)}`, NAME_MAX)
    names.push(names.includes(own) ? shortened(`${own}.${at}`, NAME_MAX) : own)
  }
  return names
}

function clean(name: string): string {
  return shortened(name.replaceAll(/[^A-Za-z0-9_.-]+/g, '-').replace(/^[-.]+/, ''), PART_MAX)
}

/** A name that is too long ends with a hash of all of it: two that begin alike are not the same. */
function shortened(name: string, max: number): string {
  if (name.length <= max) return name
  const hash = createHash('sha256').update(name).digest('hex').slice(0, HASH_LEN)
  return `${name.slice(0, max - HASH_LEN - 1)}-${hash}`
}
