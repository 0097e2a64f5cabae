package xtables

import (
	"fmt"
	"math"
	"strconv"

	"github.com/hostaudit/hostaudit/firewall"
)

// limitScale is XT_LIMIT_SCALE: rates are kept as the time between packets in
// 1/10,000 s. Revisions 2 and 3 of hashlimit use a millionth.
const (
	limitScale      = 10000
	hashlimitScale2 = 1000000
)

// rateText is a rate in the unit that iptables prints it in: the largest in
// which the period between packets still divides well.
func rateText(period, scale uint64) string {
	units := [...]struct {
		name string
		mult uint64
	}{{"day", 24 * 60 * 60}, {"hour", 60 * 60}, {"min", 60}, {"sec", 1}}
	if period == 0 {
		return strconv.FormatFloat(math.Inf(1), 'f', 6, 64)
	}
	i := 1
	for ; i < len(units); i++ {
		m := units[i].mult * scale
		if period > m || m/period < m%period {
			break
		}
	}
	return fmt.Sprintf("%d/%s", units[i-1].mult*scale/period, units[i-1].name)
}

func matchLimit(_ *Context, b []byte) []firewall.Stmt {
	return one(cannotTell("limit", "a rate limit of %s, burst %d", rateText(uint64(u32(b, 0)), limitScale), u32(b, 4)))
}

// hashlimitInfo is struct xt_hashlimit_mtinfo of any revision.
type hashlimitInfo struct {
	name                  string
	mode                  uint32
	avg, burst, scale     uint64
	size, max, gc, expire uint32
	interval              uint32
	srcMask, dstMask      uint8
	rev                   uint8
}

// Modes of xt_hashlimit (XT_HASHLIMIT_*).
const (
	hashDstIP = 1 << iota
	hashDstPort
	hashSrcIP
	hashSrcPort
	hashInvert
	hashBytes
	hashRateMatch
)

func hashlimit1(b []byte) hashlimitInfo {
	return hashlimitInfo{
		rev: 1, name: cstring(b[:16]), mode: u32(b, 16), avg: uint64(u32(b, 20)), burst: uint64(u32(b, 24)), scale: limitScale,
		size: u32(b, 28), max: u32(b, 32), gc: u32(b, 36), expire: u32(b, 40), srcMask: b[44], dstMask: b[45],
	}
}

func hashlimit2(b []byte) hashlimitInfo {
	return hashlimitInfo{
		rev: 2, name: cstring(b[:255]), avg: u64(b, 256), burst: u64(b, 264), scale: hashlimitScale2, mode: u32(b, 272),
		size: u32(b, 276), max: u32(b, 280), gc: u32(b, 284), expire: u32(b, 288), srcMask: b[292], dstMask: b[293],
	}
}

func hashlimit3(b []byte) hashlimitInfo {
	h := hashlimit2(b)
	h.rev, h.interval, h.srcMask, h.dstMask = 3, u32(b, 292), b[296], b[297]
	return h
}

func (h *hashlimitInfo) stmts() []firewall.Stmt {
	rate := rateText(h.avg, h.scale)
	if h.mode&hashBytes != 0 {
		rate = "a number of bytes"
	}
	how := "at most"
	if h.mode&hashInvert != 0 {
		how = "above"
	}
	per := "in all"
	switch m := h.mode & (hashDstIP | hashDstPort | hashSrcIP | hashSrcPort); {
	case m == hashSrcIP:
		per = "per source"
	case m == hashDstIP:
		per = "per destination"
	case m != 0:
		per = "per flow"
	}
	return one(cannotTell("hashlimit", "a rate %s %s, %s (list %s)", how, rate, per, h.name))
}

func matchHashlimit1(_ *Context, b []byte) []firewall.Stmt {
	h := hashlimit1(b)
	return h.stmts()
}

func matchHashlimit2(_ *Context, b []byte) []firewall.Stmt {
	h := hashlimit2(b)
	return h.stmts()
}

func matchHashlimit3(_ *Context, b []byte) []firewall.Stmt {
	h := hashlimit3(b)
	return h.stmts()
}

func matchQuota(_ *Context, b []byte) []firewall.Stmt {
	return one(cannotTell("quota", "whether a quota of %d bytes is used up", u64(b, 8)))
}

// matchStatistic is statistic_mt: a probability of one always matches, none
// never does.
func matchStatistic(_ *Context, b []byte) []firewall.Stmt {
	mode, invert := u16(b, 0), u16(b, 2)&1 != 0
	if mode == 0 {
		p := u32(b, 4)
		switch {
		case p >= 0x80000000 && !invert, p == 0 && invert:
			return always
		case p >= 0x80000000, p == 0:
			return neverStmts()
		}
		f := float64(p) / 0x80000000
		if invert {
			f = 1 - f
		}
		return one(cannotTell("statistic", "chance (probability %.4g)", f))
	}
	every := uint64(u32(b, 4)) + 1
	if every == 1 {
		if invert {
			return neverStmts()
		}
		return always
	}
	return one(cannotTell("statistic", "whether the packet is one of every %d", every))
}

func matchTime(_ *Context, b []byte) []firewall.Stmt {
	return one(cannotTell("time", "the time (%s to %s, or days and dates)", clock(u32(b, 8)), clock(u32(b, 12))))
}

// clock prints seconds of the day.
func clock(s uint32) string { return fmt.Sprintf("%02d:%02d:%02d", s/3600, s/60%60, s%60) }

func matchRateest(_ *Context, b []byte) []firewall.Stmt {
	return one(cannotTell("rateest", "the measured rate %s", cstring(b[:16])))
}

func matchNFAcct(_ *Context, b []byte) []firewall.Stmt {
	return one(cannotTell("nfacct", "the quota of the accounting object %s", cstring(b[:32])))
}

// Flags of xt_recent (XT_RECENT_*).
const (
	recentCheck = 1 << iota
	recentSet
	recentUpdate
	recentRemove
	recentTTL
	recentReap
)

// matchRecent is recent_mt. --set matches always (never when inverted) and writes
// the packet's address to the list; the other operations ask it.
func matchRecent(cx *Context, b []byte) []firewall.Stmt {
	seconds, hits, op, invert := u32(b, 0), u32(b, 4), b[8], b[9] != 0
	name := cstring(b[10:210])
	if op&recentSet != 0 {
		set := []firewall.Stmt{&firewall.SetUpdate{Op: "add", Name: firewall.RecentName(name)}}
		if invert {
			return append(set, neverStmts()...)
		}
		return set
	}
	side := "source"
	if b[210] == 1 {
		side = "destination"
	}
	what := fmt.Sprintf("whether the %s is in the list %s", side, name)
	if hits > 0 {
		what = fmt.Sprintf("whether the %s was seen %d times by the list %s", side, hits, name)
	}
	if seconds > 0 {
		what += fmt.Sprintf(" in the last %d seconds", seconds)
	}
	lists, ok := cx.Sets.(Beside)
	return one(&firewall.RecentMatch{Name: name, Empty: ok && lists.recentEmpty(name), Invert: invert, Why: what})
}
