package nft

// nft keeps the type of a set's key and data in the kernel, six bits for each
// part of a concatenation (nftables src/datatype.c, enum datatypes).
const typeBits = 6

// typeSize is the size of a value of one of nft's datatypes in bytes, 0 where
// it varies.
func typeSize(t uint32) int {
	switch t {
	case 2, 12, 14, 15, 16, 17, 27, 29, 31, 32, 33, 34, 36, 37, 39, 42, 45:
		return 1
	case 10, 11, 13, 21:
		return 2
	case 7, 19, 20, 22, 23, 24, 25, 26, 28, 35, 38, 40:
		return 4
	case 9:
		return 6
	case 18, 43, 46:
		return 8
	case 8, 30, 41:
		return 16
	default:
		return 0
	}
}
