package checks

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Why no test of the laboratory makes a finding of the catalogue come true. Only
// where a key or its counter is the machine's: tests neither write those nor bring
// the machine to its limits. The rules are held by sysctl's own tests.
const (
	firstOnly = "the key exists in the machine's first network namespace only: a namespace of the laboratory does not have it, and has no finding"
	globalKey = "the key is the machine's, and the machine would have to be brought to it"
	noCard    = "needs a network card: the laboratory's devices have no receive ring"
)

// proofs says of every finding of the sysctl catalogue which test of the laboratory
// produces its condition, next to a healthy host on which nothing is said, or why
// none does.
var proofs = map[string]string{
	"sysctl.accept-queue-overflow":    "TestAcceptQueueOverflow",
	"sysctl.somaxconn-bounds-queue":   "TestAcceptQueueOverflow", // as listener.queue-full
	"sysctl.application-bounds-queue": "TestAcceptQueueOverflow", // as listener.queue-full
	"sysctl.syn-queue-overflow":       "TestSynQueueOverflow",
	"sysctl.syn-queue-cookies":        "TestSynQueueOverflow",
	"sysctl.ephemeral-range-small":    "TestPortsExhausted",
	"sysctl.ephemeral-range-overlaps": "TestListenerInRange",
	"sysctl.time-wait-exhaustion":     "TestTimeWaitExhaustion",
	"sysctl.time-wait-overflow":       "TestTimeWaitOverflow",
	"sysctl.nonlocal-bind":            "TestNonlocalBind",
	"sysctl.conntrack-near-limit":     "TestConntrackFull",
	"sysctl.conntrack-invalid":        "TestConntrackInvalid",
	"sysctl.rp-filter-drops":          "TestReversePathFilter",
	"sysctl.rp-filter-strict":         "TestReversePathFilter",
	"sysctl.route-localnet-exposes":   "TestRouteLocalnet",
	"sysctl.route-localnet-needed":    "TestRouteLocalnet",
	"sysctl.forwarding-needed":        "TestForwardingNeeded",
	"sysctl.router-ignores-ra":        "TestRouterIgnoresAdvertisements",
	"sysctl.ipv6-disabled":            "TestIPv6Disabled",
	"sysctl.mtu-probing-off":          "TestLargePacketsVanish",
	"sysctl.udp-receive-buffer":       "TestReceiveBuffer",
	"sysctl.nr-open-below-limit":      "TestUnitAsksForTooMuch",
	"sysctl.not-applied-at-boot":      "TestLateModule",
	"limits.nofile-near-limit":        "TestFilesNearLimit", // as listener.nofile-near-limit
	"limits.select-loop-full":         "TestSelectLoop",
	"limits.tasks-exhausted":          "TestTasksExhausted",
	"limits.killed-for-memory":        "TestKilledForMemory",

	"sysctl.netdev-backlog-overflow":   firstOnly,
	"sysctl.netdev-budget-exhausted":   firstOnly,
	"sysctl.orphans-near-limit":        firstOnly,
	"sysctl.fin-wait-pile-up":          firstOnly + " (net.ipv4.tcp_max_orphans)",
	"sysctl.socket-memory-pressure":    firstOnly,
	"sysctl.neighbour-table-full":      firstOnly,
	"sysctl.udp-memory-pressure":       globalKey + " (net.ipv4.udp_mem)",
	"sysctl.conntrack-buckets-missing": globalKey,
	"sysctl.file-table-near-limit":     globalKey,
	"device.rx-ring-overflow":          noCard,
}

// TestProofs holds the table to the catalogue and to the tests: a finding without
// an entry fails, and so does an entry whose test is not there or does not name the
// finding.
func TestProofs(t *testing.T) {
	names, err := filepath.Glob("evidence_*_test.go")
	if err != nil || len(names) == 0 {
		t.Fatalf("no tests: %v", err)
	}
	body := map[string]string{}
	for _, name := range names {
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, name, src, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				body[fn.Name.Name] = string(src[fset.Position(fn.Pos()).Offset:fset.Position(fn.End()).Offset])
			}
		}
	}
	said := map[string]string{ // under which id another check says it
		"sysctl.somaxconn-bounds-queue": "queueFull(", "sysctl.application-bounds-queue": "queueFull(", "limits.nofile-near-limit": "listener.nofile-near-limit",
	}
	seen := map[string]bool{}
	for k, ids := range found {
		for _, id := range ids {
			seen[id] = true
			proof := proofs[id]
			switch {
			case proof == "":
				t.Errorf("%s (%s): no test of the laboratory produces it, and nothing says why", id, k)
			case !strings.HasPrefix(proof, "Test"):
			case body[proof] == "":
				t.Errorf("%s: there is no %s", id, proof)
			default:
				word := said[id]
				if word == "" {
					word = id
				}
				if !strings.Contains(body[proof], word) {
					t.Errorf("%s: %s does not name %s", id, proof, word)
				}
			}
		}
	}
	for id := range proofs {
		if !seen[id] && !slices.Contains(elsewhere, id) {
			t.Errorf("%s is no finding of the catalogue", id)
		}
	}
}
