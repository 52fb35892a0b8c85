package main

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
)

// problemMark stands behind what is wrong in an event.
const problemMark = "  ← problem"

// markedBody indents JSON, marks the members at the JSON Pointers, and keeps
// everything else as it is, apart from what would reach into the terminal. In
// place of a member that is missing the value that should have it is marked.
func markedBody(body []byte, index int, pointers []string) string {
	var b bytes.Buffer
	pretty := json.Indent(&b, bytes.TrimSpace(body), "", "  ") == nil
	if pretty {
		body = b.Bytes()
	}
	lines := strings.Split(strings.TrimRight(string(body), "\n"), "\n")
	for i, line := range lines {
		lines[i] = printable(line)
	}
	if !pretty {
		return strings.Join(lines, "\n")
	}
	marked := map[int]bool{}
	for _, pointer := range pointers {
		path, ok := memberPath(body, index, pointer)
		if !ok {
			continue
		}
		offset, missing := locate(body, path)
		line := bytes.Count(body[:offset], []byte("\n"))
		switch {
		case missing != "":
			lines[line] += problemMark + ": " + printable(missing) + " is missing"
		case !marked[line]:
			lines[line] += problemMark
		}
		marked[line] = true
	}
	return strings.Join(lines, "\n")
}

// memberPath cuts a JSON Pointer (RFC 6901) that names a member. That of an
// event in a batch begins with the event's place, which the event by itself
// does not have.
func memberPath(body []byte, index int, pointer string) (path []string, ok bool) {
	rest, found := strings.CutPrefix(pointer, "/")
	if !found {
		return nil, false // the whole event, or a header
	}
	path = strings.Split(rest, "/")
	for i, name := range path {
		path[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(name)
	}
	if path[0] == strconv.Itoa(index) && !bytes.HasPrefix(body, []byte("[")) {
		path = path[1:]
	}
	return path, len(path) > 0
}

// locate finds where the value at the path begins in indented JSON: somewhere
// in its first line. Where a part of the path is missing, it is the name of
// that, and the offset is that of the value that should have it.
func locate(body []byte, path []string) (offset int64, missing string) {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber() // a number may be too large for every type
	for {
		token, err := decoder.Token()
		if err != nil {
			return 0, ""
		}
		offset = decoder.InputOffset()
		if len(path) == 0 {
			return offset, ""
		}
		if token != json.Delim('{') && token != json.Delim('[') || !enter(decoder, token, path[0]) {
			return offset, path[0]
		}
		path = path[1:]
	}
}

// enter goes to the member or element of that name, and says if there is one.
func enter(decoder *json.Decoder, token json.Token, name string) bool {
	for i := 0; decoder.More(); i++ {
		at := strconv.Itoa(i)
		if token == json.Delim('{') {
			key, err := decoder.Token()
			if err != nil {
				return false
			}
			at, _ = key.(string)
		}
		if at == name {
			return true
		}
		var skipped json.RawMessage
		if decoder.Decode(&skipped) != nil {
			return false
		}
	}
	return false
}
