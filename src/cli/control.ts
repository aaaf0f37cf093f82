/** How commands reach a device process: by --control, by --vm, or the only one that there is. */

import { ControlClient } from '../client/control-client.ts'
import { findVm, listDevices } from '../client/find.ts'
import type { PortRef } from '../daemon/protocol.ts'
import { VmchannelError } from '../errors.ts'
import { PORT_ID_MAX } from '../port-spec.ts'
import type { Call } from './table.ts'

type Options = Call['options']

interface Named {
  control: string | undefined
  vm: string | undefined
}

export function named(options: Options): Named {
  return { control: text(options['control']), vm: text(options['vm']) }
}

/** An empty variable is one that is not set. */
function text(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined
}

/** Works on the one VM that is meant, over a connection of its own. */
export async function withVm<T>(options: Options, work: (client: ControlClient, vm: string) => Promise<T>): Promise<T> {
  const { controlSocket, vm } = await findVm(named(options))
  return connected(controlSocket, (client) => work(client, vm))
}

/** Works on every VM that fits: all of this user where nothing is named. */
export async function withEveryVm<T>(
  options: Options,
  work: (client: ControlClient, vm: string) => Promise<T[]>,
): Promise<T[]> {
  const { control, vm } = named(options)
  if (control !== undefined || vm !== undefined) return withVm(options, work)
  const devices = await listDevices()
  if (devices.length === 0)
    throw new VmchannelError('ERR_VMCHANNEL_NOT_FOUND', 'no device process of this user is running', {
      hint: 'start one with "vmchannel qemu ..." or "vmchannel serve", or name its control socket with --control',
    })
  const results: T[] = []
  for (const { controlSocket, vms } of devices)
    await connected(controlSocket, async (client) => {
      for (const info of vms) results.push(...(await work(client, info.vm)))
    })
  return results
}

async function connected<T>(path: string, work: (client: ControlClient) => Promise<T>): Promise<T> {
  const client = await ControlClient.connect(path)
  try {
    return await work(client)
  } finally {
    client.close()
  }
}

/** A port as it is named on the command line: digits alone are a number. */
export function portRef(word: string): PortRef {
  if (!/^\d+$/.test(word)) return word
  const id = Number(word)
  if (id <= PORT_ID_MAX) return id
  throw new VmchannelError('ERR_VMCHANNEL_USAGE', `PORT: ${word} is no port number`, {
    hint: `port numbers go from 0 to ${PORT_ID_MAX}; "vmchannel port list" shows those that there are`,
  })
}
