#!/bin/busybox sh
# The initramfs of a guest whose system lies on a disk: the first virtio disk becomes the root.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module"; done </modules/boot
i=0
while [ ! -e /dev/vda ] && [ $i -lt 100 ]; do
  usleep 50000
  i=$((i + 1))
done
mount -t ext4 /dev/vda /disk || exec sh
umount /proc /sys
mount -o move /dev /disk/dev
exec switch_root /disk /init
