# Sourced by init.sh: instead of staying in the initramfs, go on with systemd on the disk. The lab's agent comes along in
# /run, so that nothing of the lab is in the image.
mkdir -p /disk
until [ -b /dev/vda ]; do sleep 0.1; done
mount -t ext4 /dev/vda /disk
mount -t tmpfs -o mode=755,nosuid,nodev run /disk/run
mkdir -p /disk/run/lab /disk/run/systemd/system/sysinit.target.wants
cp /bin/agent /disk/run/lab/agent
cat >/disk/run/systemd/system/lab-agent.service <<'UNIT'
[Unit]
Description=Commands from the lab
DefaultDependencies=no
Before=sysinit.target

[Service]
ExecStart=/run/lab/agent /dev/ttyS1
Environment=HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
UNIT
ln -s ../lab-agent.service /disk/run/systemd/system/sysinit.target.wants/lab-agent.service
umount /sys/kernel/debug /dev/pts /run /tmp
mount --move /dev /disk/dev
mount --move /sys /disk/sys
mount --move /proc /disk/proc
exec switch_root /disk /sbin/init
