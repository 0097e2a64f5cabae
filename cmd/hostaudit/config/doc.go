// Package config reads what the operator configured: files, the environment and
// flags, later over earlier, merged by viper.
//
// It is strict: an unknown key, a key that stands twice, a wrong type, an
// impossible value is an [Error] that names the place. The YAML nodes are
// validated here, because viper keeps no line numbers. Files are bounded, may
// hold no anchors or aliases, and are refused for root where somebody else could
// have written them.
package config
