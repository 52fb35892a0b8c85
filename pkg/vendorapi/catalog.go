package vendorapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// Vendor is the owner of the vendor token with what it sells on the platform.
type Vendor struct {
	ID   string // empty when the answer did not tell
	Name string
	SKUs []SKU // in the platform's order, never nil
}

// SKU is a product of the vendor as the platform has it; its texts are what the
// platform said, see [ListedAccount].
type SKU struct {
	ID   string // never empty
	Name string
}

// Catalog reads the vendor and its products. It needs [Reading]. An error is
// always an [*Error] and comes without any product; an answer that holds no list
// of products, not even an empty one, is [Unexpected].
func (c *Client) Catalog(ctx context.Context) (Vendor, Result, error) {
	return read(ctx, c, operation{name: "read catalog"}, decodeVendor)
}

func decodeVendor(body []byte) (Vendor, error) {
	answer, err := decodeObject[struct {
		identity
		Name text            `json:"name"`
		SKUs json.RawMessage `json:"skus"`
	}](body)
	if err != nil {
		return Vendor{}, err
	}
	if answer.SKUs == nil {
		return Vendor{}, errors.New("the answer has no skus")
	}
	skus, err := decodeArray(answer.SKUs, "sku", func(s struct {
		identity
		Name text `json:"name"`
	},
	) (SKU, error) {
		return SKU{ID: s.id(), Name: string(s.Name)}, s.fault()
	})
	if err != nil {
		return Vendor{}, fmt.Errorf("skus: %w", err)
	}
	return Vendor{ID: answer.id(), Name: string(answer.Name), SKUs: skus}, nil
}
