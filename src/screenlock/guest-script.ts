/**
 * Our own small agent for guests without qemu-guest-agent, and its installer: a shell script that waits at a port named
 * org.vmchannel.lock.0 and can do nothing but lock. Printed by `vmchannel screenlock --guest-script`; own-port.ts talks to it.
 *
 * A request is a line, `lock N` or `check N`. The answer is, for a lock, `asked N` once the sessions have been told; any
 * number of blocks as `loginctl show-session` prints them; then the line `done N STATUS`. Where /etc/vmchannel/lock exists, that is run instead of `loginctl lock-sessions`.
 */

import { heredoc } from '../udev/installer.ts'
import { SESSION_FUNCTIONS } from './sessions.ts'

export const LOCK_PORT = 'org.vmchannel.lock.0'

const AGENT = `#!/bin/sh
# Locks the sessions of this guest when the host says so, over the port ${LOCK_PORT}. Unlocks nothing, tells nothing but
# who is logged in and locked.
hook=/etc/vmchannel/lock

find_port() {
  dev=/dev/virtio-ports/${LOCK_PORT}
  [ -c "$dev" ] && return
  for f in /sys/class/virtio-ports/*/name; do
    read -r found <"$f" && [ "$found" = ${LOCK_PORT} ] && {
      dev=\${f#/sys/class/virtio-ports/}
      dev=/dev/\${dev%/name}
      return
    }
  done 2>/dev/null
  return 1
}

${SESSION_FUNCTIONS}
lock_sessions() {
  if [ -x "$hook" ]; then "$hook"; else loginctl lock-sessions; fi
}

while :; do
  if find_port && exec 3<>"$dev"; then
    while read -r verb id <&3; do
      case $id in '' | *[!0-9]*) continue ;; esac
      case $verb in
        lock)
          said=$(lock_sessions 2>&1 3>&-) && {
            printf 'asked %s\\n' "$id" >&3
            said=$(wait_until_locked 2>&1 3>&-)
          }
          ;;
        check) said=$(list_sessions 2>&1 3>&-) ;;
        *) continue ;;
      esac
      status=$?
      printf '%s\\n\\ndone %s %s\\n' "$said" "$id" "$status" >&3
    done
    exec 3>&-
  fi
  sleep 1 # no port, or nobody at the host's end of it
done
`

const UNIT = `[Unit]
Description=Locks the sessions when the host says so

[Service]
ExecStart=/usr/local/lib/vmchannel/lock-agent
Restart=always
`

const RULE = `SUBSYSTEM=="virtio-ports", ATTR{name}=="${LOCK_PORT}", TAG+="systemd", ENV{SYSTEMD_WANTS}+="vmchannel-lock.service"
`

/** A shell script for the guest, as root; --root DIR for an image. */
export function guestScript(): string {
  return `#!/bin/sh
# Installs vmchannel's lock agent in a Linux guest: sh SCRIPT [--root DIR]
set -eu
root=
[ "\${1-}" != --root ] || root=\${2%/}
${heredoc('/usr/local/lib/vmchannel/lock-agent', AGENT, '755')}
${heredoc('/etc/systemd/system/vmchannel-lock.service', UNIT, '644')}
${heredoc('/etc/udev/rules.d/70-vmchannel-lock.rules', RULE, '644')}
[ -z "$root" ] || exit 0
if command -v systemctl >/dev/null && [ -d /run/systemd/system ]; then
  systemctl daemon-reload
  udevadm control --reload
  udevadm trigger --action=change --subsystem-match=virtio-ports
else
  echo 'no systemd here: have /usr/local/lib/vmchannel/lock-agent started at boot' >&2
fi
`
}
