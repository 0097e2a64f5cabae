package firewall

// compiledChain is what the evaluator derives from a chain once.
type compiledChain struct{}

// setIndex is a set's keys in the form that look-ups need.
type setIndex struct{}
