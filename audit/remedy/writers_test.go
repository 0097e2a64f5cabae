package remedy

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/hostaudit/hostaudit/audit/lab"
)

// TestOtherWriters: in every gap of a change somebody else writes rules. What they
// wrote is there afterwards, ours is there as a whole or not at all, and the
// outcome says which.
func TestOtherWriters(t *testing.T) {
	t.Parallel()
	lab.Need(t, "nft", "iptables-nft", "iptables-legacy")
	type writer struct {
		name string
		do   func(d *drill)
		// there says whether what it wrote is still there.
		there func(rules string) bool
	}
	writers := func(legacy bool) []writer {
		has := func(s string) func(string) bool { return func(rules string) bool { return strings.Contains(rules, s) } }
		if legacy {
			return []writer{
				{"bans like fail2ban", func(d *drill) {
					d.lab.Server.Run(t, "iptables-legacy", "-w", "30", "-N", "f2b-sshd")
					d.lab.Server.Run(t, "iptables-legacy", "-w", "30", "-A", "f2b-sshd", "-s", "203.0.113.99", "-j", "REJECT")
					d.lab.Server.Run(t, "iptables-legacy", "-w", "30", "-I", "INPUT", "-p", "tcp", "--dport", "22", "-j", "f2b-sshd")
				}, has("203.0.113.99")},
				{"chains like Docker's", func(d *drill) {
					d.lab.Server.Run(t, "iptables-legacy", "-w", "30", "-N", "DOCKER-USER")
					d.lab.Server.Run(t, "iptables-legacy", "-w", "30", "-I", "FORWARD", "-j", "DOCKER-USER")
				}, has("-A FORWARD -j DOCKER-USER")},
				{"flushes", func(d *drill) {
					d.lab.Server.Run(t, "iptables-legacy", "-w", "30", "-P", "INPUT", "ACCEPT")
					d.lab.Server.Run(t, "iptables-legacy", "-w", "30", "-F")
				}, func(rules string) bool { return !strings.Contains(rules, "--dport 22 ") }},
			}
		}
		return []writer{
			{"bans like fail2ban", func(d *drill) {
				d.lab.Server.Run(t, "nft", "insert rule inet filter input ip saddr 203.0.113.99 tcp dport 22 reject")
			}, has("203.0.113.99")},
			{"tables like Docker's", func(d *drill) {
				d.lab.Server.Run(t, "nft", "table ip docker { chain forward { type filter hook forward priority 0; }; }")
			}, has("table ip docker")},
			{"flushes", func(d *drill) { d.lab.Server.Run(t, "nft", "flush", "ruleset") }, func(rules string) bool { return !strings.Contains(rules, "inet filter") }},
			{"loads its file anew", func(d *drill) {
				d.lab.Server.Run(t, "nft", "flush", "ruleset")
				d.lab.Server.Load(t, lab.NFT, strings.Replace(nftDrop, "tcp dport 22 accept", "tcp dport { 22, 2222 } accept", 1))
			}, has("2222")},
		}
	}
	for _, legacy := range []bool{false, true} {
		for _, w := range writers(legacy) {
			for _, gap := range []string{"before the apply", "before the verification", "before the rollback"} {
				name := "nft "
				loader, rules, dump := lab.NFT, nftDrop, []string{"nft", "list", "ruleset"}
				if legacy {
					name, loader, rules, dump = "legacy ", lab.IPTablesLegacy, xtPolicy("icmp"), []string{"iptables-legacy-save"}
				}
				t.Run(name+w.name+" "+gap, func(t *testing.T) {
					t.Parallel()
					d := newDrill(t, false, everybody)
					d.lab.Server.Load(t, loader, rules)
					d.logIn()
					p, in, err := d.plan("")
					if err != nil || len(p.Steps) == 0 {
						t.Fatalf("%v %v", p, err)
					}
					if gap == "before the apply" {
						w.do(d)
					}
					err = d.apply(p, in, func(ctx context.Context) error {
						if gap == "before the verification" {
							w.do(d)
						}
						return d.sys.Verifier(p, in.Snapshot, in.Paths)(ctx)
					})
					ours := func() bool { return strings.Contains(d.lab.Server.Run(t, dump...), "hostaudit:") }
					switch {
					case err == nil && w.name != "flushes" && !ours():
						t.Error("done, and our rule is not there")
					case err != nil && !errors.Is(err, ErrRefused) && !errors.Is(err, ErrRolledBack):
						t.Errorf("it ended with %v", err)
					case err != nil && ours():
						t.Errorf("it ended with %v, and our rule is there", err)
					case err != nil && gap == "before the rollback":
						t.Fatal(err)
					}
					if gap == "before the rollback" {
						w.do(d)
					}
					if err == nil {
						d.lab.Server.Do(func() { err = d.sys.Rollback(context.Background(), "", false) })
						if err != nil || ours() {
							t.Errorf("rollback: %v, our rule is there: %v", err, ours())
						}
					}
					if rules := d.lab.Server.Run(t, dump...); !w.there(rules) {
						t.Errorf("what somebody else wrote is gone:\n%s", rules)
					}
					if !talks(d.login) {
						t.Error("the operator was cut off")
					}
				})
			}
		}
	}
}
