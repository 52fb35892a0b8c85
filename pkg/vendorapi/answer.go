package vendorapi

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// read makes one call that asks for something. Without a decoded answer there
// is none of it at all.
func read[T any](ctx context.Context, c *Client, op operation, decode func([]byte) (T, error)) (T, Result, error) {
	var none T
	op.method, op.reads, op.needs = http.MethodGet, true, Reading
	result, body, err := c.exchange(ctx, op, nil)
	if err != nil {
		return none, result, err
	}
	value, err := decode(body)
	if err != nil {
		// Some platforms answer 200 and say no in words.
		if said := result.Message; said != "" && json.Valid(body) {
			err = fmt.Errorf("%w: %s", err, said)
		}
		failure := c.unreadable(op, err, result.StatusCode)
		result.Message = failure.message
		return none, result, failure
	}
	return value, result, nil
}

// text is a string of an answer. Ids come as numbers from some platforms and
// keep every digit; what is neither string nor number is empty.
type text string

// UnmarshalJSON never fails.
func (t *text) UnmarshalJSON(raw []byte) error {
	*t = ""
	switch {
	case raw[0] == '"':
		return json.Unmarshal(raw, (*string)(t))
	case raw[0] == '-' || (raw[0] >= '0' && raw[0] <= '9'):
		*t = text(raw)
	}
	return nil
}

// identity is the id of a thing, under the name of today or of before.
type identity struct {
	ID    text `json:"id"`
	OldID text `json:"_id"`
}

func (i identity) id() string { return string(cmp.Or(i.ID, i.OldID)) }

func (i identity) fault() error {
	if i.id() == "" {
		return errors.New("has no id")
	}
	return nil
}

// unwrapped returns what a body {"data": ...} holds, else the body itself.
func unwrapped(body []byte) []byte {
	var envelope struct {
		Data json.RawMessage `json:"data"`
	}
	if json.Unmarshal(body, &envelope) == nil && (begins(envelope.Data, '{') || begins(envelope.Data, '[')) {
		return envelope.Data
	}
	return body
}

// decodeObject reads one object, wrapped or not.
func decodeObject[T any](body []byte) (T, error) {
	var object T
	body, err := structured(body, '{', "one object")
	if err != nil {
		return object, err
	}
	return object, json.Unmarshal(body, &object)
}

// decodeArray reads an array of objects, wrapped or not; the first element that
// cannot be understood ends it, with its index from 0.
func decodeArray[From, To any](body []byte, element string, convert func(From) (To, error)) ([]To, error) {
	body, err := structured(body, '[', "an array")
	if err != nil {
		return nil, err
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(body, &raw); err != nil {
		return nil, err
	}
	list := make([]To, len(raw))
	for i := range raw {
		var from From
		if !begins(raw[i], '{') {
			return nil, fmt.Errorf("%s %d: is no object", element, i)
		}
		if err := json.Unmarshal(raw[i], &from); err != nil {
			return nil, fmt.Errorf("%s %d: %w", element, i, err)
		}
		if list[i], err = convert(from); err != nil {
			return nil, fmt.Errorf("%s %d: %w", element, i, err)
		}
	}
	return list, nil
}

// structured returns the part of a JSON body that begins with the delimiter.
func structured(body []byte, delimiter byte, want string) ([]byte, error) {
	body = bytes.TrimSpace(body)
	if len(body) == 0 {
		return nil, fmt.Errorf("the answer is empty; want %s in JSON", want)
	}
	if !json.Valid(body) {
		return nil, fmt.Errorf("the answer is not JSON; want %s", want)
	}
	if !begins(body, delimiter) || delimiter == '{' {
		body = unwrapped(body)
	}
	if !begins(body, delimiter) {
		return nil, fmt.Errorf("the answer is JSON of another kind; want %s, alone or as data", want)
	}
	return body, nil
}

func begins(body []byte, delimiter byte) bool {
	return len(body) > 0 && body[0] == delimiter
}
