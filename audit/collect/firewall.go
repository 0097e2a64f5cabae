package collect

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/firewall/nft"
)

// rawFirewall is the ruleset of one namespace as its back ends gave it.
type rawFirewall struct {
	NFT []byte `json:"nft,omitempty"` // of nft.Recorder
}

// liveFirewall reads all back ends of the calling thread's namespace. The raw
// bytes are kept on demand.
func liveFirewall(ctx context.Context, ask []netip.Addr, keep bool) (*firewall.Ruleset, *rawFirewall, error) {
	raw := &rawFirewall{}
	conn, err := nft.Open()
	if err != nil && !errors.Is(err, nft.ErrNotPresent) {
		return nil, nil, err
	}
	rs := &firewall.Ruleset{}
	if err == nil {
		defer conn.Close()
		var src nft.Source = conn
		if keep {
			src = nft.Record(conn)
		}
		if rs, err = readNFT(ctx, src, ask); err != nil {
			return nil, nil, err
		}
		if rec, ok := src.(*nft.Recorder); ok {
			if raw.NFT, err = rec.MarshalBinary(); err != nil {
				return nil, nil, fmt.Errorf("keep nf_tables: %w", err)
			}
		}
	}
	return rs, raw, nil
}

func readNFT(ctx context.Context, src nft.Source, ask []netip.Addr) (*firewall.Ruleset, error) {
	rs, err := nft.Read(ctx, src, nft.Options{Ask: ask})
	if errors.Is(err, nft.ErrNotPresent) {
		return &firewall.Ruleset{}, nil
	}
	return rs, err
}

// replayFirewall decodes what liveFirewall kept.
func replayFirewall(ctx context.Context, raw *rawFirewall, ask []netip.Addr) (*firewall.Ruleset, error) {
	rs := &firewall.Ruleset{}
	if raw.NFT != nil {
		src, err := nft.Replay(raw.NFT)
		if err != nil {
			return nil, err
		}
		if rs, err = readNFT(ctx, src, ask); err != nil {
			return nil, err
		}
	}
	return rs, nil
}
