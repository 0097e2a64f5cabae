package sysctl

func captureLimits(c *capturer) {}
