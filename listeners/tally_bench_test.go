package listeners

import (
	"testing"

	"github.com/hostaudit/hostaudit/listeners/sockdiag"
)

// BenchmarkTally is the counting alone: one datagram of 300 sockets.
func BenchmarkTally(b *testing.B) {
	var datagram []byte
	for i := range 300 {
		datagram = append(datagram, record(sockdiag.TimeWait, uint16(40000+i), 80, uint32(i*7919%34))...)
	}
	tl := newTally(TCP, CensusOptions{Settings: PortSettings{Low: 32768, High: 60999}, Table: &Table{}}, &PortSet{})
	b.SetBytes(300)
	for b.Loop() {
		if err := tl.datagram(datagram); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/300, "ns/socket")
}
