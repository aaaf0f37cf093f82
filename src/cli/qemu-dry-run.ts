/** `vmchannel qemu --dry-run`: what would be run, for a shell or for a program. */

import { join } from 'node:path'
import { stateRoot } from '../daemon/state-dir.ts'
import { formatPortSpec } from '../port-spec.ts'
import { findQemu } from '../qemu/find.ts'
import type { Plan } from '../qemu/plan.ts'
import { print, printJson, say } from './print.ts'
import { vmNames } from './qemu-names.ts'
import type { OwnOptions } from './qemu-options.ts'
import { shellQuote } from './shell-quote.ts'

/** Prints the plan. The sockets' names are those of a run with this process id. */
export function printPlan(plan: Plan, options: OwnOptions): number {
  const qemu = findQemu(process.env, options.qemuBinary, process.argv[1])
  const folder = join(stateRoot(), String(process.pid))
  const names = vmNames(plan.devices, plan.guestName)
  const sockets = names.map((name, at) =>
    join(folder, `${name}.${plan.devices[at]!.transport === 'usernet' ? 'usernet' : 'vfio'}.sock`),
  )
  const args = plan.qemuArgs(sockets)
  if (options.json) {
    const devices = plan.devices.map(({ id, origin, transport, maxPorts, ports }, at) => ({
      id,
      vm: names[at],
      origin,
      transport,
      socket: sockets[at],
      maxPorts,
      ports: ports.map((port) => formatPortSpec(port)),
    }))
    printJson({ qemu, args, passThrough: plan.passThrough ?? null, devices, warnings: plan.warnings })
    return 0
  }
  for (const warning of plan.warnings) say(`vmchannel: warning: ${warning}`)
  if (plan.passThrough !== undefined) say(`# no device of vmchannel: ${plan.passThrough}`)
  for (const { id, ports } of plan.devices) for (const port of ports) say(`# ${id}: ${formatPortSpec(port)}`)
  print(`${[qemu, ...args].map(shellQuote).join(' ')}\n`)
  return 0
}
