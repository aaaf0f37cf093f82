/** `vmchannel port list|add|remove|resize`. */

import { resolve } from 'node:path'
import type { PortInfo } from '../daemon/protocol.ts'
import { VmchannelError } from '../errors.ts'
import { formatPortSpec, parsePortSpec, type PortSpec } from '../port-spec.ts'
import { portRef, withEveryVm, withVm } from './control.ts'
import { paint, print, printJson, say } from './print.ts'
import { columns } from './text.ts'
import type { Run } from './table.ts'

export const listPorts: Run = async ({ options }) => {
  const ports = await withEveryVm(options, (client, vm) => client.request('port.list', { vm }))
  if (options['json']) printJson(ports)
  else if (ports.length === 0) say('There are no ports.')
  else print(portTable(ports))
}

export const addPort: Run = async ({ args, options }) => {
  // Checked here as well: the message names the argument, and nobody is asked for nothing.
  const spec = formatPortSpec(absolute(parsePortSpec(args[0]!, 'SPEC')))
  const port = await withVm(options, (client, vm) => client.request('port.add', { vm, spec }))
  const named = port.name === null ? '' : ` (${port.name})`
  if (options['json']) printJson(port)
  else say(`Port ${port.port}${named} of ${port.vm} leads to ${placeOf(port)}.`)
}

export const removePort: Run = async ({ args, options }) => {
  const port = portRef(args[0]!)
  const vm = await withVm(options, async (client, vm) => {
    await client.request('port.remove', { vm, port })
    return vm
  })
  if (options['json']) printJson({ vm, port, removed: true })
  else say(`Port ${port} of ${vm} is removed.`)
}

export const resizePort: Run = async ({ args, options }) => {
  const port = portRef(args[0]!)
  const match = /^(\d{1,5})x(\d{1,5})$/.exec(args[1]!)
  const [cols, rows] = [Number(match?.[1] ?? 0), Number(match?.[2] ?? 0)]
  if (cols < 1 || rows < 1 || cols > 65535 || rows > 65535)
    throw new VmchannelError('ERR_VMCHANNEL_USAGE', `COLSxROWS: "${args[1]}" is no size of a terminal`, {
      hint: 'write columns, an x, and rows, each from 1 to 65535, e.g. 80x24',
    })
  await withVm(options, (client, vm) => client.request('port.resize', { vm, port, cols, rows }))
  if (options['json']) printJson({ port, cols, rows })
}

function portTable(ports: readonly PortInfo[]): string {
  const head = ['VM', 'PORT', 'NAME', 'KIND', 'GUEST', 'HOST', 'LEADS TO'].map((word) => paint('bold', word))
  const rows = ports.map((port) => [
    port.vm,
    String(port.port),
    port.name ?? '-',
    port.console ? 'console' : 'generic',
    port.guestOpen ? 'open' : port.guestReady ? 'closed' : 'absent',
    port.hostConnected ? 'connected' : 'waiting',
    placeOf(port),
  ])
  return columns([head, ...rows], [1])
}

export function placeOf({ chardev, place }: PortInfo): string {
  return place === null ? chardev : `${chardev} (${place})`
}

/** A relative path is one of this directory, not of the one that the device process was started in. */
function absolute(spec: PortSpec): PortSpec {
  const chardev = { ...spec.chardev }
  if ('path' in chardev && chardev.path !== undefined) chardev.path = resolve(chardev.path)
  if ('inputPath' in chardev && chardev.inputPath !== undefined) chardev.inputPath = resolve(chardev.inputPath)
  return { ...spec, chardev }
}
