package statement

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"time"
)

//go:embed page.html
var pageText string

var page = template.Must(template.New("statement").Funcs(template.FuncMap{
	"instant": shownInstant, "age": shownAge, "unknown": unknown,
}).Parse(pageText))

// HTML writes the statement as one page that needs nothing else, to be read on
// a screen or printed.
func (s *Statement) HTML() ([]byte, error) {
	var b bytes.Buffer
	if err := page.Execute(&b, s); err != nil {
		return nil, fmt.Errorf("write statement as HTML: %w", err)
	}
	return b.Bytes(), nil
}

// shownInstant is a time for people, to the second, in UTC.
func shownInstant(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05")
}

// shownAge is an age for people, in its two greatest units.
func shownAge(age *int64) string {
	if age == nil {
		return "—"
	}
	n, sign := *age, ""
	if n < 0 {
		n, sign = -n, "−"
	}
	switch {
	case n < 60:
		return fmt.Sprintf("%s%d s", sign, n)
	case n < 3600:
		return fmt.Sprintf("%s%d min %d s", sign, n/60, n%60)
	case n < 48*3600:
		return fmt.Sprintf("%s%d h %d min", sign, n/3600, n%3600/60)
	}
	return fmt.Sprintf("%s%d d %d h", sign, n/86400, n%86400/3600)
}

// unknown fills the place of what is not there.
func unknown(text string) string {
	if text == "" {
		return "—"
	}
	return text
}
