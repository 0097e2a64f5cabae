package sockdiag

import "encoding/binary"

// TCPInfo is what the kernel measures of a connection: the part of struct
// tcp_info (include/uapi/linux/tcp.h) that tells how its segments fare. Fields
// that an older kernel does not send are 0.
type TCPInfo struct {
	Retransmits      uint8 // of the oldest segment, in a row
	SendMSS, RecvMSS uint32
	// Unacked and Sacked are segments: sent and not acknowledged, and of those
	// the ones that the peer has all the same (SACK).
	Unacked, Sacked uint32
	// SinceRecv and SinceAck are milliseconds since data or an acknowledgement came.
	SinceRecv, SinceAck uint32
	PathMTU             uint32
	Retransmitted       uint32 // segments, since the connection began
	// Bytes of the payload: acknowledged by the peer, received, sent (with those
	// sent again), sent again.
	BytesAcked, BytesReceived, BytesSent, BytesRetransmitted uint64
	OutOfOrder                                               uint32 // packets that came before an earlier one (Linux 5.4)
}

// tcpInfo reads struct tcp_info, of whatever length the kernel has it.
func tcpInfo(v []byte, order binary.ByteOrder) TCPInfo {
	u32 := func(at int) uint32 {
		if at+4 > len(v) {
			return 0
		}
		return order.Uint32(v[at:])
	}
	u64 := func(at int) uint64 {
		if at+8 > len(v) {
			return 0
		}
		return order.Uint64(v[at:])
	}
	i := TCPInfo{
		SendMSS: u32(16), RecvMSS: u32(20), Unacked: u32(24), Sacked: u32(28), SinceRecv: u32(52), SinceAck: u32(56), PathMTU: u32(60), Retransmitted: u32(100),
		BytesAcked: u64(120), BytesReceived: u64(128), BytesSent: u64(200), BytesRetransmitted: u64(208), OutOfOrder: u32(224),
	}
	if len(v) > 2 {
		i.Retransmits = v[2]
	}
	return i
}
