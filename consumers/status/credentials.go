package status

import "time"

// Marks are fingerprints of tokens: keyed digests that say nothing of a token
// but whether it is the same. Empty: of a version that made none.
type Marks struct {
	Vendor  string `json:"vendor,omitempty"`
	Partner string `json:"partner,omitempty"`
	OEM     string `json:"oem,omitempty"`
}

// Previous are credentials that others have replaced. For a while, the overlap,
// they may be used if the partner refuses the present ones: a platform may know
// new tokens later than we do.
type Previous struct {
	APIURL       string    `json:"api_url"`       // the only address to which they are ever sent
	VendorToken  string    `json:"vendor_token"`  // sealed
	PartnerToken string    `json:"partner_token"` // sealed
	Marks        Marks     `json:"marks,omitzero"`
	Until        time.Time `json:"until"`
	// Elsewhere says that they may lead to something else at the partner: the
	// partner token or the address is another. What was sent with them is sent
	// again with the present ones.
	Elsewhere bool `json:"elsewhere,omitempty"`
	// Used is since when calls go with them; zero: calls go with the present
	// ones.
	Used time.Time `json:"used,omitzero"`
}

// Strayed says that figures may have gone elsewhere, since calls went with these
// credentials: whoever drops them has everything sent again. Nil has none.
func (p *Previous) Strayed() bool { return p != nil && p.Elsewhere && !p.Used.IsZero() }

// KeepPrevious keeps the credentials of the record, which are about to be
// replaced, for so long; 0: not at all. Not worth keeping are those that the
// partner refuses: if it takes the previous ones instead, these are kept on. It
// says whether there are any now. See [Previous.Strayed].
func (i *Integration) KeepPrevious(now time.Time, overlap time.Duration) bool {
	former, overlapping := i.Previous, i.Overlapping(now)
	i.Previous = nil
	switch {
	case overlap <= 0 || i.Hold == unauthorized:
		return false
	case overlapping && !former.Used.IsZero():
		former.Used = time.Time{}
		i.Previous = former
	default:
		i.Previous = &Previous{APIURL: i.APIURL, VendorToken: i.VendorToken, PartnerToken: i.PartnerToken, Marks: i.Marks}
	}
	i.Previous.Until = now.Add(overlap)
	return true
}

// Overlapping says whether the previous credentials may be used.
func (i *Integration) Overlapping(now time.Time) bool {
	return i.Previous != nil && now.Before(i.Previous.Until)
}

// UsePrevious notes that the partner refuses the present credentials and takes
// the previous ones. It is to be stored before anything is recorded as
// delivered that went with them. changed is false if it has been noted.
func (i *Integration) UsePrevious(o Observation) (changed bool) {
	if i.Previous == nil || !i.Previous.Used.IsZero() {
		return false
	}
	i.Previous.Used = o.At
	return true
}

// UsePresent notes that the partner takes the present credentials after the
// previous ones had been used. If these led elsewhere, everything is sent
// again, and t is to be put on record.
func (i *Integration) UsePresent(o Observation) (t Transition, changed bool) {
	if i.Previous == nil || i.Previous.Used.IsZero() {
		return Transition{}, false
	}
	if i.Previous.Strayed() {
		t, _ = i.Take(CredentialsRenewed, o)
	}
	i.Previous.Used = time.Time{}
	return t, true
}

// EndOverlap drops the previous credentials when their time is over. If calls
// went with them it is as if the partner had taken the present ones: their next
// use shows whether it does.
func (i *Integration) EndOverlap(o Observation) (t Transition, changed bool) {
	if i.Previous == nil || o.At.Before(i.Previous.Until) {
		return Transition{}, false
	}
	t, _ = i.UsePresent(o)
	i.Previous = nil
	return t, true
}

// SealedText is one ciphertext of a record.
type SealedText struct {
	Name string  // of the field
	Text *string // never empty
}

// Sealed lists the ciphertexts of the record, for whoever seals them anew. All
// are sealed for its [Integration.Name].
func (i *Integration) Sealed() []SealedText {
	all := []SealedText{{"vendor_token", &i.VendorToken}, {"partner_token", &i.PartnerToken}, {"oem_token", &i.OEMToken}}
	if p := i.Previous; p != nil {
		all = append(all, SealedText{"previous.vendor_token", &p.VendorToken}, SealedText{"previous.partner_token", &p.PartnerToken})
	}
	var sealed []SealedText
	for _, s := range all {
		if *s.Text != "" {
			sealed = append(sealed, s)
		}
	}
	return sealed
}
