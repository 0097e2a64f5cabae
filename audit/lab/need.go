package lab

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// Need skips the test with a loud reason when the laboratory could not be
// entered, or when one of the things named is missing; with CI=true that is a
// failure. Names are programs (nft, iptables-nft, iptables-legacy, ipset,
// conntrack, dockerd, …) and are tried in a namespace where that is harmless:
// "nft", "iptables-nft", "iptables-legacy" and "ipset" stand for the loaders
// of both families and for the kernel's support of them, "ipv6" for IPv6 in
// the kernel.
func Need(t testing.TB, names ...string) {
	t.Helper()
	if why := Outside(); why != "" {
		missing(t, "the laboratory could not be entered: "+why)
	}
	for _, name := range names {
		if err := try(t, name); err != nil {
			missing(t, fmt.Sprintf("%s: %v", name, err))
		}
	}
}

// Outside returns why this process is not inside the laboratory, or "".
func Outside() string {
	if why := os.Getenv(whyOutside); why != "" {
		return why
	}
	outer, ok := os.LookupEnv(Marker)
	if !ok {
		return "TestMain does not call lab.Main"
	}
	if err := elsewhere(outer); err != nil {
		return err.Error()
	}
	return ""
}

// missing skips, or fails where CI=true says that nothing may be missing.
func missing(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("MISSING (CI=true): %s", why)
	}
	t.Skipf("SKIPPED, missing here: %s", why)
}

// try reports whether a needed thing works.
func try(t testing.TB, name string) error {
	t.Helper()
	var loads []Loader
	switch name {
	case "ipv6":
		if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
			return fmt.Errorf("the kernel has no IPv6: %w", err)
		}
		return nil
	case "nft":
		loads = []Loader{NFT}
	case "iptables-nft":
		loads = []Loader{IPTablesNFT, IP6TablesNFT}
	case "iptables-legacy":
		loads = []Loader{IPTablesLegacy, IP6TablesLegacy}
	case "ipset":
		loads = []Loader{IPSet}
	default:
		_, err := exec.LookPath(name)
		return err
	}
	scratch, err := newNamespace("scratch")
	if err != nil {
		return err
	}
	defer scratch.close()
	for _, loader := range loads {
		text := "*filter\nCOMMIT\n"
		if loader == NFT {
			text = "table inet lab { chain c { type filter hook input priority 0; }; }\n"
		}
		if loader == IPSet {
			text = "create lab hash:ip\n"
		}
		if err := scratch.TryLoad(t.Context(), loader, text); err != nil {
			return err
		}
	}
	return nil
}
