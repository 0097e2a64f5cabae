package sysctl

func memoryEntries() []*Entry { return nil }
