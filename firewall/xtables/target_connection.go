package xtables

import "github.com/hostaudit/hostaudit/firewall"

// targetNotrack is notrack_tg.
func targetNotrack(*Context, []byte) []firewall.Stmt { return one(&firewall.Notrack{}) }

// Flags of xt_CT (XT_CT_*).
const (
	ctNotrack      = 1 << 0
	ctNotrackAlias = 1 << 1
	ctZoneDirOrig  = 1 << 2
	ctZoneDirRepl  = 1 << 3
	ctZoneMark     = 1 << 4
)

// targetCT is xt_ct_target: notrack, or a template for the connection.
func targetCT(_ *Context, b []byte) []firewall.Stmt {
	flags := u16(b, 0)
	if flags&ctNotrack != 0 {
		return one(&firewall.Notrack{})
	}
	to := &firewall.CTTemplate{Zone: u16(b, 2), Helper: cstring(b[12:28]), ZoneOfMark: flags&ctZoneMark != 0}
	switch flags & (ctZoneDirOrig | ctZoneDirRepl) { // xt_ct_flags_to_dir
	case ctZoneDirOrig:
		to.Dir = firewall.ZoneOriginal
	case ctZoneDirRepl:
		to.Dir = firewall.ZoneReply
	}
	return one(to)
}

// Modes of xt_CONNMARK.
const (
	connmarkSet = iota
	connmarkSave
	connmarkRestore
)

func targetConnmark1(_ *Context, b []byte) []firewall.Stmt {
	return connmark(b, b[12], 0)
}

// targetConnmark2 is revision 2, which shifts.
func targetConnmark2(_ *Context, b []byte) []firewall.Stmt {
	shift := int(b[13])
	if b[12] == 0 {
		shift = -shift
	}
	return connmark(b, b[14], shift)
}

// connmark is connmark_tg_shift; a positive shift is to the right.
func connmark(b []byte, mode uint8, shift int) []firewall.Stmt {
	ctMark, ctMask, nfMask := u32(b, 0), u32(b, 4), u32(b, 8)
	shifted := func(k firewall.FieldKind, mask uint32) firewall.Source {
		op := firewall.Masked(k, 4, firewall.Num(uint64(mask)))
		op.Shift, op.HostOrder = shift, true
		return &firewall.FromField{Operand: op}
	}
	switch {
	case mode == connmarkSet && shift == 0:
		return one(&firewall.SetField{Kind: firewall.FieldCTMark, From: number(uint64(ctMark)), Keep: keepBut(ctMask)})
	case mode == connmarkSet:
		// The sum of old and new bits is shifted.
		return one(&firewall.SetField{Kind: firewall.FieldCTMark, From: firewall.FromNowhere{Why: "a connection mark that CONNMARK shifts"}})
	case mode == connmarkSave && shift == 0:
		return one(&firewall.Connmark{ToConnection: true, CTMask: ctMask, NFMask: nfMask})
	case mode == connmarkSave:
		return one(&firewall.SetField{Kind: firewall.FieldCTMark, From: shifted(firewall.FieldMark, nfMask), Keep: keepBut(ctMask)})
	case mode == connmarkRestore && shift == 0:
		return one(&firewall.Connmark{CTMask: ctMask, NFMask: nfMask})
	case mode == connmarkRestore:
		return one(&firewall.SetField{Kind: firewall.FieldMark, From: shifted(firewall.FieldCTMark, ctMask), Keep: keepBut(nfMask)})
	default:
		return inert("CONNMARK", "mode %d, which does nothing", mode)
	}
}

// keepBut is the mask of the bits that are kept when mask is cleared; nil when
// none are.
func keepBut(mask uint32) *firewall.Value {
	if mask == 0xffffffff {
		return nil
	}
	v := firewall.Num(uint64(^mask))
	return &v
}

func targetConnsecmark(_ *Context, b []byte) []firewall.Stmt {
	if b[0] == 2 {
		return inert("CONNSECMARK", "restore")
	}
	return inert("CONNSECMARK", "save")
}
