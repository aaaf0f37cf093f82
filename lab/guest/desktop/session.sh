#!/bin/sh
# The desktop of the lab's guest, in a login session on seat0: X server, window manager, locker, clipboard agent.
export DISPLAY=:0
Xvfb :0 -screen 0 1024x768x24 -nolisten tcp -extension GLX &
server=$!
until [ -S /tmp/.X11-unix/X0 ]; do
  kill -0 "$server" || exit 1
  sleep 0.1
done
evilwm &
# Takes logind's word for locking and unlocking, and tells logind when the screen is locked (LockedHint).
xss-lock -- i3lock --nofork --color=203040 &
while :; do
  spice-vdagent -x
  sleep 1
done &
touch "$XDG_RUNTIME_DIR/desktop-up"
wait "$server"
