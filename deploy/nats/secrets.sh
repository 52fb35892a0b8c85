#!/bin/sh
# Makes what nats.conf, cluster.conf and auth.conf ask for, and what the bridge shows to them:
#
#   secrets.sh DIRECTORY NODE[,NAME…]…
#
#   ca.pem, ca.key             the authority that signs the nodes' certificates, for ten years
#   NODE.pem, NODE.key         one for each node, for two years, for its NODE and other NAMEs or addresses
#   operator.nk, worker.nk     seeds of the users of auth.conf (USAGEBRIDGE_NATS_NKEY)
#   VENDOR.nk                  the seed of a vendor's billing system, for each of $VENDORS ("acme"):
#                              hand it over
#   nkeys.env                  their public keys, for the environment of every nats-server
#
# What is there is left as it is, so it can be run again for another node, or for a new certificate
# once the old NODE.pem is removed. It needs openssl and nk (go install github.com/nats-io/nkeys/nk@latest,
# or `make nk` here). ca.key signs whoever joins the cluster: keep it off every node.
set -eu
umask 077

[ $# -ge 2 ] || { echo "use: $0 DIRECTORY NODE[,NAME…]…" >&2; exit 2; }
for tool in openssl nk; do
	command -v "$tool" >/dev/null || { echo "$0: $tool is missing" >&2; exit 1; }
done

# openssl talks while all goes well.
quietly() {
	said=$("$@" 2>&1) || { echo "$said" >&2; exit 1; }
}

dir=$1
shift
mkdir -p "$dir"
cd "$dir"

# Aside and then into place: what is there under its own name is whole.
if ! [ -e ca.pem ]; then
	quietly openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256 -days 3650 \
		-subj '/CN=usagebridge NATS' -addext 'keyUsage=critical,keyCertSign,cRLSign' \
		-keyout ca.key -out ca.pem.new
	mv ca.pem.new ca.pem
fi

for node in "$@"; do
	name=${node%%,*}
	[ -e "$name.pem" ] && continue
	sans=
	for san in $(echo "$node" | tr , ' '); do
		case $san in
		*[!0-9.]*) sans=$sans,DNS:$san ;;
		*) sans=$sans,IP:$san ;;
		esac
	done
	printf '%s\n' "subjectAltName=${sans#,}" 'basicConstraints=critical,CA:FALSE' \
		'keyUsage=critical,digitalSignature' 'extendedKeyUsage=serverAuth,clientAuth' >"$name.ext"
	quietly openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256 \
		-subj "/CN=$name" -keyout "$name.key" -out "$name.csr"
	quietly openssl x509 -req -sha256 -days 730 -in "$name.csr" -extfile "$name.ext" \
		-CA ca.pem -CAkey ca.key -CAcreateserial -out "$name.pem.new"
	rm "$name.ext" "$name.csr"
	mv "$name.pem.new" "$name.pem"
done

for user in operator worker ${VENDORS:-acme}; do
	[ -e "$user.nk" ] && continue
	nk -gen user >"$user.nk.new"
	mv "$user.nk.new" "$user.nk"
done
for user in operator worker ${VENDORS:-acme}; do
	echo "NATS_NKEY_$(echo "$user" | tr a-z- A-Z_)=$(nk -inkey "$user.nk" -pubout)"
done >nkeys.env.new
mv nkeys.env.new nkeys.env
