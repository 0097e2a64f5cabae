package collect

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/firewall/nft"
	"github.com/hostaudit/hostaudit/firewall/xtables"
)

// rawFirewall is the ruleset of one namespace as nf_tables gave it; what the
// other back ends gave stands among the answers.
type rawFirewall struct {
	NFT []byte `json:"nft,omitempty"` // of nft.Recorder; nil: the kernel has no nf_tables
}

// liveFirewall reads all back ends of the calling thread's namespace. The
// error is for a ruleset that could not be read as a whole: half of one looks
// like a smaller one. Tables that are known to be there and whose rules could
// not be read stand in the ruleset with their chains marked Unread, and are
// told in partly.
func liveFirewall(ctx context.Context, a *answers, ask []netip.Addr, keep bool) (rs *firewall.Ruleset, raw *rawFirewall, partly, err error) {
	raw = &rawFirewall{}
	rs = &firewall.Ruleset{}
	conn, err := nft.Open()
	switch {
	case errors.Is(err, nft.ErrNotPresent):
	case err != nil:
		return nil, nil, nil, err
	default:
		defer conn.Close()
		var src nft.Source = conn
		if keep {
			src = nft.Record(conn)
		}
		if rs, err = readNFT(ctx, src, ask); err != nil {
			return nil, nil, nil, err
		}
		if rec, ok := src.(*nft.Recorder); ok {
			if raw.NFT, err = rec.MarshalBinary(); err != nil {
				return nil, nil, nil, fmt.Errorf("keep nf_tables: %w", err)
			}
		}
	}
	kernel, err := xtables.Open()
	if err != nil {
		return nil, nil, nil, err
	}
	defer kernel.Close()
	partly, err = addLegacy(ctx, rs, legacySource{a, kernel})
	return rs, raw, partly, err
}

func readNFT(ctx context.Context, src nft.Source, ask []netip.Addr) (*firewall.Ruleset, error) {
	rs, err := nft.Read(ctx, src, nft.Options{Ask: ask})
	if errors.Is(err, nft.ErrNotPresent) {
		return &firewall.Ruleset{}, nil
	}
	return rs, err
}

// addLegacy adds the legacy tables to a ruleset.
func addLegacy(ctx context.Context, rs *firewall.Ruleset, src xtables.Source) (partly, err error) {
	// Where the list of tables cannot be had, any table may be missing.
	for _, family := range []firewall.TableFamily{firewall.TableIP, firewall.TableIP6} {
		if _, err := src.Names(ctx, family); err != nil && !errors.Is(err, xtables.ErrNotPresent) {
			return nil, err
		}
	}
	tables, partly := xtables.Read(ctx, src, nil)
	rs.Tables = append(rs.Tables, tables...)
	return partly, nil
}

// replayFirewall decodes what liveFirewall kept.
func replayFirewall(ctx context.Context, raw *rawFirewall, a *answers, ask []netip.Addr) (rs *firewall.Ruleset, partly, err error) {
	rs = &firewall.Ruleset{}
	if raw.NFT != nil {
		src, err := nft.Replay(raw.NFT)
		if err != nil {
			return nil, nil, err
		}
		if rs, err = readNFT(ctx, src, ask); err != nil {
			return nil, nil, err
		}
	}
	partly, err = addLegacy(ctx, rs, legacySource{a, nil})
	return rs, partly, err
}
