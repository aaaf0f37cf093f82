/**
 * Guest memory that the device's process can map: the device reads and writes the rings in it directly, so all RAM must
 * come from shared memory backends. Adds one where the command line has none, turns share on where it says nothing, and
 * refuses what says share=off. Called by plan.ts; a refusal with no port of ours leaves the devices with QEMU.
 */

import { VmchannelError } from '../errors.ts'
import { argumentOptions, describeArgument, impliedKey, type Argument } from './command-line.ts'
import {
  formatOptionString,
  hasOption,
  optionBoolean,
  optionText,
  parseInteger,
  parseSize,
  withOption,
  type OptionString,
} from './option.ts'
import { freshId } from './usage.ts'

export type FileKind = 'directory' | 'file' | 'other' | 'missing'

export interface MemoryPlan {
  /** Arguments that become others; an empty list takes one away. */
  edits: Map<Argument, string[]>
  added: string[]
  warnings: string[]
}

interface Backend {
  argument: Argument
  option: OptionString
  type: string
}

/** QEMU's -m where nothing is said, on every x86 machine. */
const DEFAULT_RAM = 128 * 1024 * 1024
/** QEMU rounds RAM up to this. */
const RAM_UNIT = 8192

/** Devices whose memdev is RAM of the guest, where the guest's drivers may put their buffers. */
const DIMM = /^(pc-dimm|virtio-mem(-pci)?)$/

/** Plans shared memory. `fileKind` says what a path is, to spare files whose content QEMU would not have changed. */
export function planMemory(
  list: readonly Argument[],
  ids: Set<string>,
  fileKind: (path: string) => FileKind,
): MemoryPlan {
  const plan: MemoryPlan = { edits: new Map(), added: [], warnings: [] }
  const machine = mergeOptions(list, 'machine')
  refuseEncrypted(list, machine)
  const backends = findBackends(list)
  const main = optionText(machine, 'memory-backend')
  const nodes = valuesOf(list, 'numa', 'memdev')
  for (const { id, user } of [...mainUser(list, main), ...nodes, ...dimms(list)]) {
    const backend = backends.get(id)
    // Without such an object QEMU ends with its own message.
    if (backend) shareBackend(backend, user, plan, fileKind)
  }
  if (main === undefined && nodes.length === 0) addBackend(list, machine, ids, plan, fileKind)
  const slots = parseInteger(optionText(mergeOptions(list, 'm'), 'slots') ?? '0') ?? 0
  if (slots > 0) {
    plan.warnings.push('-m slots=: memory that is plugged in later (object-add over QMP) must have share=on')
  }
  return plan
}

/** All arguments of a name as one: they merge in QEMU, the last value of a key counts. */
export function mergeOptions(list: readonly Argument[], name: string): OptionString {
  const entries = list.flatMap((argument) => (argument.name === name ? (argumentOptions(argument)?.entries ?? []) : []))
  return { json: false, entries }
}

function refuseEncrypted(list: readonly Argument[], machine: OptionString): void {
  for (const key of ['confidential-guest-support', 'memory-encryption']) {
    if (!hasOption(machine, key)) continue
    const argument = list.findLast((one) => one.name === 'machine' && one.value?.includes(key))
    throw new VmchannelError(
      'ERR_VMCHANNEL_MEMORY',
      `${argument ? describeArgument(argument) : '-machine'}: ${key} encrypts guest memory, no other process can read it`,
      { hint: "use QEMU's own -device virtio-serial-pci for this guest" },
    )
  }
}

function findBackends(list: readonly Argument[]): Map<string, Backend> {
  const backends = new Map<string, Backend>()
  for (const argument of list) {
    const option = argument.name === 'object' ? argumentOptions(argument) : undefined
    const id = option && optionText(option, 'id')
    // In a file the section is called [object] and the type is a key like any other.
    const type = option && (optionText(option, 'qom-type') ?? '')
    if (option && id !== undefined && type?.startsWith('memory-backend-')) {
      backends.set(id, { argument, option, type: type.slice('memory-backend-'.length) })
    }
  }
  return backends
}

interface User {
  id: string
  user: Argument
}

function valuesOf(list: readonly Argument[], name: string, key: string): User[] {
  return list.flatMap((user) => {
    const option = user.name === name ? argumentOptions(user) : undefined
    const id = option && optionText(option, key)
    return id === undefined ? [] : [{ id, user }]
  })
}

function mainUser(list: readonly Argument[], id: string | undefined): User[] {
  const last = valuesOf(list, 'machine', 'memory-backend').at(-1)
  return id === undefined || !last ? [] : [last]
}

function dimms(list: readonly Argument[]): User[] {
  return valuesOf(list, 'device', 'memdev').filter(({ user }) => {
    const option = argumentOptions(user)
    return option && DIMM.test(optionText(option, 'driver') ?? '')
  })
}

function shareBackend(backend: Backend, user: Argument, plan: MemoryPlan, fileKind: (path: string) => FileKind): void {
  const { argument, option, type } = backend
  const where = describeArgument(argument)
  const share = optionBoolean(option, 'share', false)
  if (hasOption(option, 'share')) {
    if (share === true) return
    throw new VmchannelError(
      'ERR_VMCHANNEL_MEMORY',
      `${where}: share=off keeps this memory (of ${describeArgument(user)}) from the device`,
      { hint: 'write share=on, or leave share out' },
    )
  }
  if (type === 'memfd' || type === 'shm') return // shared unless told otherwise
  if (argument.file !== undefined || (type !== 'ram' && type !== 'file')) {
    throw new VmchannelError('ERR_VMCHANNEL_MEMORY', `${where}: this memory is not shared with the device`, {
      hint: 'add share = "on" there, or use memory-backend-memfd',
    })
  }
  if (type === 'file') checkFile(optionText(option, 'mem-path'), where, fileKind)
  // A memfd has the same options as plain memory, and is sealed: nobody can shrink it under the device.
  const memory = type === 'ram' ? withOption(option, 'qom-type', 'memory-backend-memfd') : option
  const shared = withOption(memory, 'share', option.json ? true : 'on')
  plan.edits.set(argument, [argument.raw[0] ?? '-object', formatOptionString(shared, impliedKey('object'))])
}

/** QEMU keeps the content of an existing file as it is unless told share=on. We do not decide otherwise. */
function checkFile(path: string | undefined, where: string, fileKind: (path: string) => FileKind): void {
  if (path === undefined || fileKind(path) !== 'file') return
  throw new VmchannelError(
    'ERR_VMCHANNEL_MEMORY',
    `${where}: the file ${path} exists, and guest memory that the device can see would overwrite it`,
    { hint: 'use -object memory-backend-file,…,share=on if that is meant, or a directory such as /dev/shm' },
  )
}

function addBackend(
  list: readonly Argument[],
  machine: OptionString,
  ids: Set<string>,
  plan: MemoryPlan,
  fileKind: (path: string) => FileKind,
): void {
  const size = ramSize(list, machine)
  const id = freshId('vmchannel-ram', ids)
  const path = list.findLast((argument) => argument.name === 'mem-path')
  let backend: OptionString = {
    json: false,
    entries: [
      { key: 'qom-type', value: path ? 'memory-backend-file' : 'memory-backend-memfd' },
      { key: 'id', value: id },
      { key: 'size', value: String(size) },
      { key: 'share', value: 'on' },
    ],
  }
  if (path) {
    checkFile(path.value, describeArgument(path), fileKind)
    backend = withOption(backend, 'mem-path', path.value ?? '')
    // QEMU takes either -mem-path or a backend.
    for (const argument of list) if (argument.name === 'mem-path') plan.edits.set(argument, [])
  }
  plan.added.push('-object', formatOptionString(backend, impliedKey('object')), '-machine', `memory-backend=${id}`)
}

/** What -m comes to in bytes; -m goes before -machine memory.size, wherever they stand. */
function ramSize(list: readonly Argument[], machine: OptionString): number {
  const option = mergeOptions(list, 'm')
  const text = optionText(option, 'size') ?? optionText(machine, 'memory.size')
  if (text === undefined) return DEFAULT_RAM
  const size = parseSize(text, optionText(option, 'size') === undefined ? 'b' : 'm')
  if (size === undefined) {
    throw new VmchannelError('ERR_VMCHANNEL_MEMORY', `-m ${text} is not a size`, {
      hint: 'write e.g. -m 512 (MiB) or -m 2G',
    })
  }
  return size === 0 ? DEFAULT_RAM : Math.ceil(size / RAM_UNIT) * RAM_UNIT
}
