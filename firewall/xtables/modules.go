package xtables

// matches are the modules that are known, by name and revision, with the least
// size of their structs.
var matches = map[string][]decoder{
	// Ports and transport headers.
	"tcp":       {{0, 12, matchTCP}},
	"udp":       {{0, 9, matchUDP}},
	"udplite":   {{0, 9, matchUDP}},
	"sctp":      {{0, 292, matchSCTP}},
	"dccp":      {{0, 15, matchDCCP}},
	"icmp":      {{0, 4, matchICMP}},
	"icmp6":     {{0, 4, matchICMPv6}},
	"multiport": {{0, 32, matchMultiport0}, {1, 48, matchMultiport1}},
	"esp":       {{0, 9, matchESP}},
	"ah":        {{0, 9, matchAH}},
	"ipcomp":    {{0, 10, matchIPComp}},
	"l2tp":      {{0, 11, matchL2TP}},

	// The connection.
	"state":     {{0, 4, matchState}},
	"conntrack": {{1, 152, matchConntrack1}, {2, 154, matchConntrack2}, {3, 162, matchConntrack3}},
	"connmark":  {{1, 9, matchConnmark}},
	"connlabel": {{0, 4, matchConnlabel}},
	"connbytes": {{0, 18, matchConnbytes}},
	"connlimit": {{0, 20, matchConnlimit0}, {1, 24, matchConnlimit1}},
	"helper":    {{0, 34, matchHelper}},

	// Addresses, interfaces and the way.
	"addrtype": {{0, 12, matchAddrtype0}, {1, 8, matchAddrtype1}},
	"iprange":  {{1, 65, matchIPRange}},
	"mac":      {{0, 12, matchMAC}},
	"physdev":  {{0, 66, matchPhysdev}},
	"pkttype":  {{0, 8, matchPktType}},
	"devgroup": {{0, 20, matchDevgroup}},
	"rpfilter": {{0, 1, matchRPFilter}},
	"policy":   {{0, 308, matchPolicy}},
	"realm":    {{0, 9, matchRealm}},
	"mark":     {{1, 9, matchMark}},
	"cpu":      {{0, 8, matchCPU}},
	"cluster":  {{0, 16, matchCluster}},
	"ipvs":     {{0, 40, matchIPVS}},

	// The socket behind a packet.
	"owner":  {{1, 18, matchOwner}},
	"socket": {{0, 0, matchSocket0}, {1, 1, matchSocket}, {2, 1, matchSocket}, {3, 1, matchSocket}},
	"cgroup": {{0, 8, matchCgroup0}, {1, 4104, matchCgroup1}, {2, 516, matchCgroup2}},

	// Sets and lists.
	"set":    {{0, 32, matchSet0}, {1, 4, matchSet1}, {2, 4, matchSet1}, {3, 44, matchSet3}, {4, 44, matchSet4}},
	"recent": {{0, 211, matchRecent}, {1, 228, matchRecent}},

	// Rates, counts, chance and time.
	"limit":     {{0, 8, matchLimit}},
	"hashlimit": {{1, 46, matchHashlimit1}, {2, 294, matchHashlimit2}, {3, 298, matchHashlimit3}},
	"quota":     {{0, 16, matchQuota}},
	"statistic": {{0, 16, matchStatistic}},
	"time":      {{0, 22, matchTime}},
	"rateest":   {{0, 52, matchRateest}},
	"nfacct":    {{0, 32, matchNFAcct}, {1, 32, matchNFAcct}},

	// The IP header and its extensions.
	"ttl":        {{0, 2, matchTTL}},
	"hl":         {{0, 2, matchHL}},
	"length":     {{0, 5, matchLength}},
	"dscp":       {{0, 2, matchDSCP}},
	"tos":        {{1, 3, matchTOS}},
	"ecn":        {{0, 4, matchECN}},
	"tcpmss":     {{0, 5, matchTCPMSS}},
	"frag":       {{0, 14, matchFrag}},
	"rt":         {{0, 277, matchRT}},
	"hbh":        {{0, 39, matchHopByHop}},
	"dst":        {{0, 39, matchDstOpts}},
	"mh":         {{0, 3, matchMH}},
	"ipv6header": {{0, 3, matchIPv6Header}},
	"srh":        {{0, 10, matchSRH}, {1, 108, matchSRH}},
	"eui64":      {{0, 0, matchEUI64}},

	// The content, and programs.
	"string":  {{0, 149, matchString}, {1, 149, matchString}},
	"u32":     {{0, 2, matchU32}},
	"bpf":     {{0, 2, matchBPF}, {1, 8, matchBPF}},
	"osf":     {{0, 48, matchOSF}},
	"comment": {{0, 0, matchComment}},
}

// targets are the targets that are known. Verdicts and jumps are not among
// them: those are the standard target.
var targets = map[string][]decoder{
	// Ends.
	"REJECT":   {{0, 4, targetReject}},
	"NFQUEUE":  {{0, 2, targetNFQueue0}, {1, 4, targetNFQueue1}, {2, 6, targetNFQueue2}, {3, 6, targetNFQueue2}},
	"SYNPROXY": {{0, 4, targetSynproxy}},
	"TPROXY":   {{0, 14, targetTProxy0}, {1, 26, targetTProxy1}},

	// Translation.
	"DNAT":       {{0, 20, targetDNAT0}, {1, 40, targetDNAT1}, {2, 42, targetDNAT2}},
	"SNAT":       {{0, 20, targetSNAT0}, {1, 40, targetSNAT1}, {2, 42, targetSNAT2}},
	"MASQUERADE": {{0, 20, targetMasquerade}},
	"REDIRECT":   {{0, 20, targetRedirect}},
	"NETMAP":     {{0, 20, targetNetmap}},
	"DNPT":       {{0, 34, targetNPT}},
	"SNPT":       {{0, 34, targetNPT}},
	"CLUSTERIP":  {{0, 16, targetClusterIP}},

	// The connection.
	"NOTRACK":     {{0, 0, targetNotrack}},
	"CT":          {{0, 28, targetCT}, {1, 60, targetCT}, {2, 60, targetCT}},
	"CONNMARK":    {{1, 13, targetConnmark1}, {2, 15, targetConnmark2}},
	"CONNSECMARK": {{0, 1, targetConnsecmark}},

	// Marks, sets, priorities.
	"MARK":     {{0, 4, targetMark0}, {1, 9, targetMark1}, {2, 8, targetMark2}},
	"HMARK":    {{0, 56, targetHMark}},
	"SECMARK":  {{0, 8, targetSecmark}, {1, 260, targetSecmark}},
	"CLASSIFY": {{0, 4, targetClassify}},
	"SET":      {{0, 64, targetSet0}, {1, 8, targetSet1}, {2, 16, targetSet2}, {3, 20, targetSet3}},

	// Changes of headers.
	"TTL":         {{0, 2, targetTTL}},
	"HL":          {{0, 2, targetTTL}},
	"TCPMSS":      {{0, 2, targetTCPMSS}},
	"TCPOPTSTRIP": {{0, 32, targetTCPOptStrip}},
	"DSCP":        {{0, 1, targetDSCP}},
	"TOS":         {{1, 2, targetTOS}},
	"ECN":         {{0, 3, targetECN}},
	"CHECKSUM":    {{0, 1, targetChecksum}},

	// Notes and copies.
	"LOG":       {{0, 32, targetLog}},
	"NFLOG":     {{0, 76, targetNFLog}},
	"ULOG":      {{0, 0, targetInert("ULOG")}},
	"TRACE":     {{0, 0, targetInert("TRACE")}},
	"AUDIT":     {{0, 1, targetInert("AUDIT")}},
	"LED":       {{0, 0, targetInert("LED")}},
	"IDLETIMER": {{0, 0, targetInert("IDLETIMER")}, {1, 0, targetInert("IDLETIMER")}},
	"RATEEST":   {{0, 0, targetInert("RATEEST")}},
	"TEE":       {{0, 0, targetInert("TEE")}, {1, 0, targetInert("TEE")}},
}
