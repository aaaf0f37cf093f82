/**
 * Sessions of a guest as logind tells of them, and the shell text that makes it tell. Used by both lockers.
 *
 * loginctl says that all is well where nobody listens: only LockedHint tells, which the locker of a session sets.
 */

import { printable } from '../agent/protocol.ts'

export interface LockedSession {
  id: string
  user: string
  /** x11, wayland, tty … as logind has it. */
  type: string
  locked: boolean
}

const SESSIONS_MAX = 64

/**
 * Shell functions. Two programs and no more, however many sessions there are: each start of loginctl takes a tenth of a
 * second and more where the guest is emulated. What they print: blocks of KEY=VALUE lines, one for each session.
 */
export const SESSION_FUNCTIONS = `find_sessions() {
  ids=$(loginctl list-sessions --no-legend | while read -r id rest; do echo "$id"; done)
}
show_sessions() {
  [ -z "$ids" ] || loginctl show-session $ids -p Id -p Name -p Type -p Class -p LockedHint
}
list_sessions() {
  find_sessions
  show_sessions
}
# Whether one that has a locker is not locked: text consoles and managers of users never are.
still_open() {
  echo "$all" | while IFS='=' read -r key value; do
    case $key in
      Type) type=$value ;;
      Class) class=$value ;;
      LockedHint) case $class-$type-$value in user*-x11-no | user*-wayland-no | user*-mir-no) exit 9 ;; esac ;;
    esac
  done
  [ $? = 9 ]
}
# Once all are locked, or after a while.
wait_until_locked() {
  find_sessions
  i=0
  while all=$(show_sessions) && still_open && [ $i -lt 10 ]; do
    i=$((i + 1))
    sleep 0.1
  done
  echo "$all"
}`

/** Users' sessions only, not their managers and not the greeter. */
export function parseSessions(text: string): LockedSession[] {
  const sessions: LockedSession[] = []
  for (const block of text.split(/\n\s*\n/)) {
    const found = new Map(
      [...block.matchAll(/^(\w+)=(.*)$/gm)].map(([, key, value]) => [key!, printable(value!, 64)] as const),
    )
    const id = found.get('Id')
    if (id === undefined || !/^user(-|$)/.test(found.get('Class') ?? '')) continue
    const [user, type] = [found.get('Name') ?? '', found.get('Type') ?? '']
    sessions.push({ id, user, type, locked: found.get('LockedHint') === 'yes' })
    if (sessions.length >= SESSIONS_MAX) break
  }
  return sessions
}

/** A session that a locker can lock: a text console has none. */
export function lockable({ type }: LockedSession): boolean {
  return type === 'x11' || type === 'wayland' || type === 'mir'
}
