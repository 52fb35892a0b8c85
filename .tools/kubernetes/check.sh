#!/usr/bin/env bash
# Lints and renders the chart with each file of values in its ci directory, and checks what comes
# out; then sees that each file in ci/refused is refused, with the words of its first line.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
go=${GO:-go}
chart=deploy/helm/usagebridge
oldest=$(sed -n 's/^kubeVersion: ">=\(.*\)-0"$/\1/p' "$chart/Chart.yaml")

helm() { "$go" tool -modfile=.tools/kubernetes/go.mod helm "$@"; }
render() { helm template usagebridge "$chart" --namespace billing --kube-version "$oldest" --values "$1"; }

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"$go" build -C .tools/kubernetes -o "$dir/objects" .

failed=0
for values in "$chart"/ci/*.yaml; do
	echo "== $values"
	helm lint --strict --quiet --kube-version "$oldest" --values "$values" "$chart" || failed=1
	render "$values" >"$dir/rendered.yaml" && "$dir/objects" <"$dir/rendered.yaml" || failed=1
done

for values in "$chart"/ci/refused/*.yaml; do
	want=$(sed -n '1s/^# refused: //p' "$values")
	if said=$(render "$values" 2>&1); then
		echo "$values: was taken, want it refused with: $want"
		failed=1
	elif [[ -z $want || $said != *"$want"* ]]; then
		printf '%s: refused with\n%s\nwant: %s\n' "$values" "$said" "$want"
		failed=1
	fi
done
exit "$failed"
