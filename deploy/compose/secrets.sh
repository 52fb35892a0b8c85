#!/bin/sh
# Makes the certificates, nkeys and tokens of docker-compose.yml once, and gives each of them to
# those who need it: each directory below /secrets is a volume that is mounted there alone.
set -eu
umask 077

authority=/secrets/authority
VENDORS=acme /src/deploy/nats/secrets.sh "$authority" nats,localhost,127.0.0.1 nats-1,nats,127.0.0.1 nats-2,nats,127.0.0.1 nats-3,nats,127.0.0.1
cd "$authority"

# The sandbox asks for these tokens, and the integration is added with them; the last one is the
# vendor's secret at its OEM-API.
for token in vendor.token partner.token oem.secret; do
	[ -e "$token" ] && continue
	openssl rand -hex 16 >"$token.new"
	mv "$token.new" "$token"
done

# give OWNER DIRECTORY FILE… puts the files there whole, one after the other.
give() {
	owner=$1 directory=$2
	shift 2
	for file in "$@"; do
		install -m 0400 -o "$owner" -g "$owner" "$file" "$directory/.new"
		mv "$directory/.new" "$directory/$file"
	done
}

give 0 /secrets/nats ca.pem nkeys.env nats.pem nats.key nats-1.pem nats-1.key nats-2.pem nats-2.key nats-3.pem nats-3.key
give 65532 /secrets/worker ca.pem worker.nk oem.secret
give 65532 /secrets/operator ca.pem operator.nk oem.secret
give 65532 /secrets/partner vendor.token partner.token oem.secret
