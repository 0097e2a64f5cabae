package diagnose

import (
	"regexp"
	"strings"
	"sync"

	"github.com/hostaudit/hostaudit/listeners"
)

// Declared is what a process says in its title, or is known for.
type Declared struct {
	Protocol string
	// Internal ports are not for clients: Register and the lanPort of GatewayWorker.
	Internal bool
	// Own is the port that the title names, where this is another one.
	Own    string
	Source string // what it was taken from
	Text   string // host text
}

var workerTitle = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`WorkerMan: worker process\s+(.*?)\s*([a-zA-Z][a-zA-Z0-9]*)://(\S+)`)
})

// programs are servers known by their process name; "" is one that can speak
// several protocols.
var programs = map[string]string{
	"sshd": "ssh", "mysqld": "mysql", "mariadbd": "mysql", "redis-server": "redis", "valkey-server": "redis", "postgres": "postgresql", "memcached": "memcached",
	"php-fpm": "fastcgi", "mongod": "mongodb", "vsftpd": "ftp", "proftpd": "ftp", "master": "smtp", "dovecot": "imap", "beam.smp": "",
}

// declared reads the processes behind a listener.
func declared(l *listeners.Listener) *Declared {
	var inner *Declared
	for _, p := range l.Owners {
		title := strings.TrimSpace(strings.Join(strings.FieldsFunc(string(p.Command), func(r rune) bool { return r == 0 }), " "))
		m := workerTitle().FindStringSubmatch(title)
		if m == nil {
			continue
		}
		d := &Declared{Source: "process title of pid " + itoa(p.PID), Text: title, Protocol: workerScheme(m[2])}
		name := strings.ToLower(m[1])
		if own := m[3][strings.LastIndexByte(m[3], ':')+1:]; own != itoa(int(l.Port())) {
			// Another socket of the same process: the lanPort of a Gateway, or a worker
			// that was started inside. What it speaks the title does not say.
			d.Internal, d.Protocol, d.Own = strings.Contains(name, "gateway"), "", own
			inner = d
			continue
		}
		d.Internal = d.Protocol == SpeaksText && (strings.Contains(name, "register") || l.Port() == 1236)
		return d
	}
	if inner != nil {
		return inner
	}
	for _, p := range l.Owners {
		name, _, _ := strings.Cut(string(p.Comm), ":")
		for known, proto := range programs {
			if proto != "" && (name == known || strings.HasPrefix(name, known) && known == "php-fpm") {
				return &Declared{Source: "process name of pid " + itoa(p.PID), Text: string(p.Comm), Protocol: proto}
			}
		}
	}
	return nil
}

func workerScheme(s string) string {
	switch s = strings.ToLower(s); s {
	case "websocket", "ws":
		return SpeaksWebSocket
	case "http":
		return SpeaksHTTP
	case "text":
		return SpeaksText
	case "frame":
		return SpeaksFrame
	case "ssl", "tls":
		return SpeaksTLS
	case "tcp":
		return SpeaksTCP
	}
	return s
}
