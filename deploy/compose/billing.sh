#!/bin/sh
# Plays the billing system of docker-compose.yml: a catalog once, and then a count every PAUSE
# seconds, over HTTP to whichever worker takes it. It needs a shell with the tools of busybox.
set -eu

workers=${WORKERS:-http://worker-1:8080 http://worker-2:8080}
vendor=${VENDOR:-acme}
organization=${ORGANIZATION:-demo-msp}
pause=${PAUSE:-2}

# send TYPE DATA publishes one event, and tries until a worker says that the log has it. The event
# keeps its id and its time, so a repeat is dropped by the server.
send() {
	body=$(printf '{"specversion":"1.0","id":"%s","source":"//billing.%s.example","type":"%s","time":"%s","datacontenttype":"application/json","data":{"vendorId":"%s","organizationId":"%s",%s}}' \
		"$(cat /proc/sys/kernel/random/uuid)" "$vendor" "$1" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$vendor" "$organization" "$2")
	while :; do
		for worker in $workers; do
			if said=$(timeout 10 wget -q -O /dev/null --header 'Content-Type: application/cloudevents+json' --post-data "$body" "$worker/ingest/v1/events" 2>&1); then
				touch /tmp/sent # what the health check looks at
				return
			fi
		done
		echo "no worker has taken $1 of $vendor/$organization: trying again in $pause s: $said" >&2
		sleep "$pause"
	done
}

# random N is a number from 0 to N-1.
random() {
	echo $(($(od -An -N2 -tu2 /dev/urandom) % $1))
}

for service in backup mail storage; do
	send catalog.service.v1 "\"serviceId\":\"$service\",\"name\":\"$service\""
done
for account in 1 2 3 4 5 6 7 8; do
	send catalog.account.v1 "\"accountId\":\"a-$account\",\"name\":\"Customer $account\""
done
echo "the catalog is published, a count follows every $pause s"

while :; do
	case $(random 3) in
	0) service=backup ;;
	1) service=mail ;;
	*) service=storage ;;
	esac
	send usage.count.v1 "\"accountId\":\"a-$(($(random 8) + 1))\",\"serviceId\":\"$service\",\"unitCount\":$(random 500)"
	sleep "$pause"
done
