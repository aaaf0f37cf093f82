/** A guest with Node in it, and our driver half running there; in front of any device. */
import { codeDisk, GUEST_COMMAND, nodeGuest, type CodeDisk, type NodeGuestOptions } from '../../lab/guest-image.ts'
import type { Job } from '../../lab/agent.ts'
import type { Machine } from '../../lab/machine.ts'
import { Rig, type RigOptions } from '../machine/rig.ts'

export { readBytes, until } from '../machine/rig.ts'

/** Our driver in the guest, started and ready: its first line has come. */
export async function startDriver(machine: Machine, words = ''): Promise<Job> {
  const job = machine.spawn(`exec ${GUEST_COMMAND} ${words}`)
  await job.waitForOutput(/ports at most/)
  return job
}

/** Waits for a path in the guest to appear, or to go. */
export async function guestPath(machine: Machine, path: string, there = true): Promise<void> {
  const sign = there ? '!' : ''
  const { status } = await machine.run(
    `for i in $(seq 500); do [ ${sign} -e ${path} ] || exit 0; usleep 20000; done; exit 1`,
  )
  if (status !== 0)
    throw new Error(
      `${path} ${there ? 'did not appear' : 'did not go'}: ${await machine.sh('ls -R /dev/vmch* /dev/virtio-ports 2>&1')}`,
    )
}

/** Our device over vfio-user, our driver in the guest. */
export async function startPair(
  options: RigOptions & { node?: NodeGuestOptions },
): Promise<{ rig: Rig; disk: CodeDisk }> {
  const disk = await codeDisk()
  try {
    const guest = await nodeGuest(options.node)
    const rig = await Rig.start({
      memory: '1G',
      cpus: 2,
      ...options,
      guest,
      args: [...disk.args, ...(options.args ?? [])] as string[],
    })
    return { rig, disk }
  } catch (error) {
    disk.remove()
    throw error
  }
}
