/** `createDevice`: starts a device process that lives as long as this program, with one VM in it. */

import { ControlClient } from '../client/control-client.ts'
import { startDevice, type StartedDevice } from '../client/start.ts'
import type { DaemonConfig } from '../daemon/protocol.ts'
import { Device } from './device.ts'
import { forwardLog } from './forward-log.ts'
import type { DeviceOptions } from './options.ts'

/**
 * Starts a device. Give its `qemuArgs` and `memoryArgs` to QEMU 10.1 or newer, and add ports at any time.
 *
 *     const device = await createDevice()
 *     const port = await device.addPort({ name: 'org.example.0' })
 *     spawn('qemu-system-x86_64', [...device.memoryArgs('1G'), ...device.qemuArgs, …])
 *     for await (const chunk of port) port.write(chunk)
 */
export async function createDevice(options: DeviceOptions = {}): Promise<Device> {
  const { log = 'inherit', logLevel = 'warn', stateDir, signal, timeout, keeper = false, ...vm } = options
  const config: DaemonConfig = {
    vms: [{ ...vm, ports: [] }],
    exitWith: 'parent',
    logLevel,
    logFormat: typeof log === 'object' ? 'json' : 'text',
    ...(stateDir === undefined ? {} : { stateDir }),
  }
  const started = await startDevice(config, {
    stderr: typeof log === 'object' ? 'pipe' : log,
    detached: true, // Ctrl-C is this program's business first
    keeper,
    ...(signal ? { signal } : {}),
    ...(timeout === undefined ? {} : { timeoutMs: timeout }),
  })
  if (typeof log === 'object') forwardLog(started.stderr!, log)
  try {
    return await openStarted(started, { signal, timeout })
  } catch (error) {
    started.process.kill('SIGTERM')
    throw error
  }
}

async function openStarted(
  started: StartedDevice,
  options: Pick<DeviceOptions, 'signal' | 'timeout'>,
): Promise<Device> {
  const client = await ControlClient.connect(started.controlSocket, options)
  return Device.open(client, started.vms[0]!, started, options)
}
