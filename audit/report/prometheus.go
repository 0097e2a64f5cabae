package report

import (
	"fmt"
	"io"
	"slices"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/reach"
)

// Prometheus writes metrics for node_exporter's textfile collector. Labels hold
// only what stays the same from run to run, and no pids.
func Prometheus(w io.Writer, r *audit.Report) error {
	m := &metrics{}
	m.gauge("hostaudit_findings", "Findings by severity; accepted ones apart.")
	for _, s := range audit.Severities() {
		for _, accepted := range []bool{false, true} {
			n := 0
			for _, f := range r.Findings {
				if f.Severity == s && (f.Accepted != nil) == accepted {
					n++
				}
			}
			m.add(float64(n), "severity", string(s), "accepted", fmt.Sprint(accepted))
		}
	}
	m.gauge("hostaudit_finding", "1 for every finding that counts.")
	for _, f := range r.Counting() {
		m.add(1, "id", f.ID, "severity", string(f.Severity), "subject", f.Subject)
	}
	m.gauge("hostaudit_listener_exposure", "1 for who can reach a listener: everyone, some, host-only, nobody or depends.")
	for i := range r.Listeners {
		l := &r.Listeners[i]
		name := ""
		if l.Process != nil {
			name = string(l.Process.Name)
		}
		for _, who := range []reach.Who{reach.Everyone, reach.Some, reach.HostOnly, reach.Nobody, reach.Uncertain} {
			if l.Exposure == who {
				m.add(1, "listener", l.Of.Subject(), "program", name, "exposure", string(who))
			}
		}
	}
	m.gauge("hostaudit_accept_queue_length", "Connections that wait to be accepted.")
	for i := range r.Listeners {
		if l := &r.Listeners[i]; l.Backlog != nil && !l.Of.Listener.Proto.Datagram() {
			m.add(float64(l.Backlog.Queued), "listener", l.Of.Subject())
		}
	}
	m.gauge("hostaudit_accept_queue_limit", "Limit of the accept queue.")
	for i := range r.Listeners {
		if l := &r.Listeners[i]; l.Backlog != nil && !l.Of.Listener.Proto.Datagram() {
			m.add(float64(l.Backlog.Limit), "listener", l.Of.Subject())
		}
	}
	if e := r.Ephemeral; e != nil {
		m.gauge("hostaudit_ephemeral_ports_usable", "Local ports usable towards each destination.")
		m.add(float64(e.Usable))
		m.gauge("hostaudit_ephemeral_ports_share_max", "Largest share of the local ports in use towards one destination.")
		share := 0.0
		for _, d := range e.Destinations {
			share = max(share, d.Share)
		}
		m.add(share)
		m.gauge("hostaudit_ephemeral_ports_in_use", "Local ports in use towards the ten busiest destinations.")
		for _, d := range e.Destinations[:min(len(e.Destinations), 10)] {
			m.add(float64(d.InUse), "proto", d.Proto, "from", d.From.String(), "to", hostPort(d.To.String(), d.Port))
		}
	}
	m.gauge("hostaudit_check_status", "1 for how a check ended: pass, fail, unknown, error or not-applicable.")
	for _, c := range r.Checks {
		m.add(1, "check", c.ID, "status", string(c.Status))
	}
	m.gauge("hostaudit_incomplete", "Things that could not be read.")
	m.add(float64(len(r.Incomplete)))
	m.gauge("hostaudit_complete", "1 when everything that answers are built on could be read.")
	complete := 0.0
	if r.Complete() {
		complete = 1
	}
	m.add(complete)
	m.gauge("hostaudit_scan_duration_seconds", "How long the reading took.")
	m.add(r.Host.Took)
	m.gauge("hostaudit_scan_timestamp_seconds", "When the host was read.")
	m.add(float64(r.Host.TakenAt.Unix()))
	m.gauge("hostaudit_info", "The version that wrote this.")
	m.add(1, "version", r.Host.Tool)
	for _, f := range m.families {
		if len(f.Metric) == 0 {
			continue
		}
		if _, err := expfmt.MetricFamilyToText(w, f); err != nil {
			return fmt.Errorf("write metrics: %w", err)
		}
	}
	return nil
}

type metrics struct{ families []*dto.MetricFamily }

func (m *metrics) gauge(name, help string) {
	m.families = append(m.families, &dto.MetricFamily{Name: &name, Help: &help, Type: dto.MetricType_GAUGE.Enum()})
}

// add adds a sample to the last family. Two samples with the same labels (sockets
// of one SO_REUSEPORT group) would make the file invalid: the larger stays.
func (m *metrics) add(value float64, labels ...string) {
	f := m.families[len(m.families)-1]
	sample := &dto.Metric{Gauge: &dto.Gauge{Value: &value}}
	for i := 0; i+1 < len(labels); i += 2 {
		name, text := labels[i], clean(labels[i+1], false)
		sample.Label = append(sample.Label, &dto.LabelPair{Name: &name, Value: &text})
	}
	at := slices.IndexFunc(f.Metric, func(o *dto.Metric) bool {
		return slices.EqualFunc(o.Label, sample.Label, func(a, b *dto.LabelPair) bool { return a.GetValue() == b.GetValue() })
	})
	if at >= 0 {
		if v := max(f.Metric[at].Gauge.GetValue(), value); true {
			f.Metric[at].Gauge.Value = &v
		}
		return
	}
	f.Metric = append(f.Metric, sample)
}
