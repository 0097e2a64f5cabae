package sysctl
func captureBoot(c *capturer) {}
