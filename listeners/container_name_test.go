package listeners

import (
	"os"
	"path/filepath"
	"testing"
)

func TestContainerNames(t *testing.T) {
	root := t.TempDir()
	write := func(path, text string) {
		t.Helper()
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const other = "fedcba9876543210"
	write(dockerContainers+"/"+hexID+"/config.v2.json", `{"ID":"`+hexID+`","Name":"/web","State":{}}`)
	write(podmanContainers, `[{"id":"`+hexID+`","names":["db"]}]`)
	write(dockerContainers+"/"+other+"/config.v2.json", `not JSON`)
	n := newContainerNames(root)
	for _, c := range []struct {
		c    Container
		want HostText
	}{
		{Container{Runtime: "docker", ID: hexID}, "web"},
		{Container{Runtime: "docker", ID: other}, ""},
		{Container{Runtime: "docker", ID: "../../../etc"}, ""},
		{Container{Runtime: "containerd", ID: "abcdefabcdef"}, ""},
	} {
		n.fill(&c.c)
		if c.c.Name != c.want {
			t.Errorf("%+v, want %q", c.c, c.want)
		}
	}
	n = newContainerNames(root)
	c := Container{Runtime: "podman", ID: hexID}
	if n.fill(&c); c.Name != "db" {
		t.Errorf("%+v", c)
	}
	n.fill(nil)
}

// A name from /etc/passwd beneath a root; links in it stay in it.
func TestReadBeneathStaysInside(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "real"), []byte("alice:x:4242:1::/:/bin/sh\nbob:x:4242:1::/:\n+nis\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/real", filepath.Join(root, "etc/passwd")); err != nil { // absolute, but inside root
		t.Fatal(err)
	}
	names, err := readPasswd(root)
	if err != nil || len(names) != 1 || names[4242] != "alice" {
		t.Errorf("%v, %v", names, err)
	}
	names, err = readPasswd(t.TempDir()) // a root without the file
	if err != nil || len(names) != 0 {
		t.Errorf("%v, %v", names, err)
	}
}
