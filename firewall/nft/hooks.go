package nft

import (
	"context"

	fw "github.com/hostaudit/hostaudit/firewall"
)

func hookOrder(ctx context.Context, src Source, d *decoder) (map[fw.Hook][]*fw.Chain, error) {
	return nil, nil
}
