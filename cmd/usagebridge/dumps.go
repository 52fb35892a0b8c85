package main

import (
	"fmt"
	"os"
	"strconv"
)

// keepSecretsInMemory keeps the system from writing this process, with every
// secret that it has opened, to a disk, and others from looking into it. Every
// command does so before anything else: most open secrets.
func keepSecretsInMemory() error {
	if allowed, err := strconv.ParseBool(os.Getenv(envPrefix + "_CORE_DUMPS")); err == nil && allowed {
		return nil
	}
	if err := forbidDumps(); err != nil {
		return fmt.Errorf("an image of this process could be written when it crashes: %w", err)
	}
	return nil
}
