package status_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/consumers/status"
)

// sealedRecord has tokens, as after having been added.
func sealedRecord() status.Integration {
	i := connected()
	i.APIURL, i.VendorToken, i.PartnerToken = "https://one.example/api", "v1", "p1"
	i.Marks, i.Credentials = status.Marks{Vendor: "mv1", Partner: "mp1"}, "c1"
	return i
}

// replace is what happens when credentials are set.
func replace(i *status.Integration, at time.Time, overlap time.Duration, n int) bool {
	kept := i.KeepPrevious(at, overlap)
	i.VendorToken, i.PartnerToken = fmt.Sprint("v", n), fmt.Sprint("p", n)
	i.Marks = status.Marks{Vendor: fmt.Sprint("mv", n), Partner: fmt.Sprint("mp", n)}
	if kept {
		i.Previous.Elsewhere = true
	}
	return kept
}

func TestFormerCredentialsAreKeptForTheOverlapIfTheyAreOfUse(t *testing.T) {
	i := sealedRecord()
	if !replace(&i, noon, time.Hour, 2) {
		t.Fatal("credentials that the partner takes are not kept")
	}
	want := status.Previous{
		APIURL: "https://one.example/api", VendorToken: "v1", PartnerToken: "p1", Elsewhere: true,
		Marks: status.Marks{Vendor: "mv1", Partner: "mp1"}, Until: noon.Add(time.Hour),
	}
	if !reflect.DeepEqual(*i.Previous, want) {
		t.Errorf("got %+v, want %+v", *i.Previous, want)
	}
	if !i.Overlapping(noon) || i.Overlapping(noon.Add(time.Hour)) {
		t.Error("got an overlap that does not last from noon for an hour")
	}
	if none := sealedRecord(); replace(&none, noon, 0, 2) || none.Previous != nil {
		t.Errorf("without an overlap: got %+v kept, want nothing", none.Previous)
	}
	refused := sealedRecord()
	take(t, &refused, status.CredentialsRefused, status.Observation{At: noon})
	if replace(&refused, noon, time.Hour, 2) || refused.Previous != nil {
		t.Errorf("refused by the partner: got %+v kept, want nothing", refused.Previous)
	}
}

func TestCredentialsThatAreInUseOutliveWrongOnesThatReplacedThem(t *testing.T) {
	i := sealedRecord()
	replace(&i, noon, time.Hour, 2)
	i.UsePrevious(status.Observation{At: noon})
	replace(&i, noon.Add(time.Minute), time.Hour, 3)
	if p := i.Previous; p == nil || p.VendorToken != "v1" || !p.Used.IsZero() || !p.Until.Equal(noon.Add(time.Hour+time.Minute)) {
		t.Errorf("got %+v, want the first ones for another hour: the second ones were never taken", p)
	}
	unused := sealedRecord()
	replace(&unused, noon, time.Hour, 2)
	replace(&unused, noon, time.Hour, 3)
	if p := unused.Previous; p == nil || p.VendorToken != "v2" {
		t.Errorf("got %+v, want the second ones, which were in use", p)
	}
	late := sealedRecord()
	replace(&late, noon, time.Hour, 2)
	late.UsePrevious(status.Observation{At: noon})
	replace(&late, noon.Add(2*time.Hour), time.Hour, 3)
	if p := late.Previous; p == nil || p.VendorToken != "v2" {
		t.Errorf("got %+v, want the second ones: the overlap of the first ones was over", p)
	}
}

func TestEverythingIsSentAgainOnceTheNewCredentialsAreTakenIfTheyLeadElsewhere(t *testing.T) {
	at := func(minutes int) status.Observation {
		return status.Observation{At: noon.Add(time.Duration(minutes) * time.Minute), Actor: "worker w", Message: "seen"}
	}
	for _, elsewhere := range []bool{true, false} {
		i := sealedRecord()
		replace(&i, noon, time.Hour, 2)
		i.Previous.Elsewhere = elsewhere
		if _, changed := i.UsePresent(at(1)); changed {
			t.Error("the new ones in use from the start: got a change, want none")
		}
		if !i.UsePrevious(at(1)) || i.UsePrevious(at(2)) || !i.Previous.Used.Equal(at(1).At) {
			t.Errorf("got %+v, want the previous ones noted in use once", i.Previous)
		}
		if got := i.Previous.Strayed(); got != elsewhere {
			t.Errorf("elsewhere %t: got strayed %t", elsewhere, got)
		}
		generation := i.Generation
		transition, changed := i.UsePresent(at(3))
		if !changed || !i.Previous.Used.IsZero() || transition.Recorded() != elsewhere || (i.Generation > generation) != elsewhere {
			t.Errorf("elsewhere %t: got %+v, generation %d after %d; want everything sent again only if it went elsewhere",
				elsewhere, transition, i.Generation, generation)
		}
	}
	var none *status.Previous
	if none.Strayed() {
		t.Error("got figures gone elsewhere without previous credentials")
	}
}

func TestAnOverlapEndsWithEverythingSentAgainIfFiguresWentElsewhere(t *testing.T) {
	for _, used := range []bool{true, false} {
		i := sealedRecord()
		if _, changed := i.EndOverlap(status.Observation{At: noon}); changed {
			t.Error("without previous credentials: got a change, want none")
		}
		replace(&i, noon, time.Hour, 2)
		if used {
			i.UsePrevious(status.Observation{At: noon})
		}
		generation := i.Generation
		if _, changed := i.EndOverlap(status.Observation{At: noon.Add(time.Hour - time.Second)}); changed {
			t.Error("before its end: got a change, want none")
		}
		transition, changed := i.EndOverlap(status.Observation{At: noon.Add(time.Hour), Actor: "worker w"})
		if !changed || i.Previous != nil || transition.Recorded() != used || (i.Generation > generation) != used {
			t.Errorf("used %t: got %+v and previous %+v, want them dropped, and everything sent again if they were used", used, transition, i.Previous)
		}
	}
}

func TestEverySealedTextOfARecordIsListed(t *testing.T) {
	i := sealedRecord()
	names := func() (list []string) {
		for _, s := range i.Sealed() {
			list = append(list, s.Name+"="+*s.Text)
			*s.Text += "'"
		}
		return list
	}
	if got, want := names(), []string{"vendor_token=v1", "partner_token=p1"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	replace(&i, noon, time.Hour, 2)
	i.OEMToken = "o1"
	want := []string{"vendor_token=v2", "partner_token=p2", "oem_token=o1", "previous.vendor_token=v1'", "previous.partner_token=p1'"}
	if got := names(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	// Whatever has token in its name in the stored record is sealed.
	text, err := json.Marshal(&i)
	if err != nil {
		t.Fatal(err)
	}
	var record map[string]any
	if err := json.Unmarshal(text, &record); err != nil {
		t.Fatal(err)
	}
	tokens := 0
	for _, fields := range []any{record, record["previous"]} {
		for name := range fields.(map[string]any) {
			if len(name) > 6 && name[len(name)-6:] == "_token" {
				tokens++
			}
		}
	}
	if tokens != len(want) {
		t.Errorf("the stored record has %d fields with tokens, %d are listed", tokens, len(want))
	}
}
