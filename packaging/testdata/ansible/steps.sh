#!/bin/bash
# The life of a host under the role, inside host.sh. Every step says what it is; the
# test reads the words, and this script ends at the first that is not as it should.
set -u
export HOME=/root ANSIBLE_PIPELINING=true ANSIBLE_COLLECTIONS_PATH=/work/collections ANSIBLE_LOCALHOST_WARNING=false ANSIBLE_NOCOLOR=1 LC_ALL=C.UTF-8 ANSIBLE_LOCAL_TEMP=/root/.ansible/tmp
cd /work || exit 1
die() {
	echo "FAILED: $*"
	sed "s/{.*\"msg\":/{ ... \"msg\":/" /tmp/out | cut -c 1-500
	exit 1
}
play() { ansible-playbook -i localhost, -e ansible_python_interpreter=/usr/bin/python3 play.yml "$@" >/tmp/out 2>&1; }
has() { grep -qF -- "$1" /tmp/out || die "$step: no '$1' in"; }
lacks() { ! grep -qF -- "$1" /tmp/out || die "$step: '$1' in"; }
blocked() { nft list ruleset >/tmp/rules; ! grep -q 'tcp dport 8080 accept' /tmp/rules; }
services='{"services": [{"name": "web", "port": 8080, "audience": "everyone"}]}'
vars() { printf '{"hostaudit_package_file": "/work/%s", "hostaudit_config": %s, "hostaudit_fix_any_namespace": true%s}' "$package" "$services" "${1-}"; }
package=$(basename ./*.deb)
fix=', "hostaudit_fix": ["firewall.port-blocked"]'

step='check mode on a host without hostaudit'
play --check --diff -e "$(vars "$fix")" || die "$step"
has 'Copy the package'
if [ -e /usr/sbin/hostaudit ] || [ -e /etc/hostaudit ] || ! blocked; then die "$step wrote something"; fi
echo "ok: $step"

step='installation and audit'
play -e "$(vars)" || die "$step"
has '1 of 1 service cannot be reached as meant: 8080'
dpkg -s hostaudit >/tmp/out && has 'install ok installed'
[ -L /etc/systemd/system/timers.target.wants/hostaudit-scan.timer ] || die "$step: the timer is not enabled"
grep -q 'name: web' /etc/hostaudit/hostaudit.yaml || die "$step: not configured"
blocked || die "$step mended what it was not asked to"
echo "ok: $step"

step='the same again changes nothing, and findings fail the play when asked to'
play -e "$(vars ', "hostaudit_fail_on": "critical"')" && die "$step: it did not"
has 'changed=0'
has 'is blocked by the firewall'
echo "ok: $step"

# From here on it is installed: the rest goes without.
installed() { play --skip-tags hostaudit_install,hostaudit_timer "$@"; }

step='a variable that cannot be is refused'
installed -e "$(vars ', "hostaudit_fail_on": "sometimes"')" && die "$step: it was accepted"
has 'value of hostaudit_fail_on must be one of'
echo "ok: $step"

step='a wrong configuration is not written'
cp /etc/hostaudit/hostaudit.yaml /tmp/before
installed -e "$(services='{"services": [{"name": "web", "port": "eighty"}]}' vars)" && die "$step: it was"
has 'services[0].port'
cmp -s /tmp/before /etc/hostaudit/hostaudit.yaml || die "$step: the file changed"
echo "ok: $step"

step='check and diff show what would be mended'
cp /etc/nftables.conf /tmp/before
installed --check --diff -e "$(vars "$fix")" || die "$step"
has '+		tcp dport 8080 accept comment "hostaudit:'
has 'changed=1'
if ! blocked || ! cmp -s /tmp/before /etc/nftables.conf || [ -e /var/lib/hostaudit/history ]; then die "$step wrote something"; fi
echo "ok: $step"

step='it is mended'
installed -e "$(vars "$fix")" || die "$step"
has 'changed=1'
lacks 'cannot be reached as meant'
blocked && die "$step: the rule is not there"
grep -q 'tcp dport 8080 accept' /etc/nftables.conf || die "$step: not in the file"
echo "ok: $step"

step='a change that asks for it is kept by a confirmation'
hostaudit rollback >/tmp/out 2>&1 || die "$step: rollback"
blocked || die "$step: not rolled back"
installed -e "$(vars "$fix"', "hostaudit_fix_require_confirm": true')" || die "$step"
has 'Keep the change'
has 'changed=2'
[ ! -e /var/lib/hostaudit/journal ] || die "$step: it still waits"
hostaudit history >/tmp/out 2>&1
has 'committed'
blocked && die "$step: the rule is not there"
echo "ok: $step"

step='mended again changes nothing'
installed -e "$(vars "$fix")" || die "$step"
has 'changed=0'
echo "ok: $step"

step='a finding that does not exist'
ansible localhost -m hostaudit.hostaudit.hostaudit_fix -a 'findings=no.such-thing' >/tmp/out 2>&1 && die "$step: it was accepted"
has 'no finding \"no.such-thing\"'
echo "ok: $step"

for module in hostaudit_facts hostaudit_fix; do
	ansible-doc "hostaudit.hostaudit.$module" >/tmp/out 2>&1 || die "ansible-doc $module"
	has 'EXAMPLES'
done
ansible-doc -t role hostaudit.hostaudit.hostaudit >/tmp/out 2>&1 || die 'ansible-doc of the role'
has 'hostaudit_fail_on'
echo "ok: documentation"
echo "ALL DONE"
