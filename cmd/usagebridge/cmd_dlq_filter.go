package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/consumers/deadletter"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/event"
)

// letterFlags say which dead letters a person means: a flag for each property,
// and --filter NAME=VALUE for all of them.
type letterFlags struct {
	cmd   *cobra.Command
	names []string // of the flags that are terms, too
	terms []string // of --filter
}

// letterFlags adds the flags to a command.
func (c *cli) letterFlags(cmd *cobra.Command) *letterFlags {
	o := &letterFlags{cmd: cmd}
	add := func(name, usage string) {
		cmd.Flags().String(name, "", usage)
		o.names = append(o.names, name)
	}
	add("vendor", "only letters of this vendor")
	c.integrationFlag(cmd, new(string), "only letters of this vendor/organization")
	o.names = append(o.names, "integration")
	add("reason", "only letters with this reason: "+join(event.Reasons()))
	add("fingerprint", "only letters with this problem, as `dlq ls` shows it")
	add("key", "only letters about this kind/account/service, such as count/a-17/backup; a * at the end stands for any rest")
	add("event", "only letters of the event with this id")
	add("since", "only letters parked since then: a time such as 2026-11-20T12:00:00Z, or how long ago, such as 2h or 7d")
	add("until", "only letters parked before then")
	add("text", "only letters with this text in the problem, the answer, the event's id, the key or the body")
	cmd.Flags().StringArrayVar(&o.terms, "filter", nil, "only letters with NAME=VALUE; may be repeated: all must hold; names: "+strings.Join(deadletter.TermNames(), ", "))
	return o
}

// filter is what the flags say together. A flag that is given and empty is a
// mistake, most likely of a shell variable: it must not choose everything.
func (o *letterFlags) filter(now time.Time) (deadletter.Filter, error) {
	terms := slices.Clone(o.terms)
	for _, name := range o.names {
		flag := o.cmd.Flags().Lookup(name)
		if term := name + "=" + flag.Value.String(); flag.Changed && !slices.Contains(terms, term) {
			terms = append(terms, term)
		}
	}
	f, err := deadletter.ParseFilter(terms, now)
	if err != nil {
		return f, usageError{err}
	}
	return f, nil
}

// letters yields the letters that the filter chooses, oldest first. A vendor
// that is not set up and has no letters is a wrong argument.
func (a *app) letters(ctx context.Context, f deadletter.Filter, yield func(broker.StoredLetter) error) error {
	choice := broker.LetterFilter{Vendor: f.Vendor, Organization: f.Organization, Reason: f.Reason}
	matching := 0
	err := a.broker.Letters(ctx, choice, func(l broker.StoredLetter) error {
		if !f.Match(&l.Letter) {
			return nil
		}
		matching++
		return yield(l)
	})
	if err != nil || matching > 0 || f.Vendor == "" {
		return err
	}
	return a.checkLetterVendor(ctx, f.Vendor)
}

var errFound = errors.New("found")

// checkLetterVendor refuses a vendor that is not set up, unless it has letters:
// they may be all that is left of it.
func (a *app) checkLetterVendor(ctx context.Context, vendor string) error {
	_, unknown := a.knownVendor(ctx, vendor)
	if unknown == nil {
		return nil
	}
	err := a.broker.Letters(ctx, broker.LetterFilter{Vendor: vendor}, func(broker.StoredLetter) error { return errFound })
	switch {
	case errors.Is(err, errFound):
		return nil
	case err != nil:
		return err
	}
	return unknown
}

func join[T ~string](list []T) string {
	texts := make([]string, len(list))
	for i, item := range list {
		texts[i] = string(item)
	}
	return strings.Join(texts, ", ")
}
