/**
 * Port numbers and names as QEMU's virtio-serial bus gives them: 0 is for consoles, the others count from 1, a taken
 * number or name is an error. Called by plan.ts for each device, in the order in which QEMU would make the ports.
 */

import { VmchannelError } from '../errors.ts'
import { printable } from '../log.ts'
import type { PortSpec } from '../port-spec.ts'

/** What QEMU gives a device that says nothing. */
export const DEFAULT_MAX_PORTS = 31
/** Two queues each, and two for control, of the 1024 that QEMU's virtio has. */
export const MAX_PORTS = 511

export interface NamedPort {
  spec: PortSpec
  /** What to name in errors: "-device virtserialport,chardev=c0". */
  argument: string
}

/** Returns the ports with their numbers. `names` has every name of this VM so far, with its argument, and gets more. */
export function numberPorts(ports: readonly NamedPort[], maxPorts: number, names: Map<string, string>): PortSpec[] {
  const taken = new Map<number, string>()
  return ports.map(({ spec, argument }) => {
    if (spec.name !== undefined) claimName(spec.name, argument, names)
    const id = spec.id ?? freeNumber(spec.console === true, taken)
    if (id === 0 && spec.console !== true) {
      throw new VmchannelError('ERR_VMCHANNEL_PORT', `${argument}: port number 0 is reserved for consoles`, {
        hint: 'give another number, or none: the first free one from 1 is taken',
      })
    }
    const owner = taken.get(id)
    if (owner !== undefined) {
      throw new VmchannelError('ERR_VMCHANNEL_IN_USE', `${argument}: port number ${id} is already used by ${owner}`, {
        hint: 'give another number, or none: the first free one from 1 is taken',
      })
    }
    if (id >= maxPorts) {
      throw new VmchannelError(
        'ERR_VMCHANNEL_PORT',
        `${argument}: port number ${id} is out of range, the device has ${maxPorts} ports (0 to ${maxPorts - 1})`,
        { hint: maxPorts < MAX_PORTS ? `raise max_ports of the device, up to ${MAX_PORTS}` : 'use a second device' },
      )
    }
    taken.set(id, argument)
    return { ...spec, id }
  })
}

function freeNumber(console: boolean, taken: ReadonlyMap<number, string>): number {
  if (console && !taken.has(0)) return 0
  let id = 1
  while (taken.has(id)) id++
  return id
}

/** Notes a name; two ports of one name would fight for /dev/virtio-ports/NAME, on whatever devices they are. */
export function claimName(name: string, argument: string, names: Map<string, string>): void {
  const owner = names.get(name)
  if (owner !== undefined) {
    throw new VmchannelError(
      'ERR_VMCHANNEL_IN_USE',
      `${argument}: the port name "${printable(name)}" is already used by ${owner}`,
      { hint: 'a name can be used once in a VM; give this port another one' },
    )
  }
  names.set(name, argument)
}

/** How many ports a device needs that says nothing about it: QEMU's number, or more where the ports ask for it. */
export function neededPorts(ports: readonly NamedPort[]): number {
  const highest = Math.max(0, ...ports.map((port) => port.spec.id ?? 0))
  // One for port 0, which no generic port takes.
  return Math.min(MAX_PORTS, Math.max(DEFAULT_MAX_PORTS, highest + 1, ports.length + 1))
}
