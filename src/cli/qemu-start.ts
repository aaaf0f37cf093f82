/**
 * The run that has devices of ours: starts their process, waits until it is ready, becomes QEMU. Called by qemu.ts.
 *
 * QEMU inherits one end of a pipe without knowing. When it ends, however it ends, the pipe does, and the device process
 * goes: also where QEMU refuses its arguments and never connects, or this process is killed on its way.
 */

import { writeSync } from 'node:fs'
import { startDevice, type StartedDevice, type StartOptions } from '../client/start.ts'
import type { DaemonConfig } from '../daemon/protocol.ts'
import { VmchannelError } from '../errors.ts'
import { execve, setInheritable, type ExecOptions } from '../ffi/exec.ts'
import { closeFd } from '../ffi/libc.ts'
import { createMemfd } from '../ffi/mmap.ts'
import { makePipe } from '../ffi/pipe.ts'
import { splitCommandLine } from '../qemu/command-line.ts'
import { blockArguments, blockImage } from '../qemu/migration-block.ts'
import type { Plan } from '../qemu/plan.ts'
import type { OwnOptions } from './qemu-options.ts'
import { vmNames } from './qemu-names.ts'
import { sayNow } from './say-now.ts'

const END_MS = 3000
/** Longest delay of a timer: ports that wait for their peer have no deadline. */
const FOREVER_MS = 2 ** 31 - 1

export async function startAndBecome(
  plan: Plan,
  argv: readonly string[],
  qemu: string,
  options: OwnOptions,
  exec: ExecOptions,
): Promise<never> {
  const { config, start } = prepare(plan, argv, options)
  const lifeline = makePipe()
  for (const fd of plan.takenFds) setInheritable(fd, true)
  let device: StartedDevice
  try {
    device = await startDevice(config, { ...start, lifeline: lifeline.read })
  } finally {
    for (const fd of plan.takenFds) setInheritable(fd, false)
    closeFd(lifeline.read)
  }
  try {
    const fixed = plan.devices.some(({ transport }) => transport === 'vfio-user') ? migrationBlock() : undefined
    const sockets = config.vms.map(({ name }) => device.vms.find(({ vm }) => vm === name)!.socket)
    execve(qemu, [qemu, ...plan.qemuArgs(sockets), ...(fixed?.args ?? [])], {
      ...exec,
      keepFds: [...(exec.keepFds ?? []), lifeline.write, ...(fixed?.fds ?? [])],
      closeFds: plan.takenFds,
    })
  } catch (error) {
    await end(device)
    throw error
  }
}

/** An image in memory, which QEMU inherits and opens anew: there is no file to leave behind. */
function migrationBlock(): { args: string[]; fds: number[] } {
  const fd = createMemfd('vmchannel-cannot-migrate', false)
  writeSync(fd, blockImage())
  return { args: blockArguments(`/proc/self/fd/${fd}`), fds: [fd] }
}

function prepare(
  plan: Plan,
  argv: readonly string[],
  options: OwnOptions,
): { config: DaemonConfig; start: StartOptions } {
  const names = vmNames(plan.devices, plan.guestName)
  const vms = plan.devices.map(({ id: _id, origin: _origin, ...options }, at) => ({ ...options, name: names[at]! }))
  const ports = plan.devices.flatMap((device) => device.ports)
  const start: StartOptions = { detached: true, keeper: options.keeper }
  const waiting = ports.filter(({ chardev }) => 'wait' in chardev && chardev.wait)
  if (waiting.length > 0) {
    start.timeoutMs = FOREVER_MS
    sayNow(`vmchannel: waiting for somebody to connect to ${waiting.map(({ chardev }) => placeOf(chardev)).join(', ')}`)
  }
  // The log would hold open the pipe that whoever started a QEMU in the background reads to its end.
  if (splitCommandLine(argv).some(({ name }) => name === 'daemonize')) start.stderr = 'ignore'
  if (ports.some(({ chardev }) => chardev.kind === 'stdio')) {
    if (plan.takenFds.some((fd) => fd < 6))
      throw new VmchannelError(
        'ERR_VMCHANNEL_USAGE',
        'a stdio port and a chardev with fd=3, 4 or 5 do not go together',
        {
          hint: 'use a descriptor from 6 on',
        },
      )
    start.terminal = { input: 0, output: 1 }
  } else if (plan.takenFds.includes(3)) {
    throw new VmchannelError('ERR_VMCHANNEL_USAGE', 'fd=3 is needed by vmchannel itself', {
      hint: 'use a descriptor from 4 on',
    })
  }
  return { config: { vms, exitWith: 'vmm', logLevel: options.log }, start }
}

function placeOf(chardev: Plan['devices'][number]['ports'][number]['chardev']): string {
  if (chardev.kind === 'unix') return chardev.path ?? `descriptor ${chardev.fd}`
  return chardev.kind === 'tcp' ? `${chardev.host ?? 'localhost'}:${chardev.port}` : chardev.kind
}

/** Until the device process has removed what it made. */
async function end(device: StartedDevice): Promise<void> {
  const { process: child } = device
  if (child.exitCode !== null || child.signalCode !== null) return
  await new Promise<void>((resolve) => {
    const timer = setTimeout(() => {
      child.kill('SIGKILL')
      resolve()
    }, END_MS)
    child.once('exit', () => {
      clearTimeout(timer)
      resolve()
    })
    child.kill('SIGTERM')
  })
}
