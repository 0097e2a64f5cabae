package nft

import (
	"bytes"
	"context"
	"encoding/binary"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// n32 is a number as most attributes hold it.
func n32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

// at is one attribute of an expression.
type at struct {
	typ uint16
	val []byte
}

// expr makes an expression out of attributes.
func expr(name string, attrs ...at) []byte {
	var data []byte
	for _, a := range attrs {
		data = appendAttr(data, a.typ, a.val)
	}
	b := appendString(nil, exprName, name)
	return appendAttr(b, exprData|nested, data)
}

// value is nested data with a value.
func value(b ...byte) []byte { return appendAttr(nil, dataValue, b) }

// word is a number in host byte order, as registers hold it.
func word(v uint32) []byte { return value(binary.NativeEndian.AppendUint32(nil, v)...) }

func acceptExpr() []byte {
	v := appendAttr(nil, verdictCode, n32(1))
	return expr("immediate", at{1, n32(0)}, at{2 | nested, appendAttr(nil, dataVerdict|nested, v)})
}

func loadMeta(key, reg uint32) []byte { return expr("meta", at{2, n32(key)}, at{1, n32(reg)}) }
func loadPayload(base, offset, n, reg uint32) []byte {
	return expr("payload", at{1, n32(reg)}, at{2, n32(base)}, at{3, n32(offset)}, at{4, n32(n)})
}
func compareReg(reg, op uint32, data []byte) []byte {
	return expr("cmp", at{1, n32(reg)}, at{2, n32(op)}, at{3 | nested, data})
}

// handmade are rules that nft 1.0.6 cannot write, or that this kernel cannot
// hold.
var handmade = []struct {
	name  string
	exprs [][]byte
	want  string
	text  string
}{
	{"load without comparison", [][]byte{loadPayload(2, 100, 4, 1), acceptExpr()}, "payload@2,100,4?; accept", "accept"},
	{"sixteen and four byte registers are the same", [][]byte{loadPayload(1, 12, 8, 1),
		compareReg(9, cmpEQ, value(10, 0, 0, 2)), acceptExpr()}, "payload@1,16,4{0xa000002}; accept", ""},
	{"both addresses in one comparison", [][]byte{loadMeta(metaNFProto, 1), compareReg(1, cmpEQ, value(2)), loadPayload(1, 12, 8, 1),
		compareReg(1, cmpEQ, value(10, 0, 0, 1, 10, 0, 0, 2)), acceptExpr()}, "nfproto{0x2}; saddr{0xa000001}; daddr{0xa000002}; accept",
		"ip saddr 10.0.0.1 ip daddr 10.0.0.2 accept"},
	{"not both addresses", [][]byte{loadMeta(metaNFProto, 1), compareReg(1, cmpEQ, value(2)), loadPayload(1, 12, 8, 1),
		compareReg(1, cmpNEQ, value(10, 0, 0, 1, 10, 0, 0, 2)), acceptExpr()}, "nfproto{0x2}; !(saddr{0xa000001} & daddr{0xa000002}); accept", ""},
	{"not both ports", [][]byte{loadMeta(metaL4Proto, 1), compareReg(1, cmpEQ, value(6)), loadPayload(2, 0, 4, 1),
		compareReg(1, cmpNEQ, value(0, 1, 0, 2)), acceptExpr()}, "l4proto{0x6}; sport?; dport?; !(sport{0x1} & dport{0x2}); accept", ""},
	{"addresses without a guard stay bytes", [][]byte{loadPayload(1, 12, 4, 1), compareReg(1, cmpEQ, value(10, 0, 0, 1)), acceptExpr()},
		"payload@1,12,4{0xa000001}; accept", "@nh,96,32 0xa000001 accept"},
	{"a comparison that never holds", [][]byte{loadMeta(metaMark, 1),
		expr("bitwise", at{1, n32(1)}, at{2, n32(1)}, at{3, n32(4)}, at{4 | nested, word(0xff)}, at{5 | nested, word(0)}),
		compareReg(1, cmpEQ, word(0x100)), acceptExpr()}, "nfproto{}; accept", ""},
	{"bitwise or of a register", [][]byte{loadMeta(metaMark, 1), expr("immediate", at{1, n32(2)}, at{2 | nested, word(0x10)}),
		expr("bitwise", at{1, n32(1)}, at{2, n32(1)}, at{3, n32(4)}, at{6, n32(4)}, at{8, n32(2)}),
		expr("meta", at{2, n32(metaMark)}, at{3, n32(1)})}, "set mark mark&0xffffffef^0x10", ""},
	{"bitwise of two fields", [][]byte{loadMeta(metaMark, 1), expr("ct", at{2, n32(ctMark)}, at{1, n32(2)}),
		expr("bitwise", at{1, n32(1)}, at{2, n32(1)}, at{3, n32(4)}, at{6, n32(5)}, at{8, n32(2)}),
		expr("meta", at{2, n32(metaMark)}, at{3, n32(1)})}, "ctmark?; set mark nowhere (two fields combined bit by bit)", ""},
	{"shift right", [][]byte{loadMeta(metaMark, 1),
		expr("bitwise", at{1, n32(1)}, at{2, n32(1)}, at{3, n32(4)}, at{6, n32(2)}, at{7 | nested, word(16)}),
		compareReg(1, cmpEQ, word(5)), acceptExpr()}, "mark&0xffff0000>>16{0x5}; accept", "meta mark >> 16 0x00000005 accept"},
	{"a value read before it was changed", [][]byte{loadMeta(metaMark, 1), expr("immediate", at{1, n32(2)}, at{2 | nested, word(7)}),
		expr("meta", at{2, n32(metaMark)}, at{3, n32(2)}), compareReg(1, cmpEQ, word(7)), acceptExpr()},
		"set mark 0x7; opaque cmp (a value that was read before the rule changed it); accept", ""},
	{"set, then read", [][]byte{expr("immediate", at{1, n32(2)}, at{2 | nested, word(7)}), expr("meta", at{2, n32(metaMark)}, at{3, n32(2)}),
		loadMeta(metaMark, 1), compareReg(1, cmpEQ, word(7)), acceptExpr()}, "set mark 0x7; mark{0x7}; accept", "meta mark set 0x00000007 meta mark 0x00000007 accept"},
	{"host order compared by memcmp", [][]byte{loadMeta(metaMark, 1), compareReg(1, cmpLT, word(5)), acceptExpr()},
		"opaque cmp (a comparison of bytes that are not in network order); accept", ""},
	{"an unwritten register", [][]byte{compareReg(2, cmpEQ, value(1)), acceptExpr()},
		"opaque cmp (a register that no expression of the rule has written); accept", ""},
	{"range", [][]byte{loadMeta(metaL4Proto, 1), compareReg(1, cmpEQ, value(6)), loadPayload(2, 2, 2, 1),
		expr("range", at{1, n32(1)}, at{2, n32(0)}, at{3 | nested, value(0, 1)}, at{4 | nested, value(0, 9)}), acceptExpr()},
		"l4proto{0x6}; dport{0x1-0x9}; accept", "tcp dport 1-9 accept"},
	{"an empty range", [][]byte{loadMeta(metaL4Proto, 1), expr("range", at{1, n32(1)}, at{2, n32(0)}, at{3 | nested, value(9)}, at{4 | nested, value(1)}), acceptExpr()},
		"l4proto{}; accept", ""},
	{"sdif", [][]byte{loadMeta(metaSDIF, 1), compareReg(1, cmpEQ, word(3)), acceptExpr()}, "unknown[the VRF that the packet came through]{0x3}; accept", ""},
	{"a meta key of tomorrow", [][]byte{loadMeta(77, 1), compareReg(1, cmpEQ, value(bytes.Repeat([]byte{1}, 16)...)), acceptExpr()},
		"unknown[meta key 77, which the model does not know]{0x1010101010101010101010101010101}; accept", ""},
	{"an expression of tomorrow", [][]byte{expr("oracle", at{1, n32(1)}), acceptExpr()},
		"OPAQUE oracle (the expression oracle, which the model does not know); accept", "oracle ? accept"},
	{"an attribute of tomorrow", [][]byte{expr("counter", at{9, n32(1)}), acceptExpr()},
		"OPAQUE counter (a form of the expression counter that the model does not know); accept", ""},
	{"after what is not known registers are not known", [][]byte{loadMeta(metaMark, 1), expr("oracle"), compareReg(1, cmpEQ, word(3)), acceptExpr()},
		"OPAQUE oracle (the expression oracle, which the model does not know); " +
			"opaque cmp (a value that the expression oracle, which the model does not know may have changed); accept", ""},
	{"queue", [][]byte{expr("queue", at{1, []byte{0, 3}}, at{2, []byte{0, 2}}, at{3, []byte{0, 1}})}, "queue 3-4 bypass=true", "queue flags bypass to 3-4"},
	{"queue by register", [][]byte{expr("numgen", at{1, n32(1)}, at{2, n32(4)}, at{3, n32(1)}, at{4, n32(0)}), expr("queue", at{4, n32(1)}, at{3, []byte{0, 0}})},
		"queue 0-65535 bypass=false", "queue to numgen random mod 4"},
	{"flow add at the end", [][]byte{expr("flow_offload", at{1, []byte("ft\x00")})}, "inert flow add", "flow add @ft"},
	{"flow add before a verdict", [][]byte{expr("flow_offload", at{1, []byte("ft\x00")}), acceptExpr()},
		"opaque flow add (whether the flow goes into the flowtable); accept", "flow add @ft accept"},
	{"fwd", [][]byte{expr("immediate", at{1, n32(1)}, at{2 | nested, word(3)}), expr("fwd", at{1, n32(1)})}, "stolen", "fwd to 3"},
	{"last", [][]byte{expr("last", at{1, n32(0)}), acceptExpr()}, "inert last; accept", "last used never accept"},
	{"inner", [][]byte{expr("inner", at{1, n32(0)}, at{2, n32(1)}, at{3, n32(3)}, at{4, n32(8)}, at{5 | nested, loadMeta(metaL4Proto, 1)}),
		compareReg(1, cmpEQ, value(6)), acceptExpr()},
		"opaque inner (a header inside a tunnel); opaque cmp (a header inside a tunnel); accept", ""},
	{"socket cgroup", [][]byte{expr("socket", at{1, n32(3)}, at{2, n32(1)}, at{3, n32(2)}), compareReg(1, cmpEQ, value(1, 0, 0, 0, 0, 0, 0, 0)), acceptExpr()},
		"socket:3[the control group of the socket]{0x1}; accept", "socket cgroupv2 level 2 1 accept"},
	{"a cut attribute", [][]byte{append(expr("counter"), 9, 0)}, "OPAQUE counter (a form of the expression counter that the model does not know)", ""},
}

// TestHandmade: expressions as bytes, and where the kernel takes them as it
// gives them back.
func TestHandmade(t *testing.T) {
	t.Run("bytes", func(t *testing.T) {
		for _, h := range handmade {
			d := newDecoder()
			lower(t, d, h.exprs)
			r := d.tables[0].table.Chains[0].Rules[0]
			if got := showRule(r); got != h.want {
				t.Errorf("%s\n got %s\nwant %s", h.name, got, h.want)
			}
			if got := r.Text(); h.text != "" && got != h.text {
				t.Errorf("%s\n got %s\nwant %s", h.name, got, h.text)
			}
		}
	})
	t.Run("kernel", func(t *testing.T) {
		needTools(t, "nft")
		inNetns(t)
		load(t, "add table inet t\nadd chain inet t c\n")
		taken := 0
		for _, h := range handmade {
			if err := addRule(h.exprs); err != nil {
				t.Logf("%s: the kernel says %v", h.name, err)
				continue
			}
			taken++
			if strings.Contains(h.want, "model does not know") {
				load(t, "flush chain inet t c\n")
				continue // the kernel of today leaves out what it does not know
			}
			r := read(t, Options{}).Tables[0].Chains[0].Rules[0]
			if got := showRule(r); got != h.want {
				t.Errorf("%s\n got %s\nwant %s", h.name, got, h.want)
			}
			load(t, "flush chain inet t c\n")
		}
		if taken < 12 {
			t.Errorf("the kernel took only %d of them", taken)
		}
	})
}

// lower makes a table inet t with a chain c that has one rule.
func lower(t testing.TB, d *decoder, exprs [][]byte) {
	t.Helper()
	family := []byte{nfprotoInet, 0, 0, 0}
	if err := d.table(append(family, appendString(nil, tableName, "t")...)); err != nil {
		t.Fatal(err)
	}
	msg := appendString(append([]byte(nil), family...), chainTable, "t")
	if err := d.chain(appendString(msg, chainName, "c")); err != nil {
		t.Fatal(err)
	}
	if err := d.rule(append(family[:4:4], ruleAttrs(exprs)...)); err != nil {
		t.Fatal(err)
	}
}

func ruleAttrs(exprs [][]byte) []byte {
	var list []byte
	for _, e := range exprs {
		list = appendAttr(list, listElem|nested, e)
	}
	b := appendString(nil, ruleTable, "t")
	b = appendString(b, ruleChain, "c")
	return appendAttr(b, ruleExpressions|nested, list)
}

// addRule gives a rule to the kernel in a batch of its own.
func addRule(exprs [][]byte) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var b []byte
	put := func(typ, flags uint16, family byte, resource uint16, attrs []byte) {
		b = binary.NativeEndian.AppendUint32(b, uint32(nlmsgHeader+nfgenLen+len(attrs)))
		b = binary.NativeEndian.AppendUint16(b, typ)
		b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|flags)
		b = binary.NativeEndian.AppendUint32(b, 1)
		b = binary.NativeEndian.AppendUint32(b, 0)
		b = append(b, family, 0)
		b = binary.BigEndian.AppendUint16(b, resource)
		b = append(b, attrs...)
	}
	put(unix.NFNL_MSG_BATCH_BEGIN, 0, 0, subsysTables, nil)
	put(subsysTables<<8|unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND|unix.NLM_F_ACK, nfprotoInet, 0, ruleAttrs(exprs))
	put(unix.NFNL_MSG_BATCH_END, 0, 0, subsysTables, nil)
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, receiveSize)
	n, _, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return err
	}
	if n < nlmsgHeader+4 {
		return errShort
	}
	return message{payload: buf[nlmsgHeader:n]}.status()
}

// TestDeviceWildcard: a chain on all devices whose name begins so, which
// kernels since 6.16 know (NFTA_DEVICE_PREFIX).
func TestDeviceWildcard(t *testing.T) {
	hook := appendAttr(nil, hookNum, n32(0))
	hook = appendAttr(hook, hookPriority, n32(0xffffffff))
	devs := appendString(nil, deviceName, "eth0")
	devs = appendAttr(devs, devicePrefix, []byte("wg\x00"))
	hook = appendAttr(hook, hookDevs|nested, devs)
	base, err := decodeHook("netdev", hook)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(base.Devices, " "); got != "eth0 wg*" || base.Priority != -1 {
		t.Errorf("devices %q, priority %d", got, base.Priority)
	}
	if _, err := decodeHook("netdev", appendAttr(nil, hookDevs|nested, appendString(nil, 9, "x"))); err == nil {
		t.Error("a device of an unknown kind was taken")
	}
	if _, err := Read(context.Background(), failing{unix.EBADMSG}, Options{}); err == nil {
		t.Error("an error was taken for an empty ruleset")
	}
}
