/**
 * The ports that our own options ask for, and the device that holds them. Called by plan.ts.
 */

import { VmchannelError } from '../errors.ts'
import { parsePortSpec } from '../port-spec.ts'
import type { Argument } from './command-line.ts'
import { optionText, parseOptionString, type JsonValue } from './option.ts'
import { neededPorts, type NamedPort } from './port-numbers.ts'
import { carryProperties } from './serial-options.ts'
import { takeTransport, type Transport } from './transport.ts'
import { freshId } from './usage.ts'

export interface OwnPort extends NamedPort {
  transport: Transport
}

export function ownPorts(given: readonly Argument[]): OwnPort[] {
  return given.flatMap((argument) => {
    if (argument.name !== 'virtioserial') return []
    if (argument.value === undefined) {
      throw new VmchannelError('ERR_VMCHANNEL_USAGE', '-virtioserial needs a port behind it', {
        hint: 'e.g. -virtioserial unix:/run/vm.sock,name=org.example.0',
      })
    }
    const { transport, rest } = takeTransport(argument.value, '-virtioserial')
    return [{ spec: parsePortSpec(rest, '-virtioserial'), argument: `-virtioserial ${argument.value}`, transport }]
  })
}

export interface OwnDevice {
  id: string
  maxPorts: number
  properties: Record<string, JsonValue>
  vectors?: number
}

/** What -virtioserial-device says about the device that holds `ports`. */
export function ownDevice(given: readonly Argument[], ports: readonly NamedPort[], ids: Set<string>): OwnDevice {
  const wish = given.findLast((argument) => argument.name === 'virtioserial-device')
  const option = parseOptionString(wish?.value ?? '')
  const carried = carryProperties(option, { maxPorts: neededPorts(ports) })
  const wrong = 'reason' in carried ? carried.reason : carried.spec.ignored.map((key) => `unknown option ${key}`)[0]
  if ('reason' in carried || wrong !== undefined) {
    throw new VmchannelError('ERR_VMCHANNEL_USAGE', `-virtioserial-device ${wish?.value ?? ''}: ${wrong}`, {
      hint: 'it takes id, bus, addr, multifunction, acpi-index, max_ports and vectors',
    })
  }
  const { ignored: _, ...spec } = carried.spec
  return { id: optionText(option, 'id') ?? freshId('vmchannel', ids), ...spec }
}
