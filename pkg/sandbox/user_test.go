package sandbox_test

import (
	"testing"

	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

func TestAUserJoinsAnOrganizationAndGetsItsToken(t *testing.T) {
	p := startOEM(t, sandbox.Config{})
	token := p.organization(best)
	p.organization(fields{"name": "Twin A", "email": "a@twin.example", "firstName": "A", "lastName": "T", "vendorUserId": "a", "vendorOrganizationId": "twin-a"})
	p.organization(fields{"name": "Twin B", "email": "b@twin.example", "firstName": "B", "lastName": "T", "vendorUserId": "b", "vendorOrganizationId": "twin-b"})
	for _, tt := range []struct {
		name   string
		data   fields
		status int
		want   string
	}{
		{"by the vendor's id", ben.with(fields{"vendorOrganizationId": "best-1"}), 201, `"message":"user \"u-2\" added to organization \"best-1\"","organizationOemToken":"` + token},
		{"once more, for whom the answer was lost", ben.with(fields{"vendorOrganizationId": "best-1"}), 201, `is in organization \"best-1\"","organizationOemToken":"` + token},
		{"with an e-mail in other letters", ben.with(fields{"email": "BEN@BEST.example"}), 201, token},
		{"by the domain of the e-mail", ben.with(fields{"vendorUserId": "u-3", "email": "cid@Best.Example"}), 201, token},
		{"the owner", best.with(fields{"name": nil}), 201, token},
		{"with another e-mail", ben.with(fields{"email": "ben2@best.example"}), 409, `data.vendorUserId \"u-2\" is a user with another e-mail`},
		{"with another's e-mail", ben.with(fields{"vendorUserId": "u-9"}), 409, "data.email is that of a user with another vendorUserId"},
		{"of another organization", ben.with(fields{"vendorOrganizationId": "twin-a"}), 409, `data.email belongs to a user of organization \"best-1\"`},
		{"of an unknown organization", ben.with(fields{"vendorOrganizationId": "best-2"}), 404, `data.vendorOrganizationId \"best-2\" is that of no organization`},
		{"by the partner's id, which is no vendor's", ben.with(fields{"vendorOrganizationId": "org-2"}), 404, "is that of no organization"},
		{"of an unknown domain", ben.with(fields{"email": "ben@nobody.example"}), 404, `e-mail addresses of \"nobody.example\"`},
		{"of a domain that two share", ben.with(fields{"email": "ben@twin.example"}), 409, "2 organizations have users"},
		{"with an id that another organization's user has", ben.with(fields{"vendorUserId": "u-1", "email": "c@twin.example", "vendorOrganizationId": "twin-a"}), 201, "added"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p.t = t
			p.want(p.oemCall("POST", "/user", fields{"data": tt.data}), tt.status, tt.want)
		})
	}
	users := map[string]int{}
	for _, o := range p.Organizations() {
		users[o.Name] = len(o.Users)
	}
	if users["best-1"] != 3 || users["twin-a"] != 2 || users["twin-b"] != 1 {
		t.Errorf("got users %v; want 3 of best-1, 2 of twin-a, 1 of twin-b", users)
	}
}

func TestARemovedUserIsGoneWithAllLinks(t *testing.T) {
	p := startOEM(t, sandbox.Config{})
	token := p.organization(best)
	p.tokenIn(p.oemCall("POST", "/user", fields{"data": ben}))
	link, visitor := p.session(token, "u-2").URL, p.visitor()
	visitor.open(p.session(token, "u-2").URL, "Welcome, Ben Noon")
	remove := func(id, email string) reply {
		return p.oemCall("DELETE", "/user", fields{"organizationOemToken": token, "data": fields{"vendorUserId": id, "email": email}})
	}
	p.want(remove("u-2", "ann@best.example"), 404, `{"status":404,"message":"organization \"best-1\" has no user`)
	p.want(remove("u-9", "ben@best.example"), 404)
	p.want(remove("u-2", "Ben@best.example"), 201, `{"status":201,"message":"user \"u-2\" removed from organization \"best-1\""}`)
	p.want(remove("u-2", "ben@best.example"), 404)
	p.want(p.oemCall("POST", "/session", fields{"organizationOemToken": token, "data": fields{"vendorUserId": "u-2"}}), 404, "no user with data.vendorUserId")
	visitor.want(visitor.get(link), 404, "This link is unknown")
	visitor.want(visitor.get("/wizard"), 401, "You are not signed in")
	p.session(token, "u-1")
	p.tokenIn(p.oemCall("POST", "/user", fields{"data": ben.with(fields{"vendorUserId": "u-7"})})) // the address is free again
}
