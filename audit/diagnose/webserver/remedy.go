package webserver

// TLSRemedy is how the port of a line that speaks no TLS comes to speak it.
func (c *Config) TLSRemedy(listen Note) string {
	at := " (" + listen.Place.String() + ")"
	switch c.Program {
	case "nginx":
		return "let nginx end TLS there" + at + ": " + listen.Text + " ssl; ssl_certificate FILE; ssl_certificate_key FILE;"
	case "apache":
		return "let Apache end TLS there, in its virtual host" + at + ": SSLEngine on, SSLCertificateFile FILE, SSLCertificateKeyFile FILE"
	case "haproxy":
		return "let HAProxy end TLS there" + at + ": " + listen.Text + " ssl crt FILE"
	case "caddy":
		return "name the site without http://" + at + ", or give it tls"
	}
	return "let it end TLS there" + at
}

// PlainRemedy is how the port of a line comes to speak no TLS.
func (c *Config) PlainRemedy(listen Note) string {
	at := " (" + listen.Place.String() + ")"
	switch c.Program {
	case "nginx":
		return "take ssl out of the listen lines of the port" + at
	case "apache":
		return "give the virtual host of the port no SSLEngine on" + at
	case "haproxy":
		return "take ssl out of the bind line" + at
	case "caddy":
		return "begin the site's address with http://" + at
	}
	return "open a port without TLS" + at
}
