#!/bin/bash
# An upgrade while a change waits to be confirmed, inside host.sh: it is not lost, the
# new package's program undoes it, and the watchdog of the old one still works. Both
# packages hold the same program.
set -u
cd /work || exit 1
die() {
	echo "FAILED: $*"
	cat /tmp/out
	exit 1
}
opened() { nft list ruleset >/tmp/rules && grep -q 'tcp dport 8080 accept' /tmp/rules; }
pending() { # DEADLINE: a change is live and waits
	setsid hostaudit fix firewall.port-blocked --quick --apply --yes --confirm --deadline "$1" --any-namespace >/tmp/out 2>&1 </dev/null &
	for _ in $(seq 200); do
		if hostaudit history --format json 2>/dev/null | grep -q '"state": "applied"'; then return; fi
		sleep 0.1
	done
	die "the change was not applied"
}
mkdir -p /etc/hostaudit
dpkg -i ./old.deb >/tmp/out 2>&1 || die "installation"
printf 'services:\n  - {name: web, port: 8080, audience: everyone}\n' >/etc/hostaudit/hostaudit.yaml
opened && die "the port is open before anything was done"

pending 10m
opened || die "the change is not live"
dpkg --force-confold -i ./new.deb >/tmp/out 2>&1 </dev/null || die "upgrade while a change waits"
case $(dpkg-query -W -f '${Version}' hostaudit) in 0.9.9*) ;; *) die "not the new version" ;; esac
opened || die "the upgrade undid the change"
[ -e /var/lib/hostaudit/journal ] || die "the upgrade lost the journal"
dpkg -r hostaudit >/tmp/out 2>&1 && die "removed while a change waits"
dpkg --configure -a >/tmp/out 2>&1 || die "configure"
opened || die "the refused removal undid the change"
hostaudit rollback >/tmp/out 2>&1 || die "rollback by the new version"
opened && die "the new version did not undo it"
[ ! -e /var/lib/hostaudit/journal ] || die "the journal still waits"
echo "ok: undone by the new version"

pending 6s
dpkg --force-confold -i ./old.deb >/tmp/out 2>&1 </dev/null || die "downgrade while a change waits"
opened || die "the downgrade undid the change"
for _ in $(seq 200); do
	opened || break
	sleep 0.1
done
opened && die "not confirmed, and still there"
hostaudit history >/tmp/out 2>&1
grep -q 'rolled-back' /tmp/out || die "the history does not say that it was rolled back"
dpkg -P hostaudit >/tmp/out 2>&1 || die "purge"
[ ! -e /var/lib/hostaudit ] || die "left after purge"
echo "ok: undone at its deadline"
