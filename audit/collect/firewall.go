package collect

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/firewall/ipset"
	"github.com/hostaudit/hostaudit/firewall/nft"
	"github.com/hostaudit/hostaudit/firewall/xtables"
)

// rawFirewall is the ruleset of one namespace as nf_tables gave it; what the
// other back ends gave stands among the answers.
type rawFirewall struct {
	NFT []byte `json:"nft,omitempty"` // of nft.Recorder; nil: the kernel has no nf_tables
}

// rulesRead is a ruleset of all back ends together.
type rulesRead struct {
	ruleset *firewall.Ruleset
	raw     *rawFirewall
	// partly is set where tables or sets are known to be there and could not be
	// read: they stand in the ruleset as unread, and what turns on them depends.
	partly error
}

// liveFirewall reads all back ends of the calling thread's namespace. The
// error is for a ruleset that could not be read as a whole: half of one looks
// like a smaller one.
func liveFirewall(ctx context.Context, a *answers, ask []netip.Addr) (r rulesRead, err error) {
	r.raw = &rawFirewall{}
	sets, setsErr := liveIPSets(ctx, a)
	conn, err := nft.Open()
	var src nft.Source
	var rec *nft.Recorder
	switch {
	case errors.Is(err, nft.ErrNotPresent):
	case err != nil:
		return r, err
	default:
		defer conn.Close()
		src = conn
		if a.keep {
			rec = nft.Record(conn)
			src = rec
		}
	}
	kernel, err := xtables.Open()
	if err != nil {
		return r, err
	}
	defer kernel.Close()
	if err := r.read(ctx, a, src, legacySource{a, kernel}, sets, setsErr, ask); err != nil {
		return rulesRead{}, err
	}
	if rec != nil {
		if r.raw.NFT, err = rec.MarshalBinary(); err != nil {
			return rulesRead{}, fmt.Errorf("keep nf_tables: %w", err)
		}
	}
	return r, nil
}

// replayFirewall decodes what liveFirewall kept.
func replayFirewall(ctx context.Context, raw *rawFirewall, a *answers, ask []netip.Addr) (r rulesRead, err error) {
	sets, setsErr := ipset.Read(ctx, ipsetSource{answers: a})
	var src nft.Source
	if raw.NFT != nil {
		if src, err = nft.Replay(raw.NFT); err != nil {
			return r, err
		}
	}
	err = r.read(ctx, a, src, legacySource{answers: a}, sets, setsErr, ask)
	return r, err
}

// read puts the back ends together: the order among chains of one hook is by
// priority, so that of the tables does not matter.
func (r *rulesRead) read(ctx context.Context, a *answers, nftables nft.Source, legacy xtables.Source, sets *ipset.Sets, setsErr error, ask []netip.Addr) error {
	r.ruleset = &firewall.Ruleset{}
	beside := xtables.Beside{Sets: sets, Recent: readRecent(a)}
	if nftables != nil {
		rs, err := nft.Read(ctx, nftables, nft.Options{Ask: ask, LinkNames: linkNames(a), Sets: beside})
		switch {
		case errors.Is(err, nft.ErrNotPresent):
		case err != nil:
			return err
		default:
			r.ruleset = rs
		}
	}
	// Where the list of tables cannot be had, any table may be missing.
	for _, family := range []firewall.TableFamily{firewall.TableIP, firewall.TableIP6} {
		if _, err := legacy.Names(ctx, family); err != nil && !errors.Is(err, xtables.ErrNotPresent) {
			return err
		}
	}
	tables, partly := xtables.Read(ctx, legacy, beside)
	r.ruleset.Tables = append(r.ruleset.Tables, tables...)
	if arp := readARPTables(a); arp != nil {
		r.ruleset.Tables = append(r.ruleset.Tables, arp)
	}
	r.partly = errors.Join(partly, setsErr)
	keepOrder(r.ruleset)
	return nil
}

// keepOrder drops what is known of the order among chains of equal priority for
// hooks where it does not name every chain: one back end cannot tell where the
// others' chains stand.
func keepOrder(rs *firewall.Ruleset) {
	for _, t := range rs.Tables {
		for _, c := range t.Chains {
			if c.Base == nil || t.Family == firewall.TableARP || t.Family == firewall.TableBridge { // hooks of their own
				continue
			}
			if order, ok := rs.Order[c.Base.Hook]; ok && !slices.Contains(order, c) {
				delete(rs.Order, c.Base.Hook)
			}
		}
	}
}

// linkNames are for the text of rules only; without them it shows indexes.
func linkNames(a *answers) map[int]string {
	links, err := readLinks(a)
	if err != nil {
		return nil
	}
	names := make(map[int]string, len(links))
	for _, l := range links {
		names[l.Index] = l.Name
	}
	return names
}
