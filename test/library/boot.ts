/** A stock guest on a device of the library. */
import { ensureKernel, type KernelSeries } from '../../lab/fetch/kernel.ts'
import { ensureQemu } from '../../lab/fetch/qemu.ts'
import { Machine } from '../../lab/machine.ts'
import type { Device } from '../../src/index.ts'

export async function boot(
  device: Pick<Device, 'qemuArgs' | 'memoryArgs'>,
  kernel: KernelSeries = '6.1',
  args: readonly string[] = device.memoryArgs('256M'),
): Promise<Machine> {
  const [qemu, image] = [await ensureQemu(), await ensureKernel(kernel)]
  return Machine.boot({ qemu: qemu.path, kernel: image, args: [...args, ...device.qemuArgs] })
}
