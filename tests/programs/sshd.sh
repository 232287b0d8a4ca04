#!/bin/sh
# sshd.sh USER CHURN: a server that lets USER log in by a key, and logins that run CHURN. As root it is the usual server, with PAM and
# terminals; another user can serve itself only, and cannot give away a terminal.
set -eu
user=$1
churn=$2
directory=$(mktemp -d)
chmod 755 "$directory"
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$directory"' EXIT
pam=no terminal=-T
[ "$(id -u)" != 0 ] || { mkdir -p /run/sshd; pam=yes terminal=-tt; }
for key in host login; do ssh-keygen -q -t ed25519 -N '' -f "$directory/$key"; done
chmod 644 "$directory/login.pub"
port=$(/usr/bin/python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >"$directory/conf" <<CONF
ListenAddress 127.0.0.1
Port $port
HostKey $directory/host
PidFile none
UsePAM $pam
StrictModes no
AuthorizedKeysFile $directory/login.pub
Subsystem sftp internal-sftp
CONF
/usr/sbin/sshd -D -f "$directory/conf" -E "$directory/log" &
server=$!
options="-F none -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o IdentitiesOnly=yes -i $directory/login"
login() { ssh -p "$port" $options "$@"; }
tries=0
until login "$user@127.0.0.1" true 2>"$directory/said"; do
    tries=$((tries + 1))
    [ $tries -lt 50 ] || { echo "no login"; cat "$directory/said" "$directory/log"; exit 1; }
    sleep 0.2
done
login "$user@127.0.0.1" 'echo "logged in as $(id -un) with $(grep CapEff: /proc/self/status)"'
login "$user@127.0.0.1" "'$churn' 20000 60000" >"$directory/one" &
one=$!
login $terminal "$user@127.0.0.1" "[ ! -t 1 ] || echo on a terminal; '$churn' 20000 80000; exit 7" >"$directory/two" </dev/null || echo "the login ended with $?"
wait $one
tr -d '\r' <"$directory/two"
cat "$directory/one"
echo "get $directory/login.pub $directory/fetched" | sftp -q -b - -P "$port" $options "$user@127.0.0.1" >/dev/null
cmp "$directory/login.pub" "$directory/fetched" && echo "sftp fetched a file"
kill "$server"
wait "$server" || echo "sshd ended with $?"
server=
