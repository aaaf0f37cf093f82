#!/bin/busybox sh
# First program of the appliance: drivers, then the root file system that root=UUID=... names, then its own init.
bb=/bin/busybox
$bb mount -t proc proc /proc
$bb mount -t sysfs sys /sys
$bb mount -t devtmpfs dev /dev
for module in /modules/*; do $bb insmod $module; done
for word in $($bb cat /proc/cmdline); do
  case $word in root=*) root=${word#root=} ;; esac
done
tries=0
device=
while [ $tries -lt 600 ]; do
  case $root in
    /dev/*) [ -b $root ] && device=$root ;;
    *) device=$($bb findfs $root 2>/dev/null) ;;
  esac
  [ -n "$device" ] && break
  tries=$((tries + 1))
  $bb usleep 50000
done
$bb mount -t ext2 $device /root || $bb mount -t ext4 $device /root || { echo "appliance: no root $root"; $bb reboot -f; }
$bb umount /proc /sys
$bb mount --move /dev /root/dev
exec $bb switch_root /root /init
