#!/bin/busybox sh
# Once at boot: mounts, modules, memory for the driver.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
grep -q ' /dev devtmpfs ' /proc/mounts || mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
hostname guest
ip link set lo up
# Some are there already where the system lies on a disk.
while read -r module; do
  name=$(echo "${module%.ko}" | tr - _)
  [ -e "/sys/module/$name" ] || insmod "/modules/$module" || echo "rc: $module: not inserted"
done </modules/boot
# Early, while memory is in one piece; the driver takes what it needs of it.
echo "${hugepages:-8}" >/proc/sys/vm/nr_hugepages
