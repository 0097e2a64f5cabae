package main

// scenes are all that is measured. The ceilings are facts about a prototype plus
// room; they are not moved to where we happen to be.
var scenes = []scene{
	{
		name: "small", title: "small host (50 listeners, 300 processes, 200 rules)",
		size:  size{listen: 50, procs: 250, fixed: true, wildcard: true},
		gates: []gate{{id: "scan-small", title: "whole scan, small host", against: "pipeline", wall: 0.35}},
		measure: func(st *stage) error {
			if err := loadNFT(nftRules(100, "")); err != nil {
				return err
			}
			if err := loadLegacy(legacyRules(100)); err != nil {
				return err
			}
			if err := st.sees(50, 200, 0); err != nil {
				return err
			}
			return st.compare("scan-small", program(st.scan()), program(pipeline...))
		},
	},
	{
		name: "big", title: "big host (1,000,000 TIME_WAIT, 60,000 established, 1,000 listeners on loopback, 10,000 processes)",
		size: size{timewait: 1_000_000, established: 60_000, listen: 1000, procs: 10_000},
		gates: []gate{
			{id: "listeners-ss", title: "listeners, 1M TIME_WAIT", against: "ss -Htln", wall: 0.02, full: true},
			{id: "listeners-netstat", title: "listeners, 1M TIME_WAIT", against: "netstat -tln", wall: 0.02, full: true},
			{id: "listeners-lsof", title: "listeners, 1M TIME_WAIT", against: "lsof -nP -iTCP -sTCP:LISTEN", wall: 0.02, full: true},
			{id: "listeners-quiet", title: "listeners, 1M TIME_WAIT", against: "the same with none", wall: 1.5},
			{id: "dump", title: "full TCP census", against: "receive only", wall: 1.15},
			{id: "ports", title: "hostaudit ports", against: "ss -Htan", wall: 0.30, cpu: 0.60},
			{id: "scan-legacy", title: "whole scan without census, big host, 50k legacy rules", against: "pipeline", wall: 0.35, cpu: 0.60},
			{id: "scan-census", title: "whole scan, big host, 50k legacy rules", against: "pipeline + ss -tan", wall: 0.30, megabytes: 64},
			{id: "scan-nft", title: "whole scan without census, big host, 50k nft rules in one chain", against: "pipeline", wall: 0.55, cpu: 0.65, megabytes: 64},
		},
		measure: measureBig,
	},
	{
		name: "owners", title: "owners (10,000 processes, 1,000 listeners)",
		size: size{listen: 1000, procs: 10_000},
		gates: []gate{
			{id: "owners-proc", title: "socket owners by /proc, 10k processes", against: "ss -tlnp", cpu: 0.75},
			{id: "owners-bpf", title: "socket owners by BPF, 10k processes", against: "ss -tlnp", cpu: 0.30, full: true},
			{id: "owners-netstat", title: "socket owners by BPF, 10k processes", against: "netstat -tlnp", wall: 1, cpu: 1, full: true},
			{id: "owners-lsof", title: "socket owners by BPF, 10k processes", against: "lsof -nP -iTCP -sTCP:LISTEN", wall: 1, cpu: 1, full: true},
		},
		measure: measureOwners,
	},
	{
		name: "rules", title: "rules (50,000 of each kind, sets of up to a million)",
		size: size{listen: 50, procs: 250, fixed: true, wildcard: true},
		gates: []gate{
			{id: "read-legacy", title: "legacy rules read, 50k", against: "iptables-legacy-save", wall: 0.6},
			{id: "read-nft", title: "nft rules read, 50k in one chain", against: "receive only", wall: 1.25},
			{id: "partitions", title: "exact partitions, 50k rules × 1,000 listeners", against: "subtraction per listener", wall: 0.05},
			{id: "scan-chain", title: "whole scan, 50k nft rules in one chain", against: "pipeline", wall: 0.55, cpu: 0.65},
			{id: "scan-chains-1000", title: "whole scan, 50k nft rules in 1,000 chains", against: "pipeline", wall: 0.55, cpu: 0.65},
			{id: "scan-chains-5000", title: "whole scan, 50k nft rules in 5,000 chains", against: "pipeline", wall: 0.55, cpu: 0.65},
			{id: "scan-set-100k", title: "whole scan, nft set of 100k", against: "pipeline", wall: 0.55, cpu: 0.65},
			{id: "scan-set-1m", title: "whole scan, nft set of 1M", against: "pipeline", wall: 0.55, cpu: 0.65},
			{id: "batch", title: "reach --batch, 10,000 queries, 1,000 rules", seconds: 1},
		},
		measure: measureRules,
	},
	{
		name: "partitions", title: "every partition (1,000 listeners)",
		size: size{listen: 1000, procs: 1000, wildcard: true},
		gates: []gate{
			{id: "whole-legacy-10k", title: "scan with every partition, sampling included, 10k legacy rules", seconds: 2, megabytes: 128},
			{id: "whole-nft-10k", title: "the same, 10k nft rules", seconds: 2, megabytes: 128},
			{id: "whole-legacy-50k", title: "the same, 50k legacy rules", seconds: 4, megabytes: 256},
			{id: "whole-nft-50k", title: "the same, 50k nft rules", seconds: 4, megabytes: 256},
		},
		measure: measureWhole,
	},
	{
		name: "lynis", title: "Lynis",
		size:    size{listen: 50, procs: 250, fixed: true, wildcard: true},
		gates:   []gate{{id: "lynis", title: "whole scan, sampling included", against: "lynis audit system", wall: 0.01}},
		measure: measureLynis,
	},
}
