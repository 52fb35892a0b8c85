package sandbox

import (
	"crypto/rand"
	"fmt"
)

// IssueTokens gives the integration a new partner token and returns it with the rest. The
// one before is good no more; a request that was let in with it lives through its fault. It
// returns [ErrConflict] for an integration that keeps credentials instead.
func (s *Sandbox) IssueTokens(name string) (Integration, error) {
	var out Integration
	err := s.change("issue tokens", name, func(in *integration) error {
		if in.credentialsKind() {
			return fmt.Errorf("%w: it is of the credentials kind, which has none", ErrConflict)
		}
		delete(s.byToken, in.credentials())
		in.partnerToken = "partner-" + rand.Text()
		s.byToken[in.credentials()] = in
		out = Integration{
			Name: in.name, ID: in.id, Dialect: in.dialect,
			VendorToken: in.vendorToken, PartnerToken: in.partnerToken,
		}
		if in.organization != nil {
			out.OEMToken = in.organization.token
		}
		return nil
	})
	return out, err
}

// RevokeTokens makes every request with the integration's token a 401, until
// [Sandbox.IssueTokens]. Everything else about the integration stays. Revoking twice is harmless.
func (s *Sandbox) RevokeTokens(name string) error {
	return s.change("revoke tokens", name, func(in *integration) error {
		delete(s.byToken, in.credentials())
		in.partnerToken = ""
		return nil
	})
}

// SetAnomaly makes the partner refuse every well-formed count of an integration that is
// ready for counts with 403, as for a usage it finds odd, or ends that. Resets leave it.
func (s *Sandbox) SetAnomaly(name string, on bool) error {
	return s.change("set anomaly", name, func(in *integration) error {
		in.anomaly = on
		return nil
	})
}

// add puts a new integration where names and tokens find it, or changes nothing.
func (s *Sandbox) add(in *Integration) (*integration, error) {
	credentials := in.VendorToken + ":" + in.PartnerToken
	if s.byName[in.Name] != nil {
		return nil, fmt.Errorf("add integration %q: %w: the name is taken", in.Name, ErrConflict)
	}
	if other := s.byToken[credentials]; other != nil {
		return nil, fmt.Errorf("add integration %q: %w: %q has the same pair of tokens", in.Name, ErrConflict, other.name)
	}
	it := newIntegration(*in, s.config.Human == HumanAuto, s.config.HumanDelay)
	if err := s.join(in, it); err != nil {
		return nil, fmt.Errorf("add integration %q: %w", in.Name, err)
	}
	s.byName[in.Name] = it
	if in.PartnerToken != "" { // else it is of the kind that never calls
		s.byToken[credentials], s.vendorTokens[in.VendorToken] = it, true
	}
	return it, nil
}
