package xtables

import (
	"fmt"
	"strings"
	"time"
)

func saveLimit(p *printer, b []byte) {
	p.word("--limit", rateText(uint64(u32(b, 0)), limitScale))
	if n := u32(b, 4); n != 5 {
		p.f(" --limit-burst %d", n)
	}
}

func saveHashlimit1(p *printer, b []byte) { p.hashlimit(hashlimit1(b)) }
func saveHashlimit2(p *printer, b []byte) { p.hashlimit(hashlimit2(b)) }
func saveHashlimit3(p *printer, b []byte) { p.hashlimit(hashlimit3(b)) }

func (p *printer) hashlimit(h hashlimitInfo) {
	opt := "--hashlimit-upto"
	if h.mode&hashInvert != 0 {
		opt = "--hashlimit-above"
	}
	p.word(opt)
	// The default life of an entry, which is not printed, follows from the unit.
	var expire uint64
	if h.mode&hashBytes != 0 {
		expire = p.byteRate(h)
	} else {
		rate := rateText(h.avg, h.scale)
		p.word(rate)
		p.f(" --hashlimit-burst %d", h.burst)
		switch _, unit, _ := strings.Cut(rate, "/"); unit {
		case "day":
			expire = 24 * 60 * 60 * 1000
		case "hour":
			expire = 60 * 60 * 1000
		case "min":
			expire = 60 * 1000
		case "sec":
			expire = 1000
		}
	}
	var modes []string
	for _, m := range []struct {
		bit  uint32
		name string
	}{{hashSrcIP, "srcip"}, {hashSrcPort, "srcport"}, {hashDstIP, "dstip"}, {hashDstPort, "dstport"}} {
		if h.mode&m.bit != 0 {
			modes = append(modes, m.name)
		}
	}
	if modes != nil {
		p.word("--hashlimit-mode", strings.Join(modes, ","))
	}
	p.word("--hashlimit-name", h.name)
	if h.size != 0 {
		p.f(" --hashlimit-htable-size %d", h.size)
	}
	if h.max != 0 {
		p.f(" --hashlimit-htable-max %d", h.max)
	}
	if h.gc != 1000 {
		p.f(" --hashlimit-htable-gcinterval %d", h.gc)
	}
	if uint64(h.expire) != expire {
		p.f(" --hashlimit-htable-expire %d", h.expire)
	}
	if full := uint8(8 * p.addrLen()); h.srcMask != full || h.dstMask != full {
		if h.srcMask != full {
			p.f(" --hashlimit-srcmask %d", h.srcMask)
		}
		if h.dstMask != full {
			p.f(" --hashlimit-dstmask %d", h.dstMask)
		}
	}
	if h.rev == 3 && h.mode&hashRateMatch != 0 {
		p.word("--hashlimit-rate-match")
		if h.interval != 1 {
			p.f(" --hashlimit-rate-interval %d", h.interval)
		}
	}
}

// byteRate prints a limit in bytes. The kernel keeps the cost of 16 bytes.
func (p *printer) byteRate(h hashlimitInfo) uint64 {
	const shift = 4 // XT_HASHLIMIT_BYTE_SHIFT
	rate := uint64(0xffffffff)
	if h.avg != 0 {
		rate = 0xffffffff / h.avg
	}
	rate = (rate - 1) << shift
	units := [...]struct {
		name string
		size uint64
	}{{"m", 1 << 20}, {"k", 1 << 10}, {"", 1}}
	i := 0
	for ; i < len(units)-1; i++ {
		whole := rate &^ (units[i].size - 1)
		if rate >= units[i].size && 0xffffffff/(whole>>shift&0xffffffff+1) == h.avg {
			break
		}
	}
	p.f(" %d%sb/s", rate/units[i].size, units[i].name)
	if h.burst == 0 {
		return 15 * 1000
	}
	rate *= h.burst
	i = 0
	for i < len(units)-1 && rate < units[i].size {
		i++
	}
	p.f(" --hashlimit-burst %d%sb", rate/units[i].size, units[i].name)
	return 60 * 1000
}

func saveQuota(p *printer, b []byte) { p.number(u32(b, 0)&1 != 0, "--quota", u64(b, 8)) }

func saveStatistic(p *printer, b []byte) {
	invert := u16(b, 2)&1 != 0
	if u16(b, 0) == 0 {
		p.word("--mode", "random")
		p.not(invert)
		p.f(" --probability %.11f", float64(u32(b, 4))/0x80000000)
		return
	}
	p.word("--mode", "nth")
	p.not(invert)
	p.f(" --every %d --packet %d", u32(b, 4)+1, u32(b, 8))
}

var weekDays = []string{"", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"}

func saveTime(p *printer, b []byte) {
	if from, to := u32(b, 8), u32(b, 12); from != 0 || to != 24*60*60-1 {
		p.word("--timestart", clock(from), "--timestop", clock(to))
	}
	if days := u32(b, 16); days != 0xfffffffe {
		var list []string
		for i := 1; i <= 31; i++ {
			if days&(1<<i) != 0 {
				list = append(list, fmt.Sprint(i))
			}
		}
		p.word("--monthdays", strings.Join(list, ","))
	}
	if b[20] != 0xfe {
		p.word("--weekdays", names(uint64(b[20]), weekDays))
	}
	p.date("--datestart", u32(b, 0))
	p.date("--datestop", u32(b, 4))
	p.flagWords(uint32(b[21]), "--kerneltz", "--contiguous")
}

// date prints a date that is not 0.
func (p *printer) date(opt string, at uint32) {
	if at != 0 {
		p.word(opt, time.Unix(int64(at), 0).UTC().Format("2006-01-02T15:04:05"))
	}
}

func saveNFAcct(p *printer, b []byte) {
	p.word("--nfacct-name", "")
	p.text(cstring(b[:32]))
}

// Flags of xt_rateest (XT_RATEEST_MATCH_*).
const (
	rateestInvert = 1 << iota
	rateestAbs
	rateestRel
	rateestDelta
	rateestBPS
	rateestPPS
)

func saveRateest(p *printer, b []byte) {
	flags := u16(b, 32)
	if flags&rateestDelta != 0 {
		p.word("--rateest-delta")
	}
	rates := func() {
		if flags&rateestBPS != 0 {
			p.rateest(b, "bps", bitRate(u32(b, 36)), bitRate(u32(b, 44)))
		}
		if flags&rateestPPS != 0 {
			p.rateest(b, "pps", dec(u32(b, 40)), dec(u32(b, 48)))
		}
	}
	if flags&rateestRel != 0 {
		p.word("--rateest1", cstring(b[:16]))
		rates()
		p.word("--rateest2", cstring(b[16:32]))
		return
	}
	p.word("--rateest", cstring(b[:16]))
	rates()
}

func (p *printer) rateest(b []byte, what, one, two string) {
	flags := u16(b, 32)
	mode := func() {
		p.not(flags&rateestInvert != 0)
		p.word("--rateest-" + word(uint8(u16(b, 34)), "none", "eq", "lt", "gt"))
	}
	if flags&rateestDelta != 0 {
		p.word("--rateest-"+what+"1", one)
		mode()
		p.word("--rateest-" + what + "2")
	} else {
		mode()
		p.word("--rateest-" + what)
	}
	if flags&(rateestAbs|rateestDelta) != 0 {
		p.word(two)
	}
}

// bitRate prints a rate in bytes as bits, in the unit that rateest takes.
func bitRate(v uint32) string {
	f := float64(v) * 8
	switch {
	case f >= 1000*1000000:
		return fmt.Sprintf("%.0fMbit", f/1000000)
	case f >= 1000*1000:
		return fmt.Sprintf("%.0fKbit", f/1000)
	default:
		return fmt.Sprintf("%.0fbit", f)
	}
}
