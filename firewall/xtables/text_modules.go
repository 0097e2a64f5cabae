package xtables

// matchAlias and targetAlias name modules that are printed by another name.
var matchAlias = map[string]func(Ext) string{}

var targetAlias = map[string]func(Ext) string{}

var matchSavers = map[string][]saver{}

var targetSavers = map[string][]saver{}
