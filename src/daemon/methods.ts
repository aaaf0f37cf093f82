/**
 * What can be asked over the control socket: one function for each method. Parameters have passed params.ts. Called by
 * control-connection.ts; `port.attach` and `subscribe`, which change the connection itself, are done there.
 */

import { isAttach, type AttachChardev } from '../chardev/attach.ts'
import { VmchannelError } from '../errors.ts'
import { checkPortSpec, type PortSpec } from '../port-spec.ts'
import type { DeviceProcess } from './device-process.ts'
import type { Method, Methods, PortInfo } from './protocol.ts'

type Result<M extends Method> = Methods[M]['result'] | Promise<Methods[M]['result']>
type Handler<M extends Method> = (device: DeviceProcess, params: Methods[M]['params'], signal: AbortSignal) => Result<M>

const NOTHING: Record<string, never> = {}

export const METHODS: { readonly [M in Exclude<Method, 'port.attach' | 'subscribe'>]: Handler<M> } = {
  hello: ({ info }) => info,
  'vm.list': ({ vms }) => vms,
  'vm.add': (device, params, signal) =>
    device.addVm(
      { ...params, ports: (params.ports ?? []).map((spec, i) => fromClient(spec, `port ${i + 1}`)) },
      signal,
    ),
  'vm.remove': (device, { vm }) => {
    device.removeVm(vm)
    return NOTHING
  },
  'port.list': (device, { vm: name }) => device.select(name).flatMap((vm) => vm.ports.map((port) => vm.portInfo(port))),
  'port.add': (device, { vm, spec }, signal) => device.vm(vm).addPort(fromClient(spec, 'port'), signal),
  'port.remove': (device, { vm, port }) => {
    device.vm(vm).removePort(port)
    return NOTHING
  },
  'port.resize': (device, { vm, port, cols, rows }) => {
    device.vm(vm).resizePort(port, cols, rows)
    return NOTHING
  },
  'port.stats': (device, { vm: name, port }) => {
    if (port === undefined) return device.select(name).flatMap((vm) => vm.ports.map((p) => vm.portStats(p)))
    const vm = device.vm(name)
    return [vm.portStats(vm.port(port))]
  },
  stop: (device) => {
    setImmediate(() => device.stop())
    return NOTHING
  },
}

/** What a client may ask for: descriptors by number are those that the process was started with, and none of its business. */
function fromClient(source: string | PortSpec, argument: string): PortSpec {
  const spec = checkPortSpec(source, argument)
  if (spec.chardev.kind === 'unix' && spec.chardev.fd !== undefined)
    throw new VmchannelError('ERR_VMCHANNEL_USAGE', `${argument}: fd is for ports that a device process starts with`, {
      hint: 'give a path',
    })
  return spec
}

/** The back end that a connection can take the place of the peer of, while there is none. */
export function attachTarget(
  device: DeviceProcess,
  { vm: name, port: ref }: Methods['port.attach']['params'],
): { chardev: AttachChardev; info: PortInfo } {
  const vm = device.vm(name)
  const port = vm.port(ref)
  const { chardev } = port
  if (!isAttach(chardev))
    throw new VmchannelError('ERR_VMCHANNEL_PORT', `port ${port.id} of VM ${vm.name} leads to ${chardev?.label}`, {
      hint: 'connect to that, or add a port with "attach"',
    })
  if (!chardev.vacate())
    throw new VmchannelError('ERR_VMCHANNEL_IN_USE', `port ${port.id} of VM ${vm.name} is attached to already`, {
      hint: chardev.want()
        ? 'who had it has left, and what he sent waits for the guest; it is dropped in some seconds: try again then'
        : 'one at a time: end the other connection first',
    })
  return { chardev, info: vm.portInfo(port) }
}
