package sysctl

import (
	"fmt"
	"testing"
)

// BenchmarkRows judges and places every key of a host with a thousand
// interfaces.
func BenchmarkRows(b *testing.B) {
	live := map[Key]string{}
	for _, e := range Catalogue() {
		if !e.Setting() {
			continue
		}
		live[e.Key.WithInterface("all")], live[e.Key.WithInterface("default")] = "0", "0"
		for i := range 1000 {
			live[e.Key.WithInterface(fmt.Sprintf("veth%d", i))] = "0"
		}
	}
	h := hostOf(map[string]string{"/etc/sysctl.d/1.conf": "net.ipv4.conf.*.rp_filter = 2\nnet.ipv4.ip_forward = 1\nnet.core.somaxconn = 65535"}, live)
	f := &Facts{Live: h.Live}
	b.ReportMetric(float64(len(live)), "keys")
	for b.Loop() {
		if len(h.Rows(f)) < 1000 {
			b.Fatal("rows are missing")
		}
	}
}
