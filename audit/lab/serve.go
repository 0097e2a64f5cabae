package lab

import (
	"net"
	"testing"
)

// Serve listens on a TCP address of a namespace until the test ends, hands each
// connection to handle in a goroutine of its own, and closes it afterwards.
// Network is tcp, tcp4 or tcp6.
func (n *Namespace) Serve(t testing.TB, network, addr string, handle func(net.Conn)) {
	t.Helper()
	var l net.Listener
	var err error
	n.Do(func() { l, err = net.Listen(network, addr) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				handle(c)
			}()
		}
	}()
}
