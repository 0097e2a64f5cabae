package firewall

// compiledChain is what the evaluator derives from a chain once.
type compiledChain struct{}
