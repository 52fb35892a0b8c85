package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
)

func (c *cli) vendorsCommand() *cobra.Command {
	return group("vendors", "Vendors that are set up", &cobra.Command{
		Use:   "ls",
		Short: "List vendors with the size of their logs",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withApp(cmd.Context(), c.listVendors)
		},
	})
}

// vendorView is a vendor as programs see it.
type vendorView struct {
	Name       string    `json:"name"`
	Partitions int       `json:"partitions"`
	Replicas   int       `json:"replicas"`
	Created    time.Time `json:"created"`
	Messages   uint64    `json:"messages"` // in the log
	Bytes      uint64    `json:"bytes"`    // of the log
}

func (c *cli) listVendors(ctx context.Context, a *app) error {
	found, err := a.broker.Vendors(ctx)
	if err != nil {
		return err
	}
	list := make([]vendorView, len(found))
	rows := make([][]string, len(found))
	for i, v := range found {
		list[i] = vendorView(v)
		rows[i] = []string{
			v.Name, strconv.Itoa(v.Partitions), strconv.Itoa(v.Replicas),
			strconv.FormatUint(v.Messages, 10), byteSize(v.Bytes), ago(v.Created, time.Now()),
		}
	}
	if c.json {
		return c.printJSON(list)
	}
	if len(list) == 0 {
		c.say("no vendor is set up: run `usagebridge init --vendor NAME`")
		return nil
	}
	return c.table([]string{"VENDOR", "PARTITIONS", "REPLICAS", "MESSAGES", "SIZE", "CREATED"}, rows)
}

// byteSize writes a size as people read it, in powers of 1024.
func byteSize(n uint64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/1024, 0
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", value, units[unit])
}
