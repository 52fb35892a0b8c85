package oemapi

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// Person is somebody who works with the platform for an organization.
type Person struct {
	Email, FirstName, LastName string
	// VendorUserID is the vendor's own id of the person.
	VendorUserID string
}

// NewOrganization is what the platform is told of an organization. All of it but
// VendorOrganizationID is required.
type NewOrganization struct {
	Name string
	// VendorOrganizationID is the vendor's own id of the organization.
	VendorOrganizationID string
	// Owner is its first user.
	Owner Person
}

// Organization is what the platform gives to who makes an organization or adds a
// user to one.
type Organization struct {
	// Token is the organization's permanent OEM token. The platform does not show
	// it again to who asks for the organization: store it before anything else.
	Token Secret
}

func (o Organization) secrets() []Secret { return []Secret{o.Token} }

// person is a user in the platform's words.
type person struct {
	Name                 string `json:"name,omitempty"` // of the organization
	Email                string `json:"email"`
	FirstName            string `json:"firstName"`
	LastName             string `json:"lastName"`
	VendorUserID         string `json:"vendorUserId"`
	VendorOrganizationID string `json:"vendorOrganizationId,omitempty"`
}

func (p Person) words(organization string) person {
	return person{
		Email: p.Email, FirstName: p.FirstName, LastName: p.LastName,
		VendorUserID: p.VendorUserID, VendorOrganizationID: organization,
	}
}

func (p Person) missing() []error {
	return []error{
		given("e-mail", p.Email), given("first name", p.FirstName),
		given("last name", p.LastName), given("vendor user id", p.VendorUserID),
	}
}

// withData is a body that says who asks, and for what.
type withData struct {
	credentials
	Data any `json:"data"`
}

// CreateOrganization makes an organization with its first user. [Exists] says that
// one of that name or id is there; its token is to be had by [Client.AddUser]. An
// answer without a token is [Unexpected]: the organization exists by then.
func (c *Client) CreateOrganization(ctx context.Context, o NewOrganization) (Organization, Result, error) {
	op := operation{name: "create organization", method: http.MethodPost, path: "/organization"}
	if result, err := c.refuse(op, append(o.Owner.missing(), given("organization name", o.Name))...); err != nil {
		return Organization{}, result, err
	}
	data := o.Owner.words(o.VendorOrganizationID)
	data.Name = o.Name
	return call(ctx, c, op, withData{c.credentials(Secret{}), data}, nil, decodeOrganization)
}

// AddUser adds a user to the organization that the vendor knows by that id or, when
// it is empty, to the one of the domain of the user's e-mail address. The platform
// answers with the organization's token, as it did when the organization was made.
func (c *Client) AddUser(ctx context.Context, p Person, vendorOrganizationID string) (Organization, Result, error) {
	op := operation{name: "add user", method: http.MethodPost, path: "/user"}
	if result, err := c.refuse(op, p.missing()...); err != nil {
		return Organization{}, result, err
	}
	return call(ctx, c, op, withData{c.credentials(Secret{}), p.words(vendorOrganizationID)}, nil, decodeOrganization)
}

// RemoveUser takes a user's access to the organization away. The documentation does
// not show how the user is named: we send the vendor's id and the e-mail address.
func (c *Client) RemoveUser(ctx context.Context, organizationOemToken Secret, vendorUserID, email string) (Result, error) {
	op := operation{name: "remove user", method: http.MethodDelete, path: "/user"}
	if result, err := c.refuse(op, validateToken(organizationOemToken), given("vendor user id", vendorUserID), given("e-mail", email)); err != nil {
		return result, err
	}
	body := withData{c.credentials(organizationOemToken), struct {
		VendorUserID string `json:"vendorUserId"`
		Email        string `json:"email"`
	}{vendorUserID, email}}
	_, result, err := call(ctx, c, op, body, []Secret{organizationOemToken}, func([]byte, redactor) (struct{}, error) { return struct{}{}, nil })
	return result, err
}

// Session lets one user in, once.
type Session struct {
	Token Secret
	// Link is where the user is to be sent: who has it is that user.
	Link Secret
}

func (s Session) secrets() []Secret { return []Secret{s.Link, s.Token} }

// OpenSession asks for a link with which a user of the organization gets in without
// a password. Its path and its body are our reading of the documentation.
func (c *Client) OpenSession(ctx context.Context, organizationOemToken Secret, vendorUserID string) (Session, Result, error) {
	op := operation{name: "open session", method: http.MethodPost, path: "/session"}
	if result, err := c.refuse(op, validateToken(organizationOemToken), given("vendor user id", vendorUserID)); err != nil {
		return Session{}, result, err
	}
	body := withData{c.credentials(organizationOemToken), struct {
		VendorUserID string `json:"vendorUserId"`
	}{vendorUserID}}
	return call(ctx, c, op, body, []Secret{organizationOemToken}, decodeSession)
}

func decodeOrganization(body []byte, _ redactor) (Organization, error) {
	var answer struct {
		Token string `json:"organizationOemToken"`
	}
	if err := decode(body, &answer); err != nil {
		return Organization{}, err
	}
	token, err := received("organizationOemToken", answer.Token)
	return Organization{Token: token}, err
}

func decodeSession(body []byte, _ redactor) (Session, error) {
	var answer struct {
		Token string `json:"sessionToken"`
		URL   string `json:"url"`
		Link  string `json:"magicLink"`
	}
	if err := decode(body, &answer); err != nil {
		return Session{}, err
	}
	link := cmp.Or(answer.URL, answer.Link)
	if err := validateLink(link); err != nil {
		return Session{}, err
	}
	return Session{Token: NewSecret(answer.Token), Link: NewSecret(link)}, nil
}

// decode reads an answer that must be an object.
func decode(body []byte, to any) error {
	if !json.Valid(body) || !begins(body, '{') {
		return errors.New("the answer is no JSON object")
	}
	if err := json.Unmarshal(body, to); err != nil {
		if mismatch, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return fmt.Errorf("%s of the answer is a JSON %s; want %s", cmp.Or(mismatch.Field, "a part"), mismatch.Value, mismatch.Type)
		}
		return errors.New("the answer cannot be read") // the cause may quote it
	}
	return nil
}
