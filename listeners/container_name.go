package listeners

import (
	"encoding/json"
	"slices"
	"strings"
)

// Where runtimes keep the names of their containers, below the root of the
// host, with their default settings. A name that cannot be found is left empty:
// the id says who it is.
const (
	dockerContainers = "var/lib/docker/containers"
	podmanContainers = "var/lib/containers/storage/overlay-containers/containers.json"
	maxContainerFile = 8 << 20
)

// containerNames looks up names of containers below a root, each id once.
type containerNames struct {
	root   string
	known  map[HostText]HostText
	podman map[string]string // by id, nil until it is needed
}

func newContainerNames(root string) *containerNames {
	if root == "" {
		root = "/"
	}
	return &containerNames{root: root, known: map[HostText]HostText{}}
}

// fill sets the name of c.
func (n *containerNames) fill(c *Container) {
	if c == nil || !isID(string(c.ID)) { // an id becomes part of a path
		return
	}
	name, ok := n.known[c.ID]
	if !ok {
		switch c.Runtime {
		case "docker":
			name = n.docker(string(c.ID))
		case "podman":
			name = n.podmanName(string(c.ID))
		}
		n.known[c.ID] = name
	}
	c.Name = name
}

func (n *containerNames) docker(id string) HostText {
	b, err := readBeneath(n.root, dockerContainers+"/"+id+"/config.v2.json", maxContainerFile)
	if err != nil {
		return ""
	}
	var config struct{ Name string }
	if json.Unmarshal(b, &config) != nil {
		return ""
	}
	return HostText(strings.TrimPrefix(config.Name, "/"))
}

func (n *containerNames) podmanName(id string) HostText {
	if n.podman == nil {
		n.podman = map[string]string{}
		var list []struct {
			ID    string   `json:"id"`
			Names []string `json:"names"`
		}
		b, err := readBeneath(n.root, podmanContainers, maxContainerFile)
		if err == nil && json.Unmarshal(b, &list) == nil {
			for _, c := range list {
				if len(c.Names) > 0 {
					n.podman[c.ID] = slices.Min(c.Names)
				}
			}
		}
	}
	return HostText(n.podman[id])
}
