/** What the rigs without a guest wait for. */
import { rm } from 'node:fs/promises'
import type { StartedDevice } from '../src/client/start.ts'

export async function until(condition: () => boolean, ms = 30_000): Promise<void> {
  for (const end = performance.now() + ms; !condition();) {
    if (performance.now() > end) throw new Error('the device does not answer')
    await new Promise((resolve) => setTimeout(resolve, 1))
  }
}

/** Ends a device process that ends with us, and removes its folder. */
export async function stopDevice(device: StartedDevice, folder: string): Promise<void> {
  const ended = new Promise((resolve) => device.process.once('exit', resolve))
  device.stdin.end()
  if (device.process.exitCode === null) await ended
  await rm(folder, { recursive: true, force: true })
}
