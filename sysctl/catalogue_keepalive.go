package sysctl

func keepaliveEntries() []*Entry { return nil }
