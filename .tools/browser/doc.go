// Package browser has no program: its test drives a headless Chromium through what
// the README promises of onboarding, from nothing to a contract that was changed.
package browser
