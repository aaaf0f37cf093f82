/**
 * transport=qemu: ports of -virtioserial on a virtio-serial-pci of QEMU itself, with the same names and numbers, so
 * that the guest sees the same nodes. Says what is missing there. Called by plan.ts.
 */

import type { PortSpec } from '../port-spec.ts'
import { CONSOLE_BUFFER } from '../port-spec.ts'
import type { OwnDevice } from './own-ports.ts'
import { numberPorts, type NamedPort } from './port-numbers.ts'
import { toQemuChardev } from './to-chardev.ts'
import { freshId } from './usage.ts'

export interface QemuOwnDevice {
  /** Arguments for the end of the command line. */
  args: string[]
  /** Inherited descriptors that QEMU has to find open. */
  fds: number[]
  /** One line for each option without effect. */
  warnings: string[]
}

/** `names` and `ids` are those of the machine so far, and get more. */
export function planQemuDevice(
  device: OwnDevice,
  ports: readonly NamedPort[],
  version: string,
  names: Map<string, string>,
  ids: Set<string>,
): QemuOwnDevice {
  const { id, maxPorts, vectors, properties } = device
  // As JSON: those are made after all classic ones, so no port of the user's own finds this bus.
  const own = { max_ports: maxPorts, ...(vectors === undefined ? {} : { vectors }), ...properties }
  const args = ['-device', JSON.stringify({ driver: 'virtio-serial-pci', id, ...own })]
  const fds: number[] = []
  const warnings: string[] = []
  for (const [at, spec] of numberPorts(ports, maxPorts, names).entries()) {
    const { argument } = ports[at]!
    const chardev = freshId(`${id}-c${spec.id}`, ids)
    const { option, lost } = toQemuChardev(spec.chardev, chardev, version, argument)
    for (const line of [...lost, ...lostOptions(spec)]) warnings.push(`${argument}: ${line}`)
    if (spec.chardev.kind === 'unix' && spec.chardev.fd !== undefined) fds.push(spec.chardev.fd)
    const port = {
      driver: spec.console ? 'virtconsole' : 'virtserialport',
      // With an id QEMU tells of it over QMP when the guest opens and closes the port.
      id: freshId(`${id}-p${spec.id}`, ids),
      bus: `${id}.0`,
      nr: spec.id,
      chardev,
      ...(spec.name === undefined ? {} : { name: spec.name }),
    }
    args.push('-chardev', option, '-device', JSON.stringify(port))
  }
  return { args, fds, warnings }
}

function lostOptions(spec: PortSpec): string[] {
  const lost: string[] = []
  const none = (word: string, instead: string): void =>
    void lost.push(`${word} has no effect on QEMU's own device: ${instead}`)
  const { console = false, policy, buffer, onClose, cols } = spec
  // What every console gets was not asked for.
  const usual = console && policy === 'drop-oldest' && buffer === CONSOLE_BUFFER
  if (policy !== undefined && policy !== 'block' && !usual)
    none(
      `policy=${policy}`,
      console ? 'what the host does not take is lost' : 'a host that does not read holds up the guest',
    )
  if (onClose !== undefined) none(`on-close=${onClose}`, 'what is left when an end closes is dropped')
  if (cols !== undefined) none('cols and rows', 'the terminal has no size')
  return lost
}
