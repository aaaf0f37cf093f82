/**
 * Boots the desktop image: options for `Machine.boot`, and the wait until somebody is logged in. The image is never
 * written to: each machine has a snapshot that ends with it.
 *
 *     const machine = await Machine.boot({ qemu, kernel, ...(await desktopGuest()), launcher })
 *     await desktopUp(machine)
 *     await machine.sh(`${AS_GUEST} xclip -o -selection clipboard`)
 *
 * More arguments for QEMU: `args: [...desktop.args, ...]`. Commands run as root; the session belongs to `guest`.
 */
import { readFile } from 'node:fs/promises'
import { ensureDesktopImage } from './desktop-image.ts'
import { VIRTIO_MODULES } from './fetch/kernel.ts'
import type { FetchOptions } from './fetch/packages.ts'
import type { Machine, MachineOptions } from './machine.ts'
import { guestSource } from './paths.ts'

/** Runs a program as the user of the desktop, on its display. */
export const AS_GUEST =
  'setpriv --reuid guest --regid guest --init-groups env HOME=/home/guest DISPLAY=:0 XDG_RUNTIME_DIR=/run/user/1000'

const BOOT_MS = 400_000 // 35 s on a quiet machine

export interface DesktopGuest extends Pick<MachineOptions, 'guest' | 'memory' | 'append' | 'bootTimeout'> {
  args: readonly string[]
}

/** Any kernel of the lab will do. */
export async function desktopGuest(options: FetchOptions = {}): Promise<DesktopGuest> {
  const image = await ensureDesktopImage(options)
  return {
    guest: {
      modules: [...VIRTIO_MODULES, 'virtio_blk', 'autofs4'],
      init: await readFile(guestSource('desktop/init.sh'), 'utf8'),
    },
    memory: '768M',
    append: 'quiet systemd.show_status=false systemd.log_target=journal selinux=0 apparmor=0 audit=0',
    bootTimeout: BOOT_MS,
    args: [
      ...['-drive', `if=none,id=desktop,format=raw,snapshot=on,file=${image}`],
      ...['-device', 'virtio-blk-pci,drive=desktop'],
    ],
  }
}

/** Until the session is there, with its display, its locker and its clipboard agent started. */
export async function desktopUp(machine: Machine, timeout: number = BOOT_MS): Promise<void> {
  // systemctl takes its time in an emulated guest: it is asked now and then.
  const job = machine.spawn(
    'i=0; until [ -e /run/user/1000/desktop-up ]; do sleep 1; i=$((i + 1)); [ $((i % 30)) = 0 ] || continue; ' +
      'systemctl -q is-failed desktop.service && { journalctl -b --no-pager -n 40; exit 1; }; done; echo desktop up',
  )
  await job.waitForOutput(/desktop up/, timeout)
}
