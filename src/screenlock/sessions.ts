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

/** Blocks of KEY=VALUE lines, one for each session. */
export const LIST_SESSIONS = `for s in $(loginctl list-sessions --no-legend | while read -r id rest; do echo "$id"; done); do
  loginctl show-session "$s" -p Id -p Name -p Type -p Class -p LockedHint && echo
done`

/** The same once no graphical session is unlocked, or after a while; needs a function list_sessions. */
export const WAIT_UNTIL_LOCKED = `i=0
while :; do
  all=$(list_sessions)
  case "$all" in *LockedHint=no*) ;; *) break ;; esac
  i=$((i + 1))
  [ $i -lt 10 ] || break
  sleep 0.1
done
echo "$all"`

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
