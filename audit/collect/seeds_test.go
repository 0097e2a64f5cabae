package collect

import (
	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit/route"
	"github.com/hostaudit/hostaudit/listeners"
)

// seeds are captures for the fuzzer to start from: every part present.
var seeds = []*Capture{
	{Schema: Schema, Taken: []reading{{ID: 1, Listeners: &listeners.Tape{NetNS: 1, Answers: []listeners.TapeItem{{Key: "net tcp", Data: []byte("  sl\n")}}},
		Routes: &route.Capture{Blobs: map[string]route.Blob{"link": {Data: make([]byte, 32)}, "addr": {}}}, Firewall: &rawFirewall{NFT: []byte("nftdump1")},
		Answers: []answer{
			{Key: "links", Parts: [][]byte{attr(attr(make([]byte, ifinfomsgLen), unix.IFLA_XDP, attr(nil, 2, []byte{4})), unix.IFLA_LINKINFO, attr(nil, 1, []byte("veth\x00")))}},
			{Key: "qdiscs", Parts: [][]byte{append([]byte{0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}, attr(nil, 1, []byte("clsact\x00"))...)}},
			{Key: "legacy tables ip", Parts: [][]byte{[]byte("filter\n")}},
			{Key: "legacy info ip filter", Parts: [][]byte{make([]byte, 84)}},
			{Key: "ipsets", Parts: [][]byte{{2, 0, 0, 0}}},
		}}},
		Host: []answer{{Key: "bpf inventory", Parts: [][]byte{[]byte(`{"programs":[{"id":1,"type":8}]}`)}}, {Key: "cgroup 5", Parts: [][]byte{[]byte(`{"path":"/a","programs":[{"id":1,"hook":0,"at":"/"}]}`)}}}},
}
