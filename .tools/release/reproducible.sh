#!/usr/bin/env bash
# Builds the last commit twice, in two directories, with nothing cached in between, and compares
# the bytes. What is not committed does not count: it is not what would be released.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
go=${GO:-go}
root=$PWD
commit=$(git rev-parse HEAD) # of now: there may be another when the second build begins
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# build DIRECTORY: with a cache of its own, else the second binary would be made of the parts of
# the first; with another time zone and umask, as on another machine.
build() {
	mkdir -p "$dir/$1"
	git clone --quiet --no-checkout "$root" "$dir/$1/source"
	git -C "$dir/$1/source" checkout --quiet --detach "$commit"
	(
		cd "$dir/$1/source"
		GOCACHE="$dir/$1/cache" GOFLAGS=${REPRODUCIBLE_GOFLAGS:-} CGO_ENABLED=0 "$go" build -trimpath -buildvcs=true -o "$dir/$1/usagebridge" ./cmd/usagebridge
	)
	rm -rf "$dir/$1/cache" "$dir/$1/source"
}

TZ=UTC build one
(umask 077 && TZ=Asia/Kathmandu build another/directory/with/a/longer/name)

one=$dir/one/usagebridge
another=$dir/another/directory/with/a/longer/name/usagebridge
if ! cmp "$one" "$another"; then
	diff <("$go" version -m "$one") <("$go" version -m "$another") || true
	echo "two builds of $commit differ"
	exit 1
fi
if grep -aqF "$dir" "$one"; then
	echo "the binary holds the path of the directory that it was built in"
	exit 1
fi
"$go" version -m "$one" | grep -E '^[[:space:]]+(mod|build[[:space:]]+vcs)'
sha256sum "$one" | sed "s|$dir/one/||"
