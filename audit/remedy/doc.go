// Package remedy changes the host: the only place of the program that does.
//
// A Plan is a value: ordered steps, each with the state before and after, and the
// effect on every listener, computed by the model before anything is written
// (NewPlan, pure). System carries it out:
//
//	intent ──▶ applied ──▶ confirmed ──▶ committed
//	   │          │            │
//	   └──────────┴────────────┴──▶ rolled-back, or incomplete with what is left
//
// Live state first, files last: until the change is confirmed, a reboot is a
// rollback. The journal is on disk before the first change and names each step
// before it begins; a watchdog in another process is armed before the first
// change; a rollback restores only what still is as this program left it and
// names the rest. What a tool says counts for nothing: a step is done when a
// fresh reading of the host shows it.
//
// The journal, read under the lock, is the only arbiter: whoever finds it
// unfinished (Recover at boot, the watchdog, the next run) undoes it; a change
// that was confirmed but not yet written to disk whole is undone as well.
//
// All writing happens on the goroutine that calls, locked to its thread, in that
// thread's network namespace.
//
// Rules of iptables are changed through go-iptables, every other program is run as
// it is; both in a process of this program's own (RunErrand), for neither has a bound
// of its own in time or output. That process keeps the lock: when the run is killed, a
// recovery waits until the program that it had started has come to its end.
//
// The boot-time half of the watchdog is a unit that the packages install:
//
//	[Unit]
//	Description=Undo a change of hostaudit that was not confirmed before the reboot
//	DefaultDependencies=no
//	RequiresMountsFor=/var/lib/hostaudit
//	After=systemd-remount-fs.service
//	Before=systemd-sysctl.service network-pre.target sysinit.target
//	Before=ufw.service firewalld.service nftables.service netfilter-persistent.service iptables.service ip6tables.service
//	ConditionPathExists=/var/lib/hostaudit/journal
//
//	[Service]
//	Type=oneshot
//	ExecStart=/usr/sbin/hostaudit recover
//
//	[Install]
//	WantedBy=sysinit.target
package remedy
