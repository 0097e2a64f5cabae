package sysctl

func descriptorEntries() []*Entry { return nil }
