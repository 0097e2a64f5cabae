#!/bin/sh
# host.sh ROOT COMMAND…: runs COMMAND on a throw-away copy of ROOT, in namespaces of
# its own, with an address, a web server on 8080 and a firewall that drops it.
# Nothing it does outlives it, or reaches the machine. ROOT/.overlay is an empty
# directory.
set -eu
root=$1
shift
if [ -z "${INSIDE-}" ]; then
	INSIDE=1 exec unshare -nmpf --mount-proc "$0" "$root" "$@"
fi
mount --make-rprivate /
top=/mnt # a mount namespace of its own
mount -t tmpfs tmpfs "$top"
mkdir "$top/upper" "$top/work" "$top/root"
mount -t overlay overlay -o "lowerdir=$root,upperdir=$top/upper,workdir=$top/work" "$top/root"
root=$top/root
mkdir -p "$root/work" "$root/dev/shm"
mount --bind "$PWD" "$root/work"
mount -t proc -o ro proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/dev/shm"

ip link set lo up
ip link add eth0 type veth peer name peer0
ip addr add 192.0.2.10/24 dev eth0
ip link set eth0 up
ip link set peer0 up
ip route add default via 192.0.2.1
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
ln -sf /lib/systemd/system/nftables.service "$root/etc/systemd/system/multi-user.target.wants/nftables.service"
cat >"$root/etc/nftables.conf" <<'N'
flush ruleset

table inet filter {
	chain input {
		type filter hook input priority 0; policy accept;
		ct state established,related accept
		iif "lo" accept
		tcp dport 8080 drop
	}
}
N
chroot "$root" nft -f /etc/nftables.conf
chroot "$root" python3 -m http.server 8080 --directory /work >/dev/null 2>&1 &
tries=0
while ! ss -Hltn 'sport = 8080' | grep -q 8080; do
	tries=$((tries + 1))
	[ "$tries" -lt 100 ] || { echo "host.sh: the server does not listen" >&2; exit 1; }
	sleep 0.1
done
exec chroot "$root" "$@"
