/** `openDevice` and `connect`: devices that somebody else started, with `vmchannel qemu` or in another program. */

import type { WaitOptions } from '../client/abort.ts'
import { ControlClient } from '../client/control-client.ts'
import { findVm } from '../client/find.ts'
import type { PortRef } from '../daemon/protocol.ts'
import { VmchannelError } from '../errors.ts'
import { Device } from './device.ts'
import type { PortStream } from './port-stream.ts'

export interface OpenOptions extends WaitOptions {
  /** Path of the control socket; by default the device processes of this user are searched. */
  control?: string
  /** Name of the VM; may be left out where there is only one. */
  vm?: string
}

export interface ConnectOptions extends OpenOptions {
  /** Name or number of the port; it has to be one for streams (`attach`). */
  port: PortRef
  highWaterMark?: number
}

/** A running device. Closing it lets go of it; the device goes on. */
export async function openDevice(options: OpenOptions = {}): Promise<Device> {
  const found = await findVm(options)
  const client = await ControlClient.connect(found.controlSocket, options)
  try {
    const info = (await client.request('vm.list', {}, options)).find(({ vm }) => vm === found.vm)
    if (!info) throw new VmchannelError('ERR_VMCHANNEL_NOT_FOUND', `VM ${found.vm} was removed meanwhile`)
    return await Device.open(client, info, undefined, options)
  } catch (error) {
    client.close()
    throw error
  }
}

/** Becomes the host's end of a port of a running device. The connection ends with the stream. */
export async function connect(options: ConnectOptions): Promise<PortStream> {
  const device = await openDevice(options)
  try {
    const stream = await device.attach(options.port, options)
    device.unref() // the stream alone decides how long the program runs
    stream.once('close', () => void device.close())
    return stream
  } catch (error) {
    await device.close()
    throw error
  }
}
