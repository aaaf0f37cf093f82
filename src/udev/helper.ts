/**
 * The helper that numbers ports in a guest: a POSIX shell script (dash, bash and busybox ash run it), because a guest
 * has no Node. udev and mdev call it for each event of a port; rules.ts says how. It is text here and a file there.
 *
 * What it rests on, in the guest's kernel: a port's ADD event comes before the host has said whether it is
 * a console and what it is called; a name is followed by a CHANGE event; nothing in sysfs tells consoles from generic
 * ports, debugfs does. Opening a port would tell them apart too, but the host sees that, and closing it again throws
 * away what the host has sent: the script never opens one.
 */

/** Where the helper lives in a guest. */
export const HELPER_PATH = '/usr/local/lib/vmchannel/vmch-port'

export const HELPER_SCRIPT: string = String.raw`#!/bin/sh
# vmch-port: names /dev/vmch0, /dev/vmch1, ... for the generic ports of virtio-serial devices.
#
#   vmch-port claim PORT     print the name of PORT (vport1p2), taking one if it has none; fails for a console
#   vmch-port release PORT   give the name back
#   vmch-port scan           make the links of all ports that are there, remove those of ports that are not
#   vmch-port                as mdev calls it: ACTION and MDEV in the environment, makes and removes the links
#
# A port that the host has named vmchN gets that name; the others get the lowest number that is free and that no
# port is named after. A port keeps its number while it lives. Consoles (hvc) get none.
PATH=/usr/sbin:/usr/bin:/sbin:/bin:$PATH
export PATH
sys=/sys/class/virtio-ports
dev=/dev
state=/run/vmch
[ -d /run ] || state=/dev/.vmch
mounted=''
links='' # whether /dev/vmchN are ours to make and remove, or udev's

cleanup() {
  [ -z "$mounted" ] || { umount "$mounted" && rmdir "$mounted"; } 2>/dev/null
  mounted=''
}

# Sets debug to a place where debugfs is mounted, or to nothing. A kernel that has it mounted nowhere lets us
# mount it for a moment, in a directory of our own.
find_debugfs() {
  debug=/sys/kernel/debug
  [ -d $debug/virtio-ports ] && return
  while read -r _ place type _; do
    case $type:$place in
      debugfs:$state/*) ;; # another helper's, about to go
      debugfs:*) [ -d "$place/virtio-ports" ] && debug=$place && return ;;
    esac
  done </proc/mounts
  mounted=$state/debug.$$
  trap cleanup EXIT
  trap 'exit 1' HUP INT TERM
  if mkdir "$mounted" && mount -t debugfs debugfs "$mounted" && [ -d "$mounted/virtio-ports" ]; then
    debug=$mounted
  else
    debug=''
  fi 2>/dev/null
}

# Sets kind (console, generic or unknown), connected and name for port $1.
look() {
  kind=unknown connected=0 name=''
  [ -e $sys/"$1"/name ] && IFS= read -r name <$sys/"$1"/name
  if [ -n "$debug" ]; then
    [ -r "$debug/virtio-ports/$1" ] || return
    while read -r key value; do
      case $key$value in
        is_console:yes) kind=console ;;
        is_console:no) kind=generic ;;
        host_connected:1) connected=1 ;;
      esac
    done <"$debug/virtio-ports/$1"
  else
    # All that is left is the rule that port 0 of a device is a console.
    case $1 in *p0) kind=console ;; *) kind=generic ;; esac
  fi 2>/dev/null
}

# The host's word on a new port comes some milliseconds after the port. A console is said to be one before it is
# named and before the host end is open, so either of those ends the wait; a port with none of them is waited for
# 0.15 s or so. Events made by hand (udevadm trigger, mdev -s) are of ports that have been there for long.
settle() {
  tries=8
  if [ -n "$SYNTH_UUID" ] || [ "$ACTION" != add ] || [ -z "$SEQNUM" ]; then tries=1; fi
  while :; do
    look "$1"
    [ "$kind" = console ] && return 0
    [ "$kind" = generic ] && [ "$name$connected" != 0 ] && return 0
    [ -d $sys/"$1" ] || return 1
    tries=$((tries - 1))
    [ $tries -gt 0 ] || return 0
    sleep 0.02 2>/dev/null || sleep 1
  done
}

# Several events may be worked on at once. Nothing in here waits, so a lock that stays for 5 s is a dead one's.
lock() {
  waits=0
  until mkdir lock 2>/dev/null; do
    waits=$((waits + 1))
    [ $waits -lt 250 ] || { rmdir lock; waits=0; } 2>/dev/null
    sleep 0.02 2>/dev/null || sleep 1
  done
}
unlock() { rmdir lock; }

# Sets owner to what file $1 of the state directory says: each name that is taken is a file with its port's name.
owner() {
  owner=''
  [ ! -f "$1" ] || read -r owner <"$1"
}

# The same, but a port that is gone owns nothing.
holder() {
  owner "$1"
  [ -z "$owner" ] || [ -d $sys/"$owner" ] || { rm -f "$1"; owner=''; }
}

# Whether the host has given name $1 to a port other than $2.
named_after() {
  for file in $sys/*/name; do
    [ -e "$file" ] || continue
    other=''
    IFS= read -r other <"$file"
    [ "$other" = "$1" ] && [ "$file" != "$sys/$2/name" ] && return 0
  done 2>/dev/null
  return 1
}

# Gives back what port $1 holds, but for name $2, with the link where the links are ours.
give_back() {
  for held in vmch*; do
    owner "$held"
    [ "$held" != "$2" ] && [ "$owner" = "$1" ] || continue
    rm -f "$held"
    [ -n "$links" ] && [ "$(readlink $dev/"$held")" = "$1" ] && rm -f $dev/"$held"
  done
}

# Sets got to the name of port $1, or to nothing.
claim() {
  got='' evicted=''
  settle "$1" || return 1
  lock
  if [ "$kind" = console ]; then
    give_back "$1"
    unlock
    return 1
  fi
  case $name in
    vmch[0-9] | vmch[1-9][0-9] | vmch[1-9][0-9][0-9])
      holder "$name"
      theirs=''
      [ -z "$owner" ] || [ ! -e "$sys/$owner/name" ] || IFS= read -r theirs <"$sys/$owner/name"
      # Two devices may have a port of one name: the first keeps it.
      if [ "$owner" = "$1" ] || [ "$theirs" != "$name" ]; then
        got=$name
        [ "$owner" = "$1" ] || evicted=$owner
        echo "$1" >"$got"
      fi
      ;;
  esac
  if [ -z "$got" ]; then
    for held in vmch*; do
      owner "$held"
      [ "$owner" != "$1" ] || named_after "$held" "$1" || got=$held
    done
  fi
  number=0
  while [ -z "$got" ]; do
    holder vmch$number
    if [ -z "$owner" ] && ! named_after vmch$number "$1"; then
      echo "$1" >vmch$number
      got=vmch$number
    fi
    number=$((number + 1))
    [ $number -lt 4096 ] || break
  done
  give_back "$1" "$got"
  unlock
  # Whoever had the number takes another one when its event comes.
  [ -z "$evicted" ] || echo change >$sys/"$evicted"/uevent
  [ -n "$got" ]
}

# Removes links in directory $1 that lead to $2, but for the one called $3.
unlink_from() {
  for link in "$1"/*; do
    [ -L "$link" ] && [ "$link" != "$1/$3" ] && [ "$(readlink "$link")" = "$2" ] && rm -f "$link"
  done
}

# mdev: the links are ours to make.
links_add() {
  claim "$1"
  [ -z "$got" ] || ln -sf "$1" $dev/"$got"
  case $name in '' | . | .. | */*) return 0 ;; esac
  mkdir -p $dev/virtio-ports
  unlink_from $dev/virtio-ports ../"$1" "$name"
  ln -sf ../"$1" $dev/virtio-ports/"$name"
}

links_remove() {
  lock
  give_back "$1"
  unlock
  unlink_from $dev/virtio-ports ../"$1"
}

mkdir -p $state && chmod 700 $state && cd $state || exit 1
case $1 in
  claim)
    find_debugfs
    claim "$2" && echo "$got"
    ;;
  release)
    lock
    give_back "$2"
    unlock
    ;;
  scan)
    links=1
    find_debugfs
    for held in vmch*; do
      owner "$held"
      [ -z "$owner" ] || [ -d $sys/"$owner" ] || links_remove "$owner"
    done
    for port in $(ls $sys 2>/dev/null); do
      links_add "$port"
    done
    exit 0
    ;;
  '')
    [ -n "$MDEV" ] || { echo "usage: vmch-port claim PORT | release PORT | scan" >&2; exit 2; }
    links=1
    if [ "$ACTION" = remove ]; then
      links_remove "$MDEV"
    else
      find_debugfs
      links_add "$MDEV"
    fi
    exit 0
    ;;
  *)
    echo "vmch-port: unknown command: $1" >&2
    exit 2
    ;;
esac
`
