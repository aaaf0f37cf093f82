/**
 * `vmchannel serve`: starts the device process, says what to give QEMU, and stays until it is told to end. What is
 * served comes from serve-config.ts.
 */

import { join } from 'node:path'
import { startDevice, type StartedDevice, type StartOptions } from '../client/start.ts'
import type { DaemonConfig } from '../daemon/protocol.ts'
import { makePrivateDir, stateRoot } from '../daemon/state-dir.ts'
import { formatServeConfig, type ServeConfig } from '../config-file.ts'
import { VmchannelError } from '../errors.ts'
import { escapeJson } from '../escape.ts'
import { closeFd } from '../ffi/libc.ts'
import { notifyManager } from '../ffi/notify.ts'
import { makePipe } from '../ffi/pipe.ts'
import { parsePortSpec } from '../port-spec.ts'
import { planQemu } from '../qemu/plan.ts'
import { print, printJson, say, warn } from './print.ts'
import { logLevel } from './qemu-options.ts'
import { Served } from './serve-end.ts'
import { readServeConfig } from './serve-config.ts'
import { shellQuote } from './shell-quote.ts'
import type { Run } from './table.ts'

const FOREVER_MS = 2 ** 31 - 1

export const serveCommand: Run = async ({ options }) => {
  const config = readServeConfig(options)
  if (options['printConfig']) {
    print(formatServeConfig(config))
    return 0
  }
  // Before anything is made: a size that is none is the user's mistake.
  qemuArguments(config, '')
  if (config.stateDir !== undefined) process.env['VMCHANNEL_STATE_DIR'] = config.stateDir
  const stdio = config.vms.some(({ ports }) =>
    ports.some((port) => parsePortSpec(port, 'port').chardev.kind === 'stdio'),
  )
  const device = await start(config, stdio)
  const served = new Served(device, config.keeper ?? true, warn)
  const ended = served.ended()
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => served.stop())
  announce(config, device, options['json'] === true, stdio)
  const how = await ended
  if (how === undefined) return 0
  throw new VmchannelError('ERR_VMCHANNEL_CLOSED', `the device process has ended by itself (${how})`, {
    hint: 'its log is above; --log debug says more',
  })
}

async function start(config: ServeConfig, stdio: boolean): Promise<StartedDevice> {
  const root = stateRoot()
  makePrivateDir(root)
  const lifeline = makePipe()
  const daemon: DaemonConfig = {
    // A name that stays the same: scripts may know the sockets in it.
    stateDir: join(root, `serve-${config.vms[0]!.name}`),
    vms: config.vms,
    exitWith: 'never',
    logLevel: logLevel(config.log, undefined),
  }
  if (config.control !== undefined) daemon.controlSocket = config.control
  // In a session of its own: Ctrl-C is for us, and we end it in order.
  const options: StartOptions = { detached: true, lifeline: lifeline.read, keeper: config.keeper ?? true }
  if (stdio) options.terminal = { input: 0, output: 1 }
  if (config.vms.some(({ ports }) => ports.some((port) => waits(port)))) {
    options.timeoutMs = FOREVER_MS
    say('vmchannel: waiting for somebody to connect to the ports with wait=on')
  }
  try {
    // The other end is ours until we end.
    return await startDevice(daemon, options)
  } finally {
    closeFd(lifeline.read)
  }
}

function waits(port: string): boolean {
  const { chardev } = parsePortSpec(port, 'port')
  return 'wait' in chardev && (chardev.wait ?? false)
}

/** QEMU's arguments for a device at `socket`, shared memory included, as the wrapper would write them. */
function qemuArguments({ memory }: ServeConfig, socket: string): string[] {
  if (!/^\d+(\.\d+)?[kKmMgGtT]?$/.test(memory ?? ''))
    throw new VmchannelError('ERR_VMCHANNEL_USAGE', `--memory: "${memory}" is no size`, {
      hint: 'write it as for -m of QEMU: 512M, 2G',
    })
  return planQemu(['-m', memory!, '-virtioserial', 'null']).qemuArgs([socket])
}

function announce(config: ServeConfig, device: StartedDevice, json: boolean, stdio: boolean): void {
  const vms = device.vms.map(({ vm, socket, transport, qemuArgs }) => ({
    vm,
    socket,
    transport,
    // Its memory has to be shared only with a device.
    qemuArgs: transport === 'usernet' ? qemuArgs : qemuArguments(config, socket),
  }))
  const result = (text: string): void => (stdio ? text.split('\n').forEach(say) : print(`${text}\n`))
  if (json && !stdio) printJson({ pid: device.pid, control: device.controlSocket, vms })
  else if (json) say(escapeJson({ pid: device.pid, control: device.controlSocket, vms }))
  else {
    say(`Control socket: ${device.controlSocket}`)
    for (const { vm, transport, qemuArgs } of vms) {
      if (transport === 'usernet')
        say(`${vm}: start any QEMU with these arguments, and in the guest vmchannel guest --usernet:`)
      else say(`${vm}: start QEMU 10.1 or newer with these arguments (for another size change -m and size alike):`)
      result(lines(qemuArgs))
    }
  }
  const manager = process.env['NOTIFY_SOCKET']
  if (!manager) return
  try {
    notifyManager(manager, `READY=1\nSTATUS=${vms.map(({ vm, socket }) => `${vm}: ${socket}`).join(', ')}\n`)
  } catch (error) {
    warn(`NOTIFY_SOCKET: ${error instanceof Error ? error.message : String(error)}`)
  }
}

/** One option a line, to be pasted into a shell. */
function lines(args: readonly string[]): string {
  const words: string[] = []
  for (const word of args.map(shellQuote))
    if (word.startsWith('-')) words.push(word)
    else words[words.length - 1] += ` ${word}`
  return words.map((line) => `  ${line}`).join(' \\\n')
}
