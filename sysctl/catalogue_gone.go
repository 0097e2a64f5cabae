package sysctl

func goneEntries() []*Entry { return nil }
