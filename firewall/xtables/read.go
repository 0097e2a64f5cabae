package xtables

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/hostaudit/hostaudit/firewall"
)

// attempts is how often a table that is replaced under the reading is read
// again.
const attempts = 10

// Read reads every legacy table that exists, IPv4 first, in the order of the
// kernel's lists. sets resolves the ipsets that rules name; nil makes every
// match on a set opaque.
//
// A back end that the kernel does not have is no error. A table that exists and
// could not be read or decoded stands in the result with its base chains marked
// Unread, and its error is among those returned (joined), so that the tables are
// safe to evaluate in any case. Where even the list of tables of a family could
// not be read, nothing stands in the result for that family but the error.
func Read(ctx context.Context, src Source, sets Sets) ([]*firewall.Table, error) {
	var tables []*firewall.Table
	var errs []error
	for _, fam := range []firewall.TableFamily{firewall.TableIP, firewall.TableIP6} {
		names, err := src.Names(ctx, fam)
		if errors.Is(err, ErrNotPresent) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for name := range strings.Lines(string(names)) {
			name = strings.TrimSuffix(name, "\n")
			if name == "" {
				continue
			}
			t, err := readTable(ctx, src, fam, name, sets)
			if err != nil {
				if errors.Is(err, syscall.ENOENT) {
					continue // it went away since the list was read
				}
				errs = append(errs, err)
				t = unreadTable(fam, name, err)
			}
			tables = append(tables, t)
		}
	}
	return tables, errors.Join(errs...)
}

func readTable(ctx context.Context, src Source, fam firewall.TableFamily, name string, sets Sets) (*firewall.Table, error) {
	var err error
	for range attempts {
		var info, entries []byte
		if info, err = src.Info(ctx, fam, name); err != nil {
			return nil, err
		}
		var i tableInfo
		if i, err = newTableInfo(fam, name, info); err != nil {
			return nil, err
		}
		entries, err = src.Entries(ctx, fam, name, int(i.size))
		if err == nil {
			return DecodeTable(fam, name, info, entries, sets)
		}
		if !errors.Is(err, ErrChanged) {
			return nil, err
		}
	}
	return nil, err
}

// unreadTable stands for a table whose rules are not known.
func unreadTable(fam firewall.TableFamily, name string, err error) *firewall.Table {
	t := &firewall.Table{Backend: firewall.IPTablesLegacy, Family: fam, Name: name}
	k, known := tableKinds[name]
	if !known {
		k = unknownKind
	}
	for h := range firewall.Hook(hooks) {
		if k.hooks&(1<<h) != 0 {
			t.Chains = append(t.Chains, &firewall.Chain{
				Table: t, Name: chainNames[h], Base: k.base(h), Unread: fmt.Sprintf("table %s could not be read: %v", name, err),
			})
		}
	}
	return t
}
