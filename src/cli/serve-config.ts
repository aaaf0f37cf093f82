/** What `vmchannel serve` shall serve: flags over environment over file. The parser has put the first two together. */

import { readFileSync } from 'node:fs'
import { parseServeConfig, type ServeConfig, type ServedVm } from '../config-file.ts'
import { VmchannelError } from '../errors.ts'
import { formatPortSpec, parsePortSpec, PORT_ID_MAX } from '../port-spec.ts'
import { logLevel, onOff } from './qemu-options.ts'
import type { Call } from './table.ts'

const MEMORY = '512M'

export function readServeConfig(options: Call['options']): ServeConfig {
  const given = (key: string): string | undefined => (options[key] as string | undefined) || undefined
  const path = given('config')
  const config: ServeConfig = path === undefined ? { vms: [] } : parseServeConfig(readConfig(path), path)
  const stateDir = given('stateDir') ?? config.stateDir
  const control = given('control') ?? config.control
  if (stateDir !== undefined) config.stateDir = stateDir
  if (control !== undefined) config.control = control
  config.log = logLevel(given('log') ?? config.log, undefined)
  const keeper = given('keeper')
  config.keeper = keeper === undefined ? (config.keeper ?? true) : onOff(keeper, undefined)
  config.memory = given('memory') ?? config.memory ?? MEMORY
  applyVmFlags(config, options, given)
  return config
}

function readConfig(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    throw new VmchannelError(
      'ERR_VMCHANNEL_NOT_FOUND',
      `--config ${path}: ${code === 'ENOENT' ? 'no such file' : code}`,
      {
        cause,
        hint: 'name a TOML file; "vmchannel serve --print-config" writes one',
      },
    )
  }
}

/** --socket, --max-ports, --transport and --port are those of one VM. */
function applyVmFlags(config: ServeConfig, options: Call['options'], given: (key: string) => string | undefined): void {
  const name = given('vm')
  const ports = options['port'] as string[] | undefined
  const socket = given('socket')
  const maxPorts = given('maxPorts')
  const transport = given('transport')
  if (config.vms.length === 0) config.vms.push({ name: name ?? 'vm0', ports: [] })
  let vm: ServedVm | undefined
  if (name !== undefined) {
    vm = config.vms.find((one) => one.name === name)
    if (!vm)
      throw new VmchannelError('ERR_VMCHANNEL_NOT_FOUND', `--vm ${name}: the configuration has no such VM`, {
        hint: `it has: ${config.vms.map((one) => one.name).join(', ')}`,
      })
  } else if (config.vms.length === 1) vm = config.vms[0]!
  if (ports === undefined && [socket, maxPorts, transport].every((one) => one === undefined)) return
  if (!vm)
    throw new VmchannelError(
      'ERR_VMCHANNEL_USAGE',
      'the configuration has several VMs: --socket, --max-ports, --transport and --port are for which one?',
      {
        hint: `add --vm NAME; it has: ${config.vms.map((one) => one.name).join(', ')}`,
      },
    )
  if (ports) vm.ports = ports.map((port) => formatPortSpec(parsePortSpec(port, '--port')))
  if (socket !== undefined) vm.socket = socket
  if (transport === 'vfio-user' || transport === 'usernet') vm.transport = transport
  if (maxPorts === undefined) return
  const number = /^\d{1,4}$/.test(maxPorts) ? Number(maxPorts) : 0
  if (number < 1 || number > PORT_ID_MAX + 1)
    throw new VmchannelError(
      'ERR_VMCHANNEL_USAGE',
      `--max-ports: "${maxPorts}" is no number from 1 to ${PORT_ID_MAX + 1}`,
      {
        hint: 'port numbers go from 0 to one less than this; number 0 is for a console',
      },
    )
  vm.maxPorts = number
}
