/**
 * One shell script that carries the files into a guest which has no vmchannel: `vmchannel udev print | ssh guest sh`.
 * It needs nothing but a POSIX shell and the usual small commands, and may run again and again.
 */

import { dirname } from 'node:path'
import { HELPER_PATH, HELPER_SCRIPT } from './helper.ts'
import { MDEV_CONF_PATH, mdevLine, RULES_PATH, udevRules, type Access } from './rules.ts'

const END = 'END_OF_VMCHANNEL_FILE'

/** Shell text that writes a file below $root; also for the lock agent's installer. */
export function heredoc(path: string, text: string, mode: string): string {
  const file = `"$root${path}"`
  return `mkdir -p "$root${dirname(path)}"
cat >"$root${path}.new" <<'${END}'
${text}${END}
chmod ${mode} "$root${path}.new"
mv "$root${path}.new" ${file}`
}

/** The script for udev or for mdev; `sh -s -- --root DIR` installs into a tree that does not run. */
export function installerScript(mdev: boolean, access: Access = {}): string {
  const what = mdev ? 'mdev' : 'udev'
  return `#!/bin/sh
# Names /dev/vmch0, /dev/vmch1, ... for virtio-serial ports in this guest, by ${what}. Made by "vmchannel udev print".
# Run it as root in the guest, or with "--root DIR" on the tree of a guest.
set -e
root=''
[ "$1" != --root ] || root=$2
${heredoc(HELPER_PATH, HELPER_SCRIPT, '755')}
${mdev ? mdevPart(access) : udevPart(access)}
`
}

function udevPart(access: Access): string {
  return `${heredoc(RULES_PATH, udevRules(access), '644')}
if [ -z "$root" ] && command -v udevadm >/dev/null && [ -e /run/udev/control ]; then
  udevadm control --reload
  udevadm trigger --action=change --subsystem-match=virtio-ports
  udevadm settle --timeout=10 || true
fi`
}

function mdevPart(access: Access): string {
  const conf = `"$root${MDEV_CONF_PATH}"`
  return `mkdir -p "$root/etc"
{
  echo '${mdevLine(access)}'
  [ ! -e ${conf} ] || grep -v ' ${HELPER_PATH}$' ${conf} || true
} >"$root${MDEV_CONF_PATH}.new"
mv "$root${MDEV_CONF_PATH}.new" ${conf}
[ -n "$root" ] || /bin/sh ${HELPER_PATH} scan
# Later ports are named by "mdev -d" (a daemon) or by mdev as the kernel's hotplug helper.`
}
