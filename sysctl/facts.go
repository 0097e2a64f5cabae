package sysctl
type Facts struct { Live Values; Kernel Version; InitialNamespace Fact }
type Fact int
const (Unsure Fact = iota; Yes; No)
