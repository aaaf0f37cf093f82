#!/bin/busybox sh
# First program of the lab's guest: mounts, modules, then the agent as process 1.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root TERM=dumb
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t debugfs debug /sys/kernel/debug
ln -s /proc/self/fd /dev/fd
ip link set lo up
hostname guest
while read -r module; do
  insmod "/modules/$module" || echo "init: $module: not inserted"
done </modules/boot
. /etc/init-extra
exec /bin/agent /dev/ttyS1
