package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

func (c *cli) copySecretsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "copy-secrets FROM TO",
		Short: "Copy files with secrets, so that nobody but this user can read them",
		Long: `Copies the files of one directory into another that exists, with mode 0600.

Keys that others may use are refused. Kubernetes gives the files of a Secret to
root, or to root and a group that may read them (fsGroup), and to no other user.
The latter are taken where the program does not run as root; everywhere else an
init container copies them with this command into a volume in memory.`,
		Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			copied, err := copySecrets(args[0], args[1])
			if err == nil {
				c.say("%s copied", plural(copied, "file", "files"))
			}
			return err
		},
	}
}

// copySecrets says how many files it copied. Names that begin with a dot are
// Kubernetes' own, through which it exchanges all files of a volume at once.
func copySecrets(from, to string) (int, error) {
	entries, err := os.ReadDir(from)
	if err != nil {
		return 0, usagef("copy secrets: %w", err)
	}
	copied := 0
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		path := filepath.Join(from, entry.Name())
		info, err := os.Stat(path) // of what a link points to
		if err != nil {
			return copied, usagef("copy secrets: %w", err)
		}
		if !info.Mode().IsRegular() {
			return copied, usagef("copy secrets: %s is no regular file (%s)", path, info.Mode())
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return copied, usagef("copy secrets: %w", err)
		}
		if err := writeWhole("copy secrets:", filepath.Join(to, entry.Name()), writing(data)); err != nil {
			return copied, fmt.Errorf("copy %s: %w", path, err)
		}
		copied++
	}
	if copied == 0 {
		return 0, usagef("copy secrets: %s holds no file", from)
	}
	return copied, nil
}
