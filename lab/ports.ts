/** Finds the ports of virtio-serial devices in a guest: sysfs has their names, a moment after the nodes. */
import { VmchannelError } from '../src/errors.ts'
import type { Machine } from './machine.ts'

/** The character device of a named port, e.g. /dev/vport0p1; waits for the guest to find it. */
export async function portNode(machine: Machine, name: string, ms = 5000): Promise<string> {
  const deadline = Date.now() + ms
  for (;;) {
    const { status, output } = await machine.run(`cd /sys/class/virtio-ports && grep -lx -- '${name}' */name`)
    if (status === 0) return `/dev/${output.split('/')[0]}`
    if (Date.now() > deadline)
      throw new VmchannelError('ERR_VMCHANNEL_TIMEOUT', `the guest has no port named ${name} after ${ms} ms`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}
