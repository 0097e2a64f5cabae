package checks

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/listeners"
)

// inner is a kind of server that is made for a trusted network.
type inner struct {
	what string
	// ports it usually listens on, programs that are it.
	ports    []uint16
	programs []string
	// open: it takes orders from anybody who can connect, in its usual
	// configuration; why says so.
	open string
	// named: the port alone proves nothing, the program must be known.
	named bool
}

var inners = []inner{
	{what: "MySQL or MariaDB", ports: []uint16{3306, 33060}, programs: []string{"mysqld", "mariadbd"}},
	{what: "PostgreSQL", ports: []uint16{5432}, programs: []string{"postgres", "postmaster", "pgbouncer"}},
	{what: "Redis", ports: []uint16{6379, 6380, 26379}, programs: []string{"redis-server", "redis-sentinel", "valkey-server", "keydb-server"}},
	{what: "memcached", ports: []uint16{11211}, programs: []string{"memcached"}, open: "memcached knows no users: whoever connects reads and writes everything"},
	{what: "MongoDB", ports: []uint16{27017, 27018, 27019}, programs: []string{"mongod", "mongos"}},
	{what: "Elasticsearch or OpenSearch", ports: []uint16{9200, 9300}},
	{what: "CouchDB", ports: []uint16{5984}},
	{what: "Cassandra", ports: []uint16{9042, 7000, 7199}},
	{what: "ClickHouse", ports: []uint16{8123, 9009}, programs: []string{"clickhouse-serv", "clickhouse-server"}},
	{what: "InfluxDB", ports: []uint16{8086}, programs: []string{"influxd"}},
	{what: "SQL Server", ports: []uint16{1433}, programs: []string{"sqlservr"}},
	{what: "Oracle", ports: []uint16{1521}, programs: []string{"tnslsnr"}},
	{what: "etcd", ports: []uint16{2379, 2380}, programs: []string{"etcd"}},
	{what: "ZooKeeper", ports: []uint16{2181}},
	{what: "Consul", ports: []uint16{8500}, programs: []string{"consul"}},
	{what: "Kafka", ports: []uint16{9092}},
	{what: "RabbitMQ's management or Erlang's port mapper", ports: []uint16{4369, 15672, 25672}, programs: []string{"epmd"}},
	{what: "the Docker API", ports: []uint16{2375}, programs: []string{"dockerd"}, open: "without TLS whoever connects is root on this host"},
	{what: "PHP-FPM", programs: []string{"php-fpm"}, open: "FastCGI knows no users: whoever connects runs code"},
	{what: "the kubelet's read-only port", ports: []uint16{10255}, programs: []string{"kubelet"}},
	{what: "rpcbind", ports: []uint16{111}, programs: []string{"rpcbind"}},
	{what: "GatewayWorker's register service", ports: []uint16{1236}, programs: []string{"php"}, named: true, open: "without a secret key whoever connects takes part as a gateway and controls all connections"},
}

// is says whether the port is served by this kind, and whether the program
// proves it.
func (in inner) is(port *audit.Port) (is, proven bool) {
	name := ""
	if proc := port.Process(); proc != nil {
		name = string(proc.Comm)
	}
	byName := slices.ContainsFunc(in.programs, func(p string) bool { return name == p || strings.HasPrefix(name, p) && len(p) > 3 })
	byPort := slices.Contains(in.ports, port.Number())
	if in.named || len(in.ports) == 0 {
		return byName && (byPort || len(in.ports) == 0), byName
	}
	if byName && len(in.ports) > 0 && name == "dockerd" && !byPort {
		return false, false // dockerd proxies published ports as well
	}
	return byName || byPort, byName
}

func innerOf(port *audit.Port) (inner, bool, bool) {
	for _, in := range inners {
		if is, proven := in.is(port); is {
			return in, proven, true
		}
	}
	return inner{}, false, false
}

// shielded are ports that a firewall is right to close.
func shielded(port *audit.Port) bool {
	_, _, ok := innerOf(port)
	return ok
}

// DatabaseExposed finds databases and the like that anybody can reach.
var DatabaseExposed = &audit.Check{
	ID:       "listener.database-exposed",
	Title:    "a database, cache or control port that anybody can reach",
	Severity: audit.Critical,
	Doc: `Databases, caches, queues and control ports are made for a trusted network. One of
them listens on an address that clients of the public internet reach, and no
firewall on this host keeps them out.

It is critical where the program is known to take orders from anybody who
connects (the Docker API without TLS, memcached, PHP-FPM), otherwise a warning. The
kind is told by the program's name, or by the port where the name says nothing
else. A port that services: names is judged by its audience instead
(service.audience-exceeded). Filters before this host, such as a cloud's security
group, cannot be seen from here.

The remedy is to bind it to 127.0.0.1 or a private address, or to accept its port
from the networks of its clients only.`,
	Refs:  []string{"https://redis.io/docs/latest/operate/oss_and_stack/management/security/", "https://docs.docker.com/engine/security/protect-access/", refSocket},
	Needs: []audit.Need{audit.NeedListeners, audit.NeedFirewall, audit.NeedRoutes},
	Fix:   audit.FixManual,
	Run: func(p *audit.Pass) error {
		for _, port := range p.Ports {
			if !port.Home() || port.Service != nil || local(port) || port.Proto() != listeners.TCP && port.Proto() != listeners.UDP {
				continue
			}
			in, proven, ok := innerOf(port)
			if !ok {
				continue
			}
			c, ok := publicly(p, port)
			if !ok {
				if _, conditions, unsure := uncertain(p, port, everyone); unsure {
					p.Unsure(port.Subject(), why(conditions))
				}
				continue
			}
			f := audit.Finding{
				Severity: audit.Warning,
				Subject:  port.Subject(),
				Title:    fmt.Sprintf("%s on %s can be reached by anybody", in.what, portWords(port.Proto(), port.Number())),
				Why:      "it listens on " + listenAddr(port) + " and nothing on this host keeps the public internet out",
				Evidence: []audit.Evidence{
					listening(port),
					audit.Evidencef("a client", "%s by %s: %s", c.from, c.iif, c.sees),
					{Source: "let in by", Value: decider(c.by)},
				},
				Remedy: fmt.Sprintf("bind it to 127.0.0.1 or a private address, or accept %s from its clients' networks only; if it is meant for everyone, say so under services:", portWords(port.Proto(), port.Number())),
				Causes: []audit.Cause{},
			}
			if !proven {
				f.Title = fmt.Sprintf("%s, the port of %s, can be reached by anybody", portWords(port.Proto(), port.Number()), in.what)
			}
			if in.open != "" {
				f.Why += "; " + in.open
				if proven {
					f.Severity = audit.Critical
				}
			}
			p.Report(f)
		}
		return nil
	},
}

// listenAddr is the address of a listener, or what publishes a port.
func listenAddr(port *audit.Port) string {
	if port.Listener == nil {
		return "every address (published)"
	}
	return port.Listener.Local.String()
}
