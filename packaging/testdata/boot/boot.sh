#!/bin/bash
# boot.sh ROOT: boots a throw-away copy of ROOT, with the package of the working
# directory in it, twice under systemd-nspawn: with mounts, control groups and a
# network of its own. What the host says of itself is printed (steps.sh).
set -eu
root=$1
if [ -z "${INSIDE-}" ]; then
	INSIDE=1 exec unshare -nm "$0" "$root"
fi
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay overlay -o "lowerdir=$root,upperdir=/mnt/upper,workdir=/mnt/work" /mnt/root
mount -t tmpfs tmpfs /run
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
# Two systemds in one control group take away those of each other's units (219/CGROUP).
parent=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)
own=$(mktemp -d "$parent/hostaudit-boot.XXXXXX")
echo $$ >"$own/cgroup.procs"
trap 'echo $$ >"$parent/cgroup.procs"; find "$own" -depth -type d -exec rmdir {} +' EXIT
cp ./*.deb /mnt/root/package.deb
install -m 755 steps.sh /mnt/root/steps.sh
chroot /mnt/root env DEBIAN_FRONTEND=noninteractive dpkg -i /package.deb >/dev/null
cat >/mnt/root/etc/systemd/system/steps.service <<'U'
[Unit]
After=timers.target network.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c '/steps.sh >>/steps.log 2>&1; systemctl --no-block poweroff'
[Install]
WantedBy=multi-user.target
U
mkdir -p /mnt/root/etc/systemd/system/multi-user.target.wants
ln -s ../steps.service /mnt/root/etc/systemd/system/multi-user.target.wants/
rm -f /mnt/root/etc/machine-id
echo 0123456789abcdef0123456789abcdef >/mnt/root/etc/machine-id
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
for boot in 1 2; do
	echo "BOOT=$boot" >/mnt/root/booted
	timeout 120 script -qec "systemd-nspawn -q -D /mnt/root --register=no --keep-unit --private-network --console=interactive -b" /mnt/console </dev/null >/dev/null 2>&1 ||
		{ echo "boot $boot did not end well"; tail -c 3000 /mnt/console; }
done
cat /mnt/root/steps.log
