/** `vmchannel port stats`: a table of all ports, or all counters of one; again and again with --watch. */

import type { ControlClient } from '../client/control-client.ts'
import type { PortStats } from '../daemon/protocol.ts'
import { portRef, withEveryVm, withVm } from './control.ts'
import { placeOf } from './port.ts'
import { clearScreen, humanBytes, paint, print, printJson, say } from './print.ts'
import { columns } from './text.ts'
import type { Call, Run } from './table.ts'

const INTERVAL_MS = 1000

/** What was before, and how many milliseconds ago (while it is kept: when). */
interface Before {
  ports: readonly PortStats[]
  time: number
}

export const portStats: Run = async (call) => {
  if (!call.options['watch']) {
    show(call, await ask(call), undefined)
    return
  }
  let before: Before | undefined
  for (;;) {
    const now = await ask(call)
    const time = performance.now()
    if (process.stdout.isTTY && !call.options['json']) clearScreen()
    show(call, now, before && { ports: before.ports, time: time - before.time })
    before = { ports: now, time }
    await new Promise((resolve) => setTimeout(resolve, INTERVAL_MS))
  }
}

function ask({ args, options }: Call): Promise<PortStats[]> {
  if (args[0] === undefined) return withEveryVm(options, (client, vm) => client.request('port.stats', { vm }))
  const port = portRef(args[0])
  return withVm(options, (client: ControlClient, vm) => client.request('port.stats', { vm, port }))
}

function show({ args, options }: Call, ports: readonly PortStats[], before: Before | undefined): void {
  const [first] = ports
  if (options['json']) printJson(ports)
  else if (!first) say('There are no ports.')
  else if (args[0] !== undefined) print(details(first))
  else print(table(ports, before))
}

function table(ports: readonly PortStats[], before: Before | undefined): string {
  const names = ['VM', 'PORT', 'NAME', 'TO HOST', 'TO GUEST', 'DROPPED', 'HELD', 'STALLS']
  if (before) names.push('TO HOST/S', 'TO GUEST/S')
  const rows = ports.map((port) => {
    const { counters } = port
    const dropped = counters.guestToHostDropped + counters.hostToGuestDropped
    const row = [
      port.vm,
      String(port.port),
      port.name ?? '-',
      humanBytes(counters.guestToHostBytes),
      humanBytes(counters.hostToGuestBytes),
      dropped > 0 ? paint('yellow', humanBytes(dropped)) : humanBytes(dropped),
      humanBytes(counters.held),
      String(counters.transmitStalls + counters.receiveStalls),
    ]
    const old = before?.ports.find(({ vm, port: id }) => vm === port.vm && id === port.port)
    for (const key of before ? (['guestToHostBytes', 'hostToGuestBytes'] as const) : [])
      row.push(old ? humanBytes(perSecond(counters[key] - old.counters[key], before!.time)) : '-')
    return row
  })
  return columns([names.map((name) => paint('bold', name)), ...rows], [1, 3, 4, 5, 6, 7, 8, 9])
}

/** A port that was removed and added again starts from zero. */
function perSecond(bytes: number, milliseconds: number): number {
  return Math.max(0, Math.round((bytes * 1000) / milliseconds))
}

const BYTES = /Bytes$|Dropped$|Repeated$|^held$/

function details(port: PortStats): string {
  const rows = [
    ['vm', port.vm],
    ['port', String(port.port)],
    ['name', port.name ?? '-'],
    ['leads to', placeOf(port)],
    ['policy', port.policy],
    ['restarts', String(port.restarts)],
    ...Object.entries(port.counters).map(([key, value]) => [
      key,
      BYTES.test(key) && value >= 1024 ? `${value} (${humanBytes(value)})` : String(value),
    ]),
  ]
  return columns(rows)
}
