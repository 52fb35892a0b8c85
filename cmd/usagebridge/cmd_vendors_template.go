package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/pkg/oemapi"
)

// templateView is a vendor of the platform as programs see it.
type templateView struct {
	ID     string   `json:"id"`
	Name   string   `json:"name"`
	Kind   string   `json:"kind"`
	Status string   `json:"status"`
	Labels []string `json:"labels"` // of the credentials that an integration wants
}

func viewTemplate(v *oemapi.Vendor) templateView {
	return templateView{ID: v.ID, Name: v.Name, Kind: v.Kind, Status: v.Status, Labels: append([]string{}, v.Labels...)}
}

func (c *cli) vendorsTemplate() *cobra.Command {
	return &cobra.Command{
		Use:   "template [PLATFORM-VENDOR]",
		Short: "Show the platform's vendors, and the credentials that an integration of each wants",
		Long: `Asks the platform for the vendors that may be integrated: its own ids, not the
names under which they are set up here. A vendor of the kind credentials wants a
value for each label of its template; one of the kind external gets a partner key
from the platform. PLATFORM-VENDOR is the platform's id, or its name if there is
one of that name. Needs USAGEBRIDGE_OEM_API_URL, USAGEBRIDGE_OEM_CLIENT_ID and
USAGEBRIDGE_OEM_CLIENT_SECRET_FILE, and no store.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			config, err := loadConfig()
			if err != nil {
				return err
			}
			if err := config.findSandbox(); err != nil {
				return err
			}
			client, err := config.oemClient()
			if err != nil {
				return err
			}
			defer client.CloseIdleConnections()
			list, _, err := client.Vendors(cmd.Context())
			if err != nil {
				return advise(err, nil)
			}
			if len(args) == 0 {
				return c.showTemplates(list)
			}
			v, err := findPlatformVendor(list, args[0])
			if err != nil {
				return err
			}
			return c.showTemplate(v)
		},
	}
}

// findPlatformVendor finds a vendor by its id or, if only one has it, its name.
func findPlatformVendor(list []oemapi.Vendor, wanted string) (*oemapi.Vendor, error) {
	var named []*oemapi.Vendor
	known := make([]string, len(list))
	for at := range list {
		v := &list[at]
		if v.ID == wanted {
			return v, nil
		}
		if strings.EqualFold(v.Name, wanted) {
			named = append(named, v)
		}
		known[at] = fmt.Sprintf("%s (%s)", printable(v.ID), printable(v.Name))
	}
	switch {
	case len(named) == 1:
		return named[0], nil
	case len(named) > 1:
		return nil, usagef("%d vendors of the platform are named %q: want the id of one: %s", len(named), wanted, strings.Join(known, ", "))
	case len(known) == 0:
		return nil, usagef("the platform lists no vendor at all for this client; ask the platform")
	}
	return nil, usagef("the platform has no vendor %q; it lists: %s", wanted, strings.Join(known, ", "))
}

func (c *cli) showTemplates(list []oemapi.Vendor) error {
	views := make([]templateView, len(list))
	rows := make([][]string, len(list))
	for at := range list {
		v := &list[at]
		views[at] = viewTemplate(v)
		rows[at] = []string{printable(v.ID), or(printable(v.Name), "-"), or(printable(v.Kind), "-"), or(printable(v.Status), "-"), or(quoteAll(v.Labels), "-")}
	}
	switch {
	case c.json:
		return c.printJSON(views)
	case len(list) == 0:
		c.say("the platform lists no vendor for this client")
		return nil
	}
	return c.table([]string{"PLATFORM-VENDOR", "NAME", "KIND", "STATUS", "LABELS"}, rows)
}

func (c *cli) showTemplate(v *oemapi.Vendor) error {
	if c.json {
		return c.printJSON(viewTemplate(v))
	}
	rows := [][]string{
		{"vendor", printable(v.ID)}, {"name", or(printable(v.Name), "-")},
		{"kind", or(printable(v.Kind), "-")}, {"status", or(printable(v.Status), "-")},
	}
	for _, label := range v.Labels {
		rows = append(rows, []string{"label", printable(label)})
	}
	if len(v.Labels) == 0 {
		rows = append(rows, []string{"labels", "none"})
	}
	return c.table(nil, rows)
}

// quoteAll lists labels, which may contain blanks and commas.
func quoteAll(labels []string) string {
	quoted := make([]string, len(labels))
	for at, label := range labels {
		quoted[at] = strconv.Quote(label)
	}
	return strings.Join(quoted, ", ")
}
