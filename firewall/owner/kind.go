package owner

// Kind names what manages a ruleset, or a part of it.
type Kind string

// Managers whose way of opening a port this program goes.
const (
	UFW                 Kind = "ufw"
	Firewalld           Kind = "firewalld"
	NFTablesService     Kind = "nftables.service"
	NetfilterPersistent Kind = "netfilter-persistent"
	IPTablesServices    Kind = "iptables-services"
	// Nobody: the rules were loaded by hand or by a script; nothing is known to
	// load them again.
	Nobody Kind = "nobody"
)

// Owners whose rules are never touched: they write them anew.
const (
	Docker     Kind = "docker"
	Kubernetes Kind = "kubernetes"
	Libvirt    Kind = "libvirt"
	CSF        Kind = "csf"
	Panel      Kind = "aapanel"
	Shorewall  Kind = "shorewall"
	FireHOL    Kind = "firehol"
	APF        Kind = "apf"
	FW4        Kind = "fw4"
	PVE        Kind = "pve-firewall"
	CrowdSec   Kind = "crowdsec"
	Fail2ban   Kind = "fail2ban"
)

// Manages says whether an owner decides about the host's whole ruleset: two of
// them undo each other's work. The others only add to it.
func (k Kind) Manages() bool {
	switch k {
	case UFW, Firewalld, NFTablesService, NetfilterPersistent, IPTablesServices, CSF, Shorewall, FireHOL, APF, FW4, PVE:
		return true
	}
	return false
}

// Editable says whether this program opens ports through the owner.
func (k Kind) Editable() bool {
	switch k {
	case UFW, Firewalld, NFTablesService, NetfilterPersistent, IPTablesServices, Nobody:
		return true
	}
	return false
}

// Words tell the operator how an owner that is never touched opens a port.
func (k Kind) Words() string {
	switch k {
	case Docker:
		return "Docker writes these rules: publish the port (docker run -p, ports: of compose), or filter in the chain DOCKER-USER, which Docker leaves alone"
	case Kubernetes:
		return "Kubernetes writes these rules: change the Service or the NetworkPolicy"
	case Libvirt:
		return "libvirt writes these rules: change the virtual network (virsh net-edit), or use a hook script"
	case CSF:
		return "CSF writes these rules: add the port to TCP_IN and TCP6_IN (UDP_IN, UDP6_IN) of /etc/csf/csf.conf, then csf -r; with TESTING = \"1\" the firewall is cleared every few minutes"
	case Panel:
		return "the panel (aaPanel, Baota) keeps a list of its own: open the port under Security as well, or it is closed again; the provider's security group is a third place"
	case Shorewall:
		return "Shorewall writes these rules: add ACCEPT net $FW tcp PORT to /etc/shorewall/rules (and shorewall6), then shorewall check && shorewall reload"
	case FireHOL:
		return "FireHOL writes these rules: add server custom NAME tcp/PORT default accept to /etc/firehol/firehol.conf, then firehol try"
	case APF:
		return "APF writes these rules: add the port to IG_TCP_CPORTS of /etc/apf-firewall/conf.apf, then apf -r"
	case FW4:
		return "OpenWrt's firewall writes these rules: add a rule section to /etc/config/firewall, then service firewall reload"
	case PVE:
		return "Proxmox writes these rules: add the rule in the firewall of the node (Datacenter or Node, Firewall)"
	case CrowdSec:
		return "CrowdSec bans addresses here: cscli decisions list, cscli decisions delete --ip ADDRESS"
	case Fail2ban:
		return "fail2ban bans addresses here: fail2ban-client status, fail2ban-client set JAIL unbanip ADDRESS"
	}
	return ""
}
