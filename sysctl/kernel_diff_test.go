package sysctl

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestStoreDifferential writes all sorts of text to every key of the catalogue
// that belongs to a network namespace and compares what the kernel then holds,
// and whether the write failed, with what the model says.
func TestStoreDifferential(t *testing.T) {
	t.Log(strings.TrimSpace(sandboxed(t, "store", fmt.Sprintf("SYSCTL_TEST_SEED=%d", time.Now().UnixNano()))))
}

// TestCatalogueDefaults compares the defaults that the catalogue names with a
// fresh network namespace.
func TestCatalogueDefaults(t *testing.T) {
	t.Log(strings.TrimSpace(sandboxed(t, "defaults")))
}

// TestForwardPropagation writes forwarding and disable_ipv6 keys in random
// order and compares all interfaces with the replay.
func TestForwardPropagation(t *testing.T) {
	t.Log(strings.TrimSpace(sandboxed(t, "propagation", fmt.Sprintf("SYSCTL_TEST_SEED=%d", time.Now().UnixNano()))))
}

// TestSetRealKernel sets keys with the writer in a namespace.
func TestSetRealKernel(t *testing.T) {
	t.Log(strings.TrimSpace(sandboxed(t, "write")))
}

func seedFromEnv() uint64 {
	var seed uint64
	fmt.Sscan(os.Getenv("SYSCTL_TEST_SEED"), &seed)
	return seed
}

// namespaceKeys are the keys of the catalogue that exist, are integers or port
// lists, and belong to the namespace.
func namespaceKeys() ([]Key, error) {
	list, _, err := ListKeys(context.Background(), ProcSys+"/net")
	if err != nil {
		return nil, err
	}
	var out []Key
	for _, k := range list {
		k = KeyFromPath("net/" + k.Path())
		e, ok := Find(k)
		if !ok || e.Scope != ScopeNamespace || e.Shape == ShapeText || e.Shape == ShapeWords {
			continue
		}
		out = append(out, k)
	}
	return out, nil
}

func runDefaults(s *sandbox) error {
	keys, err := namespaceKeys()
	if err != nil {
		return err
	}
	live, err := ReadValues(context.Background(), ProcSys, keys)
	if err != nil {
		return err
	}
	compared, wrong := 0, 0
	for _, k := range keys {
		e, _ := Find(k)
		iface, per := k.Interface()
		if e.Default == "" && e.Shape != ShapePorts || per && iface != "default" && iface != "all" {
			continue
		}
		compared++
		if !e.Shape.Equal(live[k].Text, e.Default) {
			wrong++
			fmt.Printf("%s is %q in a fresh namespace, the catalogue says %q\n", k, live[k].Text, e.Default)
		}
	}
	if compared < 40 || wrong > 0 {
		return fmt.Errorf("%d of %d defaults are wrong", wrong, compared)
	}
	fmt.Printf("%d defaults agree\n", compared)
	return nil
}

func runStoreDifferential(s *sandbox) error {
	seed := seedFromEnv()
	rng := rand.New(rand.NewPCG(seed, 1))
	keys, err := namespaceKeys()
	if err != nil {
		return err
	}
	texts := []string{
		"", " ", "0", "1", "2", "3", "-1", "7", "255", "256", "1000", "65535", "65536", "0x1000", "0x", "010", "08", "1 # c", "1# c", "1\t2", "1 2", "1 2 3", "1 2 3 4",
		"abc", "12x", "+5", "4096 131072", "32768 60999", "60999 32768", "1024 65535", "10 x", "2147483647", "2147483648", "-2147483648", "99999999999999999999", "999999999999999999999999999",
		"\"1\"", "1,2", "8080", "8080,9000-9010", "9000-8000", "1-70000", "5,5,6-7,7-9", "8080, 9090", "8080,", ",8080", "-", "1-", "1--2", "  8080", "8080 ", "1;2", "0x10-0x20", "65535,1",
		strings.Repeat(" ", 4090) + "5", strings.Repeat(" ", 4200) + "5",
	}
	compared, unknown, different := 0, 0, 0
	for _, k := range keys {
		e, _ := Find(k)
		if strings.HasSuffix(string(k), "ip_forward") || strings.HasSuffix(string(k), ".forwarding") || strings.Contains(string(k), "disable_ipv6") || strings.HasSuffix(string(k), "unprivileged_port_start") {
			continue // change other keys with them; TestForwardPropagation
		}
		file := ProcSys + "/" + k.Path()
		if f, err := os.OpenFile(file, os.O_WRONLY, 0); err != nil {
			continue // read-only
		} else {
			f.Close()
		}
		for _, i := range append(rng.Perm(len(texts)), rng.Perm(len(texts))...) {
			text := texts[i]
			before, err := readValue(ProcSys, k)
			if err != nil {
				return err
			}
			f, err := os.OpenFile(file, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			n, werr := f.Write([]byte(text + "\n"))
			f.Close()
			after, err := readValue(ProcSys, k)
			if err != nil {
				return err
			}
			want, ok, known := e.store(before, text)
			if !known {
				unknown++
				continue
			}
			compared++
			if ok != (werr == nil) || !e.Shape.Equal(want, after) {
				different++
				if different < 40 {
					fmt.Printf("%s: %q over %q: kernel holds %q (%d, %v), model %q ok=%v\n", k, shorten(text), before, after, n, werr, want, ok)
				}
			}
		}
	}
	if compared < 1000 || different > 0 {
		return fmt.Errorf("%d of %d writes differ (%d unknown), seed %d", different, compared, unknown, seed)
	}
	fmt.Printf("%d writes agree, %d unknown, seed %d\n", compared, unknown, seed)
	return nil
}

func runPropagation(s *sandbox) error {
	seed := seedFromEnv()
	rng := rand.New(rand.NewPCG(seed, 2))
	if out, err := exec.Command("ip", "link", "add", "d0", "type", "veth", "peer", "name", "v.1").CombinedOutput(); err != nil {
		return fmt.Errorf("sandbox: ip link add: %w %s", err, out)
	}
	ifaces := []string{"all", "default", "lo", "d0", "v.1"}
	changed := 0
	for round := range 300 {
		for _, group := range []Key{"net.ipv4.conf.*.forwarding", "net.ipv6.conf.*.forwarding", "net.ipv6.conf.*.disable_ipv6"} {
			for _, i := range ifaces { // a fresh kernel: all off
				for range 2 {
					if err := os.WriteFile(ProcSys+"/"+group.WithInterface(i).Path(), []byte("0"), 0); err != nil {
						return err
					}
				}
			}
			state := newForwardState(group)
			var log []string
			for range 1 + rng.IntN(5) {
				k := group.WithInterface(ifaces[rng.IntN(len(ifaces))])
				if group == "net.ipv4.conf.*.forwarding" && rng.IntN(4) == 0 {
					k = "net.ipv4.ip_forward"
				}
				w := Write{Key: k, Value: fmt.Sprint(rng.IntN(2))}
				if err := os.WriteFile(ProcSys+"/"+k.Path(), []byte(w.Value), 0); err != nil {
					return err
				}
				log = append(log, string(k)+"="+w.Value)
				state.write(&w)
			}
			for _, i := range ifaces {
				got, err := readValue(ProcSys, group.WithInterface(i))
				if err != nil {
					return err
				}
				if got != "0" {
					changed++
				}
				if want := state.present(i).value; got != want {
					return fmt.Errorf("round %d seed %d: %s is %s, replayed %s after %v", round, seed, group.WithInterface(i), got, want, log)
				}
			}
			// An interface that appears now shows the other half of the model.
			if round%20 == 0 {
				if out, err := exec.Command("ip", "link", "add", "n0", "type", "bridge").CombinedOutput(); err != nil {
					return fmt.Errorf("ip link add: %w %s", err, out)
				}
				got, err := readValue(ProcSys, group.WithInterface("n0"))
				if err != nil {
					return err
				}
				if want := state.later("n0").value; got != want {
					return fmt.Errorf("round %d seed %d: new interface has %s, replayed %s after %v", round, seed, got, want, log)
				}
				if out, err := exec.Command("ip", "link", "del", "n0").CombinedOutput(); err != nil {
					return fmt.Errorf("ip link del: %w %s", err, out)
				}
			}
		}
	}
	if changed < 300 {
		return fmt.Errorf("control: only %d values were ever on", changed)
	}
	fmt.Printf("900 sequences agree, %d values on, seed %d\n", changed, seed)
	return nil
}

func runWriteJob(s *sandbox) error {
	ctx := context.Background()
	for _, c := range []struct {
		k           Key
		value, want string
		fail        bool
	}{
		{keyPortRange, "16384 65535", "16384\t65535", false},
		{keyReservedPorts, "20000,20002-20004", "20000,20002-20004", false},
		{keySomaxconn, "8192", "8192", false},
		{"net.ipv4.conf.lo.rp_filter", "2", "2", false},
		{"net.ipv4.tcp_rmem", "4096 131072 8388608", "4096\t131072\t8388608", false},
		{keyPortRange, "65535 16384", "16384\t65535", true},
		{keyConntrackMax, "999999", "", true}, // one for all namespaces: the write is refused, or the key not there
		{"net.ipv4.tcp_max_orphans", "9999", "", true},
		{"fs.file-max", "10", "", true},
		{"kernel.pid_max", "4194304", "", true},
		{"net.ipv4.../../kernel/pid_max", "1", "", true},
		{"net.unix.max_dgram_qlen", "512", "512", false},
		{"net.unix.max_dgram_qlen", "512 # much", "", true},
		{"net.ipv4.tcp_tw_reuse", "7", "", true},
	} {
		after, err := Set(ctx, ProcSys, c.k, c.value)
		if (err != nil) != c.fail {
			return fmt.Errorf("set %s = %q: after %q, error %v", c.k, c.value, after, err)
		}
		if c.want != "" {
			if got, _ := readValue(ProcSys, c.k); got != c.want {
				return fmt.Errorf("%s is %q, want %q", c.k, got, c.want)
			}
		}
	}
	if err := readLongValue(); err != nil {
		return err
	}
	fmt.Println("written and read back")
	return nil
}

// readLongValue reads every other port as the kernel has them reserved, and then
// that there are none.
func readLongValue() error {
	f, err := os.OpenFile(ProcSys+"/"+keyReservedPorts.Path(), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var want []byte
	for port := 1; port < 1<<16; port += 2 {
		from := len(want)
		want = fmt.Appendf(want, "%d,", port)
		// A single write takes less than a page; what comes from an offset is added.
		if _, err := f.WriteAt(want[from:], int64(from)); err != nil {
			return err
		}
	}
	want = want[:len(want)-1]
	r := newValueReader(ProcSys)
	defer r.close()
	if got, err := r.read(keyReservedPorts); err != nil || got != string(want) {
		return fmt.Errorf("%d bytes of reserved ports, want %d: %v", len(got), len(want), err)
	}
	if _, err := f.WriteAt([]byte("\n"), 0); err != nil {
		return err
	}
	if got, err := r.read(keyReservedPorts); err != nil || got != "" {
		return fmt.Errorf("reserved ports %q, want none: %v", got, err)
	}
	return nil
}
