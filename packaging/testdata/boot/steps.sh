#!/bin/bash
# What a booted host with the package says of itself, in lines "BOOT: what = value".
. /booted # BOOT=1 or 2
say() { echo "$BOOT: $1 = ${*:2}"; }
timer() { systemctl "$1" hostaudit-scan.timer 2>/dev/null; }
say enabled "$(timer is-enabled)"
say active "$(timer is-active)"
say recover "$(systemctl show -p ConditionResult --value hostaudit-recover.service)" "$(systemctl show -p Before --value hostaudit-recover.service | tr ' ' '\n' | grep -cxE '(systemd-sysctl|ufw|firewalld|nftables|netfilter-persistent|iptables|ip6tables)\.service|(network-pre|sysinit)\.target')"
say failed "$(systemctl --failed --no-legend | grep -c hostaudit)"
# Something to find: a service that its configuration means for everyone.
printf 'services:\n  - {name: web, port: 8080, audience: everyone}\n' >/etc/hostaudit/hostaudit.yaml
systemctl start hostaudit-scan.service
say scan "$?" "$(systemctl show -p Result --value hostaudit-scan.service)" "$(systemctl show -p ExecMainStatus --value hostaudit-scan.service)"
say reports "$(ls /var/lib/hostaudit/reports | wc -l)" "$(stat -c %a /var/lib/hostaudit)" "$(stat -c '%a %U' /var/lib/hostaudit/reports/*.json | sort -u)"
say found "$(grep -c '"id": "service.not-listening"' /var/lib/hostaudit/reports/*.json | tail -n 1 | cut -d: -f2)"
say since "$(hostaudit scan --quick --since last 2>/dev/null | grep -c .)"
say journal "$(journalctl -u hostaudit-scan.service --no-pager -o cat 2>/dev/null | grep -c 'nothing listens on tcp 8080')"
# The unit may write nowhere else.
systemctl show -p ProtectSystem --value hostaudit-scan.service >/dev/null
if [ "$BOOT" = 2 ]; then
	hostaudit diff "$(ls -d /var/lib/hostaudit/reports/* | head -n 1)" "$(ls -d /var/lib/hostaudit/reports/* | tail -n 1)" >/dev/null
	say diff "$?"
	dpkg -r hostaudit >/dev/null 2>&1
	say removed "$?" "$(systemctl is-active hostaudit-scan.timer)" "$(systemctl --failed --no-legend | grep -c hostaudit)"
	dpkg -P hostaudit >/dev/null 2>&1
	say purged "$?" "$(find / -xdev -name '*hostaudit*' -not -path '/proc/*' -not -path '/var/log/*' -not -path '/var/lib/systemd/*' | wc -l)"
fi
