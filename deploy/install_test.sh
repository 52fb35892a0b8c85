#!/bin/bash
# Runs every block of commands (```sh) of install.md and backup.md, in their order, as they stand
# there, under a systemd of their own: in namespaces with a network, processes and a view of /etc,
# /root, /var and /usr/local of their own. Nothing of it is left, and no port of this machine is used.
# It needs root and openssl.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
repository=$PWD

# boot makes the view and becomes systemd. Of this machine's units none is there.
boot() {
	mount --make-rprivate /
	mount -t proc proc /proc
	mount -t cgroup2 none /sys/fs/cgroup
	mount -t tmpfs tmpfs /run
	ip link set lo up
	# A machine has another address than the loopback, which servers tell their clients.
	ip address add 192.0.2.7/32 dev lo
	mkdir "$work/layers"
	mount -t tmpfs tmpfs "$work/layers"
	for dir in /etc /root /var /usr/local; do
		mkdir -p "$work/layers$dir/upper" "$work/layers$dir/work"
		mount -t overlay overlay -o "lowerdir=$dir,upperdir=$work/layers$dir/upper,workdir=$work/layers$dir/work" "$dir"
	done
	# What an earlier installation of the real machine may have left.
	rm -rf /etc/usagebridge* /etc/nats-server /root/usagebridge-authority /var/lib/nats-server /var/lib/usagebridge /var/lib/private
	echo install-test >/etc/hostname
	echo '127.0.0.1 localhost install-test' >/etc/hosts
	for dir in /usr/lib/systemd/system /usr/lib/systemd/system-generators /etc/systemd/system; do
		mount -t tmpfs tmpfs "$dir"
	done
	for target in sysinit basic network-online multi-user shutdown umount; do
		printf '[Unit]\nDescription=%s\nDefaultDependencies=no\n' "$target" >"/usr/lib/systemd/system/$target.target"
	done
	# There is no journal.
	mkdir /etc/systemd/system/service.d
	printf '[Service]\nStandardOutput=append:/run/units.log\nStandardError=append:/run/units.log\n' >/etc/systemd/system/service.d/log.conf
	mount --make-rshared / # as on a machine: credentials are mounted in one namespace and seen in others
	exec env -i PATH="$PATH" container=other /lib/systemd/systemd --unit=multi-user.target --log-target=console >/run/systemd.log 2>&1
}

# commands prints what is between ```sh and ``` in the documents, in lists, too.
commands() {
	for document in install backup; do
		awk -v document="$document" '/^ *```sh$/ { on = 1; print "echo \"== " document ".md:" NR "\""; next } /^ *```/ { on = 0 } on' "deploy/$document.md"
	done
}

if [ "${1:-}" = boot ]; then
	work=$2
	boot
fi

[ "$(id -u)" -eq 0 ] || { echo "$0: it needs root" >&2; exit 1; }
work=$(mktemp -d)
unshare --mount --net --pid --ipc --uts --cgroup --fork --kill-child "$0" boot "$work" &
outer=$!
trap 'kill -9 "$outer" || true; wait "$outer" 2>/dev/null || true; rm -rf "$work"' EXIT

# The process that is systemd, and what runs something beside it.
pid=
inside() { nsenter --target "$pid" --mount --net --pid --ipc --uts --cgroup "$@"; }
for _ in $(seq 100); do
	read -r pid _ <"/proc/$outer/task/$outer/children" || true
	[ -n "$pid" ] && inside systemctl is-active --quiet multi-user.target 2>/dev/null && break
	kill -0 "$outer" || { echo "$0: systemd did not start" >&2; exit 1; }
	sleep 0.1
done

# What the documents install comes first, whatever else this machine has.
{ printf 'cd %q\nPATH=%q\n' "$repository" "/usr/local/sbin:/usr/local/bin:$PATH" && commands; } >"$work/commands"
if ! inside timeout 180 bash -euo pipefail "$work/commands"; then
	echo "$0: it failed; this is what the units said:" >&2
	inside tail -n 60 /run/units.log /run/systemd.log >&2
	exit 1
fi
echo "every command of install.md and backup.md did what it should"
