/**
 * From a command line for QEMU, with or without our options in it, to what has to be done: which devices to make, with
 * which ports, and what QEMU gets to see. Pure: called by the wrapper (vmchannel qemu, vmchannel-qemu), which starts
 * the devices and then becomes QEMU.
 */

import { VmchannelError } from '../errors.ts'
import type { PortSpec } from '../port-spec.ts'
import { usernetArguments } from '../usernet/place.ts'
import {
  describeArgument,
  isOwn,
  splitCommandLine,
  withConfigFiles,
  withoutOwn,
  type Argument,
} from './command-line.ts'
import { mergeOptions, planMemory, type FileKind, type MemoryPlan } from './memory.ts'
import { behindIommu, machineObstacle, refuseIncoming } from './obstacles.ts'
import { optionText, type JsonValue } from './option.ts'
import { planQemuDevice, type QemuOwnDevice } from './own-device.ts'
import { ownDevice, ownPorts, type OwnDevice } from './own-ports.ts'
import { passThroughReason } from './pass-through.ts'
import { slotTrouble, slotWarning } from './pci-slots.ts'
import { claimName, neededPorts, numberPorts, type NamedPort } from './port-numbers.ts'
import type { QemuAbility } from './probe.ts'
import { findSerialDevices, type SerialDevice } from './serial.ts'
import { allIds, freshId, mentionedFds } from './usage.ts'

/** What the plan has to know about this machine; each may be left out. */
export interface PlanHost {
  /** The text of a -readconfig file; undefined where it cannot be read, or what is read would be missing for QEMU. */
  readFile?(path: string): string | undefined
  fileKind?(path: string): FileKind
  umask?: number
  /** What the QEMU that will run can do; asked only where it matters. Left out: everything. */
  ability?(): QemuAbility
}

export interface PlannedDevice {
  /** Its id in QEMU. */
  id: string
  /** What asked for it: "-virtioserial", or QEMU's -device. */
  origin: string
  transport: 'vfio-user' | 'usernet'
  maxPorts: number
  /** All with their numbers. */
  ports: PortSpec[]
  /** MSI-X vectors, 0 for none; left out: our device's own number. */
  vectors?: number
  /** The machine has a virtual IOMMU, and the device says that it is behind one. */
  iommuPlatform?: boolean
}

export interface Plan {
  /** What -name calls the guest. */
  guestName: string | undefined
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

interface Draft extends Omit<PlannedDevice, 'iommuPlatform'> {
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
  const warnings: string[] = []
  const unread = (argument: Argument, path: string): void => {
    if (host.fileKind?.(path) === 'other') warnings.push(`${describeArgument(argument)} ${ONLY_QEMU_READS}`)
  }
  const list = withConfigFiles(rest, (path) => host.readFile?.(path), unread)
  const own = ownPorts(given)
  // A device without ports has a use as well: they can be added while the guest runs.
  const bare = own.length === 0 && given.some(isOwn)
  let serial = findSerialDevices(list, host.umask)
  for (const device of serial) {
    const trouble = device.reason === undefined ? slotTrouble(device, list) : undefined
    if (trouble !== undefined) device.reason = trouble
  }
  const matters = own.length > 0 || bare || serial.some((device) => device.reason === undefined)
  const { version, obstacle } = (matters ? host.ability?.() : undefined) ?? ABLE
  if (obstacle) {
    if (bare || own.some(({ transport }) => transport === 'vfio-user')) throw obstacle
    for (const device of serial) device.reason ??= obstacle.message
  }
  const theirs = own.filter(({ transport }) => transport === 'qemu' || (transport === 'auto' && obstacle))
  const networked = own.filter(({ transport }) => transport === 'usernet')
  const ours = own.filter((port) => !theirs.includes(port) && !networked.includes(port))
  const wantsOwn = bare || ours.length > 0
  for (const device of serial)
    if (device.reason !== undefined && !device.silent) warnings.push(staysWithQemu(device, device.reason))
  const kept = serial.filter((device) => device.reason !== undefined)
  serial = serial.filter((device) => device.reason === undefined)
  const ids = allIds(list)
  const names = new Map<string, string>()
  const planTheirs = (): QemuOwnDevice => {
    if (theirs.length === 0) return NOTHING
    if (obstacle && theirs.some(({ transport }) => transport === 'auto')) warnings.push(insteadOfOurs(obstacle))
    const device = ownDevice(wantsOwn ? [] : given, theirs, ids)
    const planned = planQemuDevice(device, theirs, version, names, ids)
    warnings.push(...planned.warnings)
    return planned
  }
  const memory = wantsOwn || serial.length > 0 ? prepare(list, ids, host) : undefined
  if (memory instanceof VmchannelError) {
    if (wantsOwn) throw memory
    for (const device of serial) warnings.push(staysWithQemu(device, memory.message))
    kept.push(...serial)
    serial = []
  }
  const iommu = behindIommu(list) ? { iommuPlatform: true } : {}
  const shared = memory instanceof VmchannelError ? undefined : memory
  for (const device of kept) noteNames(device, names)
  if (shared) refuseIncoming(list)
  const drafts = serial.map((device) => draftCarried(device, ids, names, warnings))
  for (const device of serial) warnings.push(...slotWarning(device, list))
  if (wantsOwn) drafts.push(draftOwn(ownDevice(given, ours, ids), ours, names))
  if (networked.length > 0) {
    const device = { id: freshId('vmchannel-net', ids), maxPorts: neededPorts(networked), properties: {} }
    drafts.push({ ...draftOwn(device, networked, names), transport: 'usernet' })
  }
  const added = planTheirs()
  warnings.push(...(shared?.warnings ?? []))
  if (drafts.length === 0) {
    const why = memory instanceof VmchannelError ? memory.message : 'no virtio-serial device for vmchannel'
    return leaveAlone(given, theirs.length > 0 ? ON_QEMU : why, warnings, added)
  }
  return {
    guestName: optionText(mergeOptions(list, 'name'), 'guest'),
    passThrough: undefined,
    devices: drafts.map(({ id, origin, transport, maxPorts, ports, vectors }) => {
      const planned = { id, origin, transport, maxPorts, ports, ...(vectors === undefined ? {} : { vectors }) }
      return transport === 'usernet' ? planned : { ...planned, ...iommu }
    }),
    qemuArgs: (socketPaths) => [...writeArguments(rest, drafts, taken(serial), shared, socketPaths), ...added.args],
    takenFds: drafts.flatMap((draft) => draft.ports.flatMap(inheritedFd)),
    mentionedFds: [...mentionedFds(list), ...added.fds],
    warnings,
  }
}

const ONLY_QEMU_READS =
  'is no regular file, which QEMU alone can read: its devices stay with QEMU, and memory that it sets is not shared'

/** A QEMU about which nothing is known. */
const ABLE: QemuAbility = { version: '11.1.0', obstacle: undefined }
const NOTHING: QemuOwnDevice = { args: [], fds: [], warnings: [] }
const ON_QEMU = "all ports are on QEMU's own virtio-serial-pci"

function insteadOfOurs(obstacle: VmchannelError): string {
  return (
    `${obstacle.message}: the ports of -virtioserial are on QEMU's own virtio-serial-pci, ` +
    'out of reach of "vmchannel port" and "vmchannel connect"'
  )
}

function leaveAlone(given: readonly Argument[], why: string, warnings: string[], added = NOTHING): Plan {
  const args = [...withoutOwn(given), ...added.args]
  return {
    guestName: undefined,
    passThrough: why,
    devices: [],
    qemuArgs: () => [...args],
    takenFds: [],
    mentionedFds: [...mentionedFds(given), ...added.fds],
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

function noteNames(device: SerialDevice, names: Map<string, string>): void {
  for (const port of device.ports) {
    const name = optionText(port.option, 'name')
    // Two of one name on QEMU's side are QEMU's to refuse.
    if (name !== undefined && !names.has(name)) claimName(name, describeArgument(port.argument), names)
  }
}

function draftCarried(device: SerialDevice, ids: Set<string>, names: Map<string, string>, warnings: string[]): Draft {
  const { ignored, ...spec } = device.properties ?? { maxPorts: 0, properties: {}, ignored: [] }
  const origin = describeArgument(device.argument)
  for (const key of ignored) warnings.push(`${origin}: option ${key} has no effect on a vmchannel device`)
  const ports = device.ports.flatMap(({ spec, argument }) =>
    spec ? [{ spec, argument: describeArgument(argument) }] : [],
  )
  return {
    id: device.id ?? freshId('vmchannel', ids),
    origin,
    transport: 'vfio-user',
    ...spec,
    ports: numberPorts(ports, spec.maxPorts, names),
    place: device.argument,
  }
}

function draftOwn(device: OwnDevice, own: readonly NamedPort[], names: Map<string, string>): Draft {
  const ports = numberPorts(own, device.maxPorts, names)
  return { ...device, origin: '-virtioserial', transport: 'vfio-user', ports, place: undefined }
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
  memory: MemoryPlan | undefined,
  socketPaths: readonly string[],
): string[] {
  if (socketPaths.length !== drafts.length) {
    throw new RangeError(`${drafts.length} devices, but ${socketPaths.length} sockets`)
  }
  const argumentsOf = (draft: Draft): string[] => deviceArguments(draft, socketPaths[drafts.indexOf(draft)] ?? '')
  const args: string[] = []
  for (const argument of rest) {
    const draft = drafts.find((one) => one.place === argument)
    if (draft) args.push(...argumentsOf(draft))
    else if (!removed.has(argument)) args.push(...(memory?.edits.get(argument) ?? argument.raw))
  }
  args.push(...(memory?.added ?? []))
  if (drafts.some(({ transport }) => transport === 'usernet') && defaultNetwork(rest)) args.push('-nic', 'user')
  for (const draft of drafts) if (draft.place === undefined) args.push(...argumentsOf(draft))
  return args
}

/** Only JSON can say where the socket is. */
function deviceArguments({ id, transport, properties }: Draft, path: string): string[] {
  if (transport === 'usernet') return usernetArguments(path, id)
  const socket = { type: 'unix', path }
  return ['-device', JSON.stringify({ driver: 'vfio-user-pci', id, ...properties, socket })]
}

/** Whether QEMU gives the guest a network unasked; it does not any more once it is asked for one. */
function defaultNetwork(list: readonly Argument[]): boolean {
  const names = new Set(['nodefaults', 'net', 'netdev', 'nic', 'readconfig'])
  return !list.some(({ name }) => name !== undefined && names.has(name))
}
