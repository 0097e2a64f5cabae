package xtables

import "strconv"

// saver prints the options of one revision of a module, as its save function
// in iptables does. size is the least number of bytes it touches.
type saver struct {
	rev  uint8
	size int
	save func(p *printer, b []byte)
}

func (p *printer) match(m Ext) {
	name := m.Name
	if alias, ok := matchAlias[name]; ok {
		name = alias(m)
	}
	p.word("-m", name)
	p.ext(m, matchSavers)
}

func (p *printer) target(t Ext) {
	name := t.Name
	if alias, ok := targetAlias[name]; ok {
		name = alias(t)
	}
	p.word("-j", name)
	p.ext(t, targetSavers)
}

func (p *printer) ext(e Ext, savers map[string][]saver) {
	for _, s := range savers[e.Name] {
		if s.rev == e.Rev && len(e.Info) >= s.size {
			if s.save != nil {
				s.save(p, e.Info)
			}
			return
		}
	}
	p.word("[revision", strconv.Itoa(int(e.Rev))+",", hexBytes(e.Info)+"]")
}
