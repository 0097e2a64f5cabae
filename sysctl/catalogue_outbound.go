package sysctl

func outboundEntries() []*Entry { return nil }
