/**
 * Finds QEMU's own virtio-serial devices on a command line, with their ports and chardevs, and decides for each whether
 * the device of vmchannel can do its work. Where anything about it cannot be carried, all of it stays with QEMU: a
 * command line that worked goes on working. Called by plan.ts.
 */

import type { PortSpec } from '../port-spec.ts'
import { argumentOptions, describeArgument, type Argument } from './command-line.ts'
import { optionText, parseInteger, type OptionString } from './option.ts'
import { carryProperties, carryPort, type CarriedProperties, type Defaults } from './serial-options.ts'
import { isSet, stdioUsers, usesChardev } from './usage.ts'

export interface SerialPort {
  argument: Argument
  option: OptionString
  /** The -chardev of the port, taken from QEMU together with it. */
  chardev?: Argument
  spec?: PortSpec
}

export interface SerialDevice {
  argument: Argument
  option: OptionString
  id: string | undefined
  /** Name of its bus, for bus= of the ports. */
  bus: string
  /** In the order in which QEMU makes them. */
  ports: SerialPort[]
  /** Why it stays with QEMU; undefined where it can be carried. */
  reason?: string
  /** Nothing is lost when it stays: it has no ports. */
  silent?: boolean
  properties?: CarriedProperties
}

const PCI_DRIVERS = new Set([
  'virtio-serial',
  'virtio-serial-pci',
  'virtio-serial-pci-non-transitional',
  'virtio-serial-pci-transitional',
])
const OTHER_DRIVERS = new Set(['virtio-serial-device', 'virtio-serial-ccw', 'virtio-serial-s390'])
/** MSI-X vectors of QEMU's virtio-serial-pci where nothing else is said. */
const QEMU_VECTORS = 2
export const PORT_DRIVERS: ReadonlySet<string> = new Set(['virtserialport', 'virtconsole'])

interface Created {
  argument: Argument
  option: OptionString
  driver: string
}

/** All virtio-serial devices, in the order in which QEMU makes them. */
export function findSerialDevices(list: readonly Argument[], umask: number | undefined): SerialDevice[] {
  const devices: SerialDevice[] = []
  for (const created of creationOrder(list)) {
    if (PCI_DRIVERS.has(created.driver) || OTHER_DRIVERS.has(created.driver)) devices.push(newDevice(created, devices))
    else if (PORT_DRIVERS.has(created.driver)) addPort(created, devices)
    else refuseStrangers(created, devices)
  }
  for (const device of devices) {
    if (device.reason !== undefined) continue
    const reason = carry(device, list, umask)
    if (reason !== undefined) device.reason = reason
  }
  return devices
}

/** -device in the order of QEMU 11.1: first the classic ones, then those in JSON. */
function creationOrder(list: readonly Argument[]): Created[] {
  const created: Created[] = []
  for (const argument of list) {
    if (argument.name !== 'device') continue
    const option = argumentOptions(argument)
    const driver = option && optionText(option, 'driver')
    if (option && driver !== undefined) created.push({ argument, option, driver })
  }
  return [...created.filter(({ option }) => !option.json), ...created.filter(({ option }) => option.json)]
}

function newDevice({ argument, option, driver }: Created, before: readonly SerialDevice[]): SerialDevice {
  const id = optionText(option, 'id')
  const unnamed = before.filter((device) => device.id === undefined).length
  const device: SerialDevice = {
    argument,
    option,
    id,
    bus: id === undefined ? `virtio-serial-bus.${unnamed}` : `${id}.0`,
    ports: [],
  }
  if (OTHER_DRIVERS.has(driver)) device.reason = `${driver} is not a PCI device`
  else if (argument.file !== undefined) device.reason = `it comes from ${argument.file}`
  return device
}

function addPort({ argument, option }: Created, devices: readonly SerialDevice[]): void {
  const bus = optionText(option, 'bus')
  // QEMU looks through the newest device first. A port without any device is left for QEMU to complain about.
  const device = bus === undefined ? devices.at(-1) : devices.find((candidate) => candidate.bus === bus)
  if (!device) return
  device.ports.push({ argument, option })
  if (argument.file !== undefined) device.reason ??= `a port of it comes from ${argument.file}`
  // Which of several is the first depends on the buses above them: only QEMU knows.
  const places = new Set(devices.map((candidate) => optionText(candidate.option, 'bus')))
  if (bus === undefined && places.size > 1) {
    for (const candidate of devices) {
      candidate.reason ??= `${describeArgument(argument)} does not say bus=, and there are several devices`
    }
  }
}

function refuseStrangers({ argument, option }: Created, devices: readonly SerialDevice[]): void {
  const bus = optionText(option, 'bus')
  const device = bus === undefined ? undefined : devices.find((candidate) => candidate.bus === bus)
  if (device) device.reason ??= `${describeArgument(argument)} is on its bus`
}

/** Fills in what is carried; the reason where something cannot be. */
function carry(device: SerialDevice, list: readonly Argument[], umask: number | undefined): string | undefined {
  if (device.ports.length === 0) {
    device.silent = true
    return 'it has no ports'
  }
  if (isSet(list, 'device', device.id)) return `-set changes device ${device.id}`
  const properties = carryProperties(device.option, defaultsOf(list))
  if ('reason' in properties) return properties.reason
  device.properties = properties.spec
  const context = { umask, stdioTaken: stdioUsers(list) > 1 }
  for (const port of device.ports) {
    const id = optionText(port.option, 'id')
    if (isSet(list, 'device', id)) return `-set changes port ${id}`
    const found = findChardev(port, list)
    if ('reason' in found) return found.reason
    const spec = carryPort(port.option, found.option, context)
    if ('reason' in spec) return `${describeArgument(port.argument)}: ${spec.reason}`
    port.chardev = found.argument
    port.spec = spec.spec
  }
  return undefined
}

/** The -chardev that a port names, if it is there once and nobody else has it. */
function findChardev(
  port: SerialPort,
  list: readonly Argument[],
): { argument: Argument; option: OptionString } | { reason: string } {
  const where = describeArgument(port.argument)
  const id = optionText(port.option, 'chardev')
  if (id === undefined) return { reason: `${where} has no chardev` }
  const found = list.flatMap((argument) => {
    const option = argument.name === 'chardev' ? argumentOptions(argument) : undefined
    return option && optionText(option, 'id') === id ? [{ argument, option }] : []
  })
  const [only] = found
  if (!only || found.length > 1) return { reason: `${where}: there is not exactly one -chardev with id=${id}` }
  if (only.argument.file !== undefined) return { reason: `chardev ${id} comes from ${only.argument.file}` }
  const other = list.find((argument) => argument !== port.argument && usesChardev(argument, id))
  if (other) return { reason: `chardev ${id} is also used by ${describeArgument(other)}` }
  if (isSet(list, 'chardev', id)) return { reason: `-set changes chardev ${id}` }
  return only
}

/**
 * What QEMU's device has by itself. Its two interrupt vectors are enough for Linux, and a guest has not many: a machine
 * with one vCPU about 200 for all of its devices.
 */
function defaultsOf(list: readonly Argument[]): Defaults {
  return { maxPorts: globalNumber(list, 'max_ports'), vectors: globalNumber(list, 'vectors') ?? QEMU_VECTORS }
}

/** -global virtio-serial-pci.PROPERTY=N, in both spellings; the last one counts. */
function globalNumber(list: readonly Argument[], property: 'max_ports' | 'vectors'): number | undefined {
  let found: number | undefined
  for (const argument of list) {
    if (argument.name !== 'global') continue
    const short = /^(?:virtio-serial-pci|virtio-serial-device)\.(\w+)=(.*)$/.exec(argument.value ?? '')
    const option = argumentOptions(argument)
    let text = short?.[1] === property ? short[2] : undefined
    if (!short && option && optionText(option, 'property') === property) text = optionText(option, 'value')
    if (text !== undefined) found = parseInteger(text) ?? found
  }
  return found
}
