#!/bin/sh
# A STAND-IN for logind's loginctl in the small guest: one session, its user's manager, and a locker that does as it is told.
# /tmp/no-locker: it does not; /tmp/nobody: no session; /tmp/type: another type than x11. /tmp/locks counts the orders,
# /tmp/looks how often it was asked.
case "$1" in
  lock-sessions)
    echo lock >>/tmp/locks
    [ -e /tmp/no-locker ] || touch /tmp/locked
    ;;
  list-sessions)
    [ -e /tmp/nobody ] || printf '1 1000 guest seat0 300 user    tty1 no -\n2 1000 guest -     310 manager -    no -\n'
    ;;
  show-session)
    echo look >>/tmp/looks
    printf 'Id=1\nName=guest\nType=%s\nClass=user\nLockedHint=' "$(cat /tmp/type 2>/dev/null || echo x11)"
    if [ -e /tmp/locked ]; then echo yes; else echo no; fi
    printf '\nId=2\nName=guest\nType=unspecified\nClass=manager\nLockedHint=no\n'
    ;;
esac
