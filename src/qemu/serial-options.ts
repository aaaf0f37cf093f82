/**
 * The options of QEMU's virtio-serial-pci, virtserialport and virtconsole: which the device of vmchannel follows, which
 * go on to vfio-user-pci, which do not matter, and which it cannot have. Called by serial.ts.
 */

import { VmchannelError } from '../errors.ts'
import { checkPortSpec, type PortSpec } from '../port-spec.ts'
import { convertChardev, type ChardevContext, type Converted } from './chardev.ts'
import {
  hasOption,
  optionBoolean,
  optionText,
  optionValue,
  parseBoolean,
  parseInteger,
  type JsonValue,
  type OptionString,
} from './option.ts'
import { DEFAULT_MAX_PORTS, MAX_PORTS } from './port-numbers.ts'

export interface CarriedProperties {
  maxPorts: number
  /** For vfio-user-pci, with the types that its JSON form wants. */
  properties: Record<string, JsonValue>
  /** Entries of the MSI-X table; 0: none, and QEMU can unplug such a device. Left out: as many as our device has. */
  vectors?: number
  /** Options that nobody follows. */
  ignored: string[]
}

/** What vfio-user-pci has as well: where the device sits, and its option ROM. */
const PASSED: Readonly<Record<string, 'text' | 'number' | 'boolean'>> = {
  bus: 'text',
  addr: 'text',
  multifunction: 'boolean',
  'acpi-index': 'number',
  busnr: 'number',
  romfile: 'text',
  rombar: 'number',
  romsize: 'number',
}

/**
 * How QEMU's device does its work; ours does it its own way, and no guest depends on it. (Ours is behind an IOMMU where
 * there is one, and says so.)
 */
const IMMATERIAL = new Set(
  (
    'ioeventfd event_idx indirect_desc any_layout notify_on_empty queue_reset disable-legacy page-per-vq ' +
    'modern-pio-notify use-disabled-flag use-started class iommu_platform'
  ).split(' '),
)

/** Things that a guest or an operator counts on, and that ours has not. The value that turns them on. */
const MISSING: Readonly<Record<string, string>> = {
  'disable-modern': 'a device of the old interface alone',
  ats: 'address translation services',
  aer: 'advanced error reporting',
  packed: 'packed rings',
  in_order: 'the in-order feature',
}

/** Values of options that are not there. */
export interface Defaults {
  maxPorts?: number | undefined
  vectors?: number | undefined
}

/** The least that a function with MSI-X has (§4.1.4.3), and the most. */
const VECTORS_MIN = 2
const VECTORS_MAX = 2048
/** QEMU's way to say: as many as there are ports, and one. */
const VECTORS_UNSPECIFIED = 0xffffffff

/** Takes the options of a virtio-serial-pci apart. */
export function carryProperties(option: OptionString, defaults: Defaults): Converted<CarriedProperties> {
  const properties: Record<string, JsonValue> = {}
  const ignored: string[] = []
  let maxPorts = defaults.maxPorts ?? DEFAULT_MAX_PORTS
  let { vectors } = defaults
  for (const { key } of option.entries) {
    const passed = PASSED[key]
    if (key === 'driver' || key === 'id' || IMMATERIAL.has(key) || key.startsWith('x-')) continue
    if (key === 'max_ports') {
      const number = parseInteger(optionText(option, key) ?? '')
      if (number === undefined) return { reason: 'max_ports is not a number' }
      maxPorts = number
    } else if (key === 'vectors') {
      const text = optionText(option, key) ?? ''
      vectors = text === '-1' ? VECTORS_UNSPECIFIED : parseInteger(text)
      if (vectors === undefined) return { reason: 'vectors is not a number' }
    } else if (passed) {
      const value = typed(option, key, passed)
      if (value === undefined) return { reason: `${key} is not a ${passed}` }
      properties[key] = value
    } else if (MISSING[key] !== undefined) {
      if (optionBoolean(option, key, false) !== false) return { reason: `${key} asks for ${MISSING[key]}` }
    } else if (key === 'failover_pair_id' || key === 'sriov-pf') {
      return { reason: `${key} is not supported` }
    } else {
      ignored.push(key)
    }
  }
  // QEMU says it better than we could.
  if (maxPorts < 1 || maxPorts > MAX_PORTS) return { reason: `max_ports=${maxPorts} is out of range` }
  if (vectors === undefined) return { spec: { maxPorts, properties, ignored } }
  if (vectors === VECTORS_UNSPECIFIED) vectors = maxPorts + 1
  if (vectors > VECTORS_MAX) return { reason: `vectors=${vectors} is out of range` }
  return { spec: { maxPorts, properties, vectors: vectors === 1 ? VECTORS_MIN : vectors, ignored } }
}

/** A value of the type that the JSON form wants; the classic form has only text. */
function typed(option: OptionString, key: string, type: 'text' | 'number' | 'boolean'): JsonValue | undefined {
  if (option.json) return optionValue(option, key)
  const text = optionText(option, key) ?? ''
  if (type === 'boolean') return parseBoolean(text)
  if (type === 'number') return text === '-1' ? -1 : parseInteger(text)
  return text
}

const PORT_KEYS = new Set(['driver', 'id', 'bus', 'nr', 'name', 'chardev'])

/** A virtserialport or virtconsole with its -chardev as a port of ours. */
export function carryPort(port: OptionString, chardev: OptionString, context: ChardevContext): Converted<PortSpec> {
  const foreign = port.entries.find((entry) => !PORT_KEYS.has(entry.key))
  if (foreign) return { reason: `option ${foreign.key} is not known here` }
  const converted = convertChardev(chardev, context)
  if ('reason' in converted) return converted
  const spec: Record<string, unknown> = { chardev: converted.spec }
  const name = optionText(port, 'name')
  if (name !== undefined && name !== '') spec['name'] = name
  if (hasOption(port, 'nr')) {
    const nr = parseInteger(optionText(port, 'nr') ?? '')
    if (nr === undefined) return { reason: 'nr is not a number' }
    // 2^32-1 is QEMU's way to say that there is none.
    if (nr !== 0xffffffff) spec['id'] = nr
  }
  if (optionText(port, 'driver') === 'virtconsole') spec['console'] = true
  try {
    return { spec: checkPortSpec(spec, 'port') }
  } catch (error) {
    if (error instanceof VmchannelError) return { reason: error.message }
    throw error
  }
}
