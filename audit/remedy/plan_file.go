package remedy

// fileLimits and bindAddresses are filled in by the files of the same name.
func (p *planner) fileLimits()    {}
func (p *planner) bindAddresses() {}
