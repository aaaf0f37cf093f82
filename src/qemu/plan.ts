/**
 * From a command line for QEMU, with or without our options in it, to what has to be done: which devices to make, with
 * which ports, and what QEMU gets to see. Pure: called by the wrapper (vmchannel qemu, vmchannel-qemu), which starts the
 * devices and then becomes QEMU.
 */

import { VmchannelError } from '../errors.ts'
import { parsePortSpec, type PortSpec } from '../port-spec.ts'
import {
  describeArgument,
  isOwn,
  splitCommandLine,
  withConfigFiles,
  withoutOwn,
  type Argument,
} from './command-line.ts'
import { planMemory, type FileKind, type MemoryPlan } from './memory.ts'
import { machineObstacle, refuseIncoming } from './obstacles.ts'
import { optionText, parseOptionString, type JsonValue } from './option.ts'
import { passThroughReason } from './pass-through.ts'
import { slotTrouble, slotWarning } from './pci-slots.ts'
import { claimName, neededPorts, numberPorts, type NamedPort } from './port-numbers.ts'
import { carryProperties } from './serial-options.ts'
import { findSerialDevices, type SerialDevice } from './serial.ts'
import { allIds, freshId, mentionedFds } from './usage.ts'

/** What the plan has to know about this machine; each may be left out. */
export interface PlanHost {
  /** The text of a -readconfig file; undefined where it cannot be read. */
  readFile?(path: string): string | undefined
  fileKind?(path: string): FileKind
  umask?: number
}

export interface PlannedDevice {
  /** Its id in QEMU. */
  id: string
  /** What asked for it: "-virtioserial", or QEMU's -device. */
  origin: string
  maxPorts: number
  /** All with their numbers. */
  ports: PortSpec[]
}

export interface Plan {
  /** Why QEMU runs with its own arguments and no device of ours; undefined where there are devices. */
  passThrough: string | undefined
  devices: PlannedDevice[]
  /** QEMU's arguments, given the vfio-user socket of each device. */
  qemuArgs(socketPaths: readonly string[]): string[]
  /** Inherited descriptors that the devices use: QEMU should not keep them. */
  takenFds: number[]
  /** Inherited descriptors that the arguments speak of: Node has marked them as close-on-exec. */
  mentionedFds: number[]
  /** One line each, for a person. */
  warnings: string[]
}

interface Draft extends PlannedDevice {
  properties: Record<string, JsonValue>
  /** Where it goes on the command line; at the end where undefined. */
  place: Argument | undefined
}

/** Plans a run. `argv` is what stands behind the program's name. Throws where the user's own wish cannot be met. */
export function planQemu(argv: readonly string[], host: PlanHost = {}): Plan {
  const given = splitCommandLine(argv)
  const rest = given.filter((argument) => !isOwn(argument))
  const alone = passThroughReason(rest)
  if (alone !== undefined) return leaveAlone(given, alone, [])
  const list = withConfigFiles(rest, (path) => host.readFile?.(path))
  const warnings: string[] = []
  const own = ownPorts(given)
  // A device without ports has a use as well: they can be added while the guest runs.
  const wantsOwn = given.some(isOwn)
  let serial = findSerialDevices(list, host.umask)
  for (const device of serial) {
    if (device.reason === undefined) {
      const trouble = slotTrouble(device, list)
      if (trouble !== undefined) device.reason = trouble
    }
    if (device.reason !== undefined && !device.silent) warnings.push(staysWithQemu(device, device.reason))
  }
  const kept = serial.filter((device) => device.reason !== undefined)
  serial = serial.filter((device) => device.reason === undefined)
  if (!wantsOwn && serial.length === 0) return leaveAlone(given, 'no virtio-serial device for vmchannel', warnings)
  const ids = allIds(list)
  const memory = prepare(list, ids, host)
  if (memory instanceof VmchannelError) {
    if (wantsOwn) throw memory
    for (const device of serial) warnings.push(staysWithQemu(device, memory.message))
    return leaveAlone(given, memory.message, warnings)
  }
  refuseIncoming(list)
  const names = new Map<string, string>()
  for (const device of kept) noteNames(device, names)
  const drafts = serial.map((device) => draftCarried(device, ids, names, warnings))
  for (const device of serial) warnings.push(...slotWarning(device, list))
  if (wantsOwn) drafts.push(draftOwn(given, own, ids, names))
  warnings.push(...memory.warnings)
  return {
    passThrough: undefined,
    devices: drafts.map(({ id, origin, maxPorts, ports }) => ({ id, origin, maxPorts, ports })),
    qemuArgs: (socketPaths) => writeArguments(rest, drafts, taken(serial), memory, socketPaths),
    takenFds: drafts.flatMap((draft) => draft.ports.flatMap(inheritedFd)),
    mentionedFds: mentionedFds(given),
    warnings,
  }
}

function leaveAlone(given: readonly Argument[], why: string, warnings: string[]): Plan {
  const args = withoutOwn(given)
  return {
    passThrough: why,
    devices: [],
    qemuArgs: () => [...args],
    takenFds: [],
    mentionedFds: mentionedFds(given),
    warnings,
  }
}

function staysWithQemu(device: SerialDevice, reason: string): string {
  return `${describeArgument(device.argument)} stays with QEMU: ${reason}`
}

/** The memory plan, or the reason why no device of ours can be in this machine. */
function prepare(list: readonly Argument[], ids: Set<string>, host: PlanHost): MemoryPlan | VmchannelError {
  const obstacle = machineObstacle(list)
  if (obstacle) return obstacle
  try {
    return planMemory(list, ids, (path) => host.fileKind?.(path) ?? 'directory')
  } catch (error) {
    if (error instanceof VmchannelError) return error
    throw error
  }
}

function ownPorts(given: readonly Argument[]): NamedPort[] {
  return given.flatMap((argument) => {
    if (argument.name !== 'virtioserial') return []
    if (argument.value === undefined) {
      throw new VmchannelError('ERR_VMCHANNEL_USAGE', '-virtioserial needs a port behind it', {
        hint: 'e.g. -virtioserial unix:/run/vm.sock,name=org.example.0',
      })
    }
    return [{ spec: parsePortSpec(argument.value, '-virtioserial'), argument: `-virtioserial ${argument.value}` }]
  })
}

function noteNames(device: SerialDevice, names: Map<string, string>): void {
  for (const port of device.ports) {
    const name = optionText(port.option, 'name')
    // Two of one name on QEMU's side are QEMU's to refuse.
    if (name !== undefined && !names.has(name)) claimName(name, describeArgument(port.argument), names)
  }
}

function draftCarried(device: SerialDevice, ids: Set<string>, names: Map<string, string>, warnings: string[]): Draft {
  const { maxPorts, properties, ignored } = device.properties ?? { maxPorts: 0, properties: {}, ignored: [] }
  const origin = describeArgument(device.argument)
  for (const key of ignored) warnings.push(`${origin}: option ${key} has no effect on a vmchannel device`)
  const ports = device.ports.flatMap(({ spec, argument }) =>
    spec ? [{ spec, argument: describeArgument(argument) }] : [],
  )
  return {
    id: device.id ?? freshId('vmchannel', ids),
    origin,
    maxPorts,
    ports: numberPorts(ports, maxPorts, names),
    properties,
    place: device.argument,
  }
}

function draftOwn(given: readonly Argument[], own: NamedPort[], ids: Set<string>, names: Map<string, string>): Draft {
  const wish = given.findLast((argument) => argument.name === 'virtioserial-device')
  const option = parseOptionString(wish?.value ?? '')
  const carried = carryProperties(option, neededPorts(own))
  const wrong = 'reason' in carried ? carried.reason : carried.spec.ignored.map((key) => `unknown option ${key}`)[0]
  if ('reason' in carried || wrong !== undefined) {
    throw new VmchannelError('ERR_VMCHANNEL_USAGE', `-virtioserial-device ${wish?.value ?? ''}: ${wrong}`, {
      hint: 'it takes id, bus, addr, multifunction, acpi-index and max_ports',
    })
  }
  const { maxPorts, properties } = carried.spec
  return {
    id: optionText(option, 'id') ?? freshId('vmchannel', ids),
    origin: '-virtioserial',
    maxPorts,
    ports: numberPorts(own, maxPorts, names),
    properties,
    place: undefined,
  }
}

function taken(serial: readonly SerialDevice[]): Set<Argument> {
  return new Set(
    serial.flatMap((device) =>
      device.ports.flatMap((port) => (port.chardev ? [port.argument, port.chardev] : [port.argument])),
    ),
  )
}

function inheritedFd(port: PortSpec): number[] {
  const { fd } = port.chardev as { fd?: unknown }
  return typeof fd === 'number' ? [fd] : []
}

function writeArguments(
  rest: readonly Argument[],
  drafts: readonly Draft[],
  removed: ReadonlySet<Argument>,
  memory: MemoryPlan,
  socketPaths: readonly string[],
): string[] {
  if (socketPaths.length !== drafts.length) {
    throw new RangeError(`${drafts.length} devices, but ${socketPaths.length} sockets`)
  }
  const deviceOf = (draft: Draft): string => deviceArgument(draft, socketPaths[drafts.indexOf(draft)] ?? '')
  const args: string[] = []
  for (const argument of rest) {
    const draft = drafts.find((one) => one.place === argument)
    if (draft) args.push('-device', deviceOf(draft))
    else if (!removed.has(argument)) args.push(...(memory.edits.get(argument) ?? argument.raw))
  }
  args.push(...memory.added)
  for (const draft of drafts) if (draft.place === undefined) args.push('-device', deviceOf(draft))
  return args
}

/** Only JSON can say where the socket is. */
function deviceArgument(draft: Draft, path: string): string {
  const socket = { type: 'unix', path }
  return JSON.stringify({ driver: 'vfio-user-pci', id: draft.id, ...draft.properties, socket })
}
