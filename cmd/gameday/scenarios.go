//go:build unix

package main

import "slices"

// scenarios lists all of them in the order in which they are played. Those that
// leave something broken behind come last, or get a world of their own.
func scenarios() []scenario {
	return slices.Concat(partnerScenarios(), figureScenarios(), foldScenarios(), workerScenarios(), storeScenarios())
}
