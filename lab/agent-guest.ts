/**
 * The lab's small guest with Debian's qemu-guest-agent in it: the program and its libraries, no systemd. For tests of the
 * agent's client that need no desktop; its loginctl is a stand-in. /tmp/agent-options, where it is there, has options of qemu-ga for its next start.
 */
import { readFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { command } from './command.ts'
import { VIRTIO_MODULES } from './fetch/kernel.ts'
import { ensurePackages, type FetchOptions } from './fetch/packages.ts'
import type { GuestOptions } from './initramfs.ts'
import { guestSource } from './paths.ts'

const LIBRARIES = 'usr/lib/x86_64-linux-gnu'
const LOADER = 'ld-linux-x86-64.so.2'

/** Waits for the port by its name, and is the agent on it from then on. */
const START_GUEST_AGENT = 'start-guest-agent'

const START = `#!/bin/sh
until grep -lx org.qemu.guest_agent.0 /sys/class/virtio-ports/*/name >/tmp/agent-port 2>/dev/null; do sleep 0.1; done
node=/dev/$(basename $(dirname $(cat /tmp/agent-port)))
exec qemu-ga -m virtio-serial -p $node -t /tmp "$@"
`

/** A file system to freeze at /mnt, and an agent that comes by itself, again after each end. */
const INIT = `mkdir -p /var/run /etc /mnt
truncate -s 16M /tmp/disk
losetup /dev/loop0 /tmp/disk && mke2fs /dev/loop0 >/dev/null && mount -t ext4 /dev/loop0 /mnt
(while :; do ${START_GUEST_AGENT} $(cat /tmp/agent-options 2>/dev/null); sleep 0.2; done) >/tmp/guest-agent.log 2>&1 &
`

export interface AgentGuestOptions extends FetchOptions {
  /** More files, as in GuestOptions. */
  files?: GuestOptions['files']
}

export async function agentGuest(options: AgentGuestOptions = {}): Promise<GuestOptions> {
  const tree = await ensurePackages(
    {
      name: 'guest-agent',
      suite: 'trixie',
      install: ['qemu-guest-agent'],
      keep: /^(qemu-guest-agent|zlib1g|gcc-14-base|lib\S+)=/,
    },
    options,
  )
  const program = join(tree, 'usr/sbin/qemu-ga')
  const loader = join(tree, LIBRARIES, LOADER)
  const list = await command(loader, ['--library-path', join(tree, LIBRARIES), '--list', program])
  const files: Record<string, string | { text: string; mode?: number }> = {
    [`/lib64/${LOADER}`]: loader,
    '/bin/qemu-ga': program,
    [`/bin/${START_GUEST_AGENT}`]: { text: START, mode: 0o755 },
    '/bin/loginctl': { text: await readFile(guestSource('loginctl.sh'), 'utf8'), mode: 0o755 },
    '/etc/passwd': { text: 'root:x:0:0::/root:/bin/sh\n' },
    '/etc/os-release': { text: 'ID=vmchannel-lab\nNAME="vmchannel lab"\nPRETTY_NAME="vmchannel lab guest"\n' },
    ...options.files,
  }
  for (const [, path] of list.toString().matchAll(/=> (\/\S+)/g)) files[`/${LIBRARIES}/${basename(path!)}`] = path!
  return { modules: [...VIRTIO_MODULES, 'loop'], files, init: INIT }
}
