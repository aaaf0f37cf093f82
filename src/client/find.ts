/**
 * Finds the device processes of this user, and among them the one with a certain VM. Used by the library's `connect` and
 * by every command that talks to a running VM.
 */

import { join } from 'node:path'
import { CONTROL_SOCKET, type VmInfo } from '../daemon/protocol.ts'
import { listDirs, stateRoot } from '../daemon/state-dir.ts'
import { VmchannelError } from '../errors.ts'
import { ControlClient } from './control-client.ts'

const ANSWER_MS = 3000

export interface FoundDevice {
  pid: number
  version: string
  stateDir: string
  controlSocket: string
  vms: VmInfo[]
}

/** Device processes that answer, by process id. Leftovers of dead ones are passed over. */
export async function listDevices(signal?: AbortSignal): Promise<FoundDevice[]> {
  const sockets = listDirs(stateRoot()).map((dir) => join(dir, CONTROL_SOCKET))
  const found = await Promise.all(sockets.map((path) => ask(path, signal)))
  signal?.throwIfAborted()
  return found.filter((device) => device !== undefined).toSorted((a, b) => a.pid - b.pid)
}

async function ask(controlSocket: string, signal: AbortSignal | undefined): Promise<FoundDevice | undefined> {
  const options = { timeout: ANSWER_MS, signal }
  try {
    const client = await ControlClient.connect(controlSocket, options)
    try {
      const { pid, version, stateDir } = client.hello
      return { pid, version, stateDir, controlSocket, vms: await client.request('vm.list', {}, options) }
    } finally {
      client.close()
    }
  } catch {
    return undefined
  }
}

export interface Wanted {
  /** Path of a control socket; then nothing is searched. */
  control?: string | undefined
  vm?: string | undefined
  signal?: AbortSignal | undefined
}

/** The control socket and the name of one VM: the one that is named, or the only one that there is. */
export async function findVm({ control, vm, signal }: Wanted = {}): Promise<{ controlSocket: string; vm: string }> {
  const devices = control === undefined ? await listDevices(signal) : [await one(control, signal)]
  const all = devices.flatMap(({ controlSocket, pid, vms }) => vms.map((info) => ({ controlSocket, pid, vm: info.vm })))
  const fitting = all.filter((entry) => vm === undefined || entry.vm === vm)
  const [first] = fitting
  if (first && fitting.length === 1) return { controlSocket: first.controlSocket, vm: first.vm }
  const list = (entries: typeof all): string =>
    entries.map((entry) => `${entry.vm} (process ${entry.pid}, ${entry.controlSocket})`).join(', ')
  if (first)
    throw new VmchannelError(
      'ERR_VMCHANNEL_USAGE',
      `${fitting.length} VMs ${vm === undefined ? 'are running' : `are called "${vm}"`}: which one?`,
      {
        hint: `name its VM or its control socket: ${list(fitting)}`,
      },
    )
  if (all.length > 0)
    throw new VmchannelError('ERR_VMCHANNEL_NOT_FOUND', `no VM is called "${vm}"`, { hint: `there is: ${list(all)}` })
  throw new VmchannelError(
    'ERR_VMCHANNEL_NOT_FOUND',
    devices.length > 0 ? 'the device process has no VM' : 'no device process of this user is running',
    { hint: 'start one with "vmchannel qemu …" or "vmchannel serve", or name its control socket' },
  )
}

async function one(control: string, signal: AbortSignal | undefined): Promise<FoundDevice> {
  const client = await ControlClient.connect(control, { signal, timeout: ANSWER_MS })
  try {
    const { pid, version, stateDir } = client.hello
    const vms = await client.request('vm.list', {}, { signal, timeout: ANSWER_MS })
    return { pid, version, stateDir, controlSocket: control, vms }
  } finally {
    client.close()
  }
}
