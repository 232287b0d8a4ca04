#!/bin/sh
# redis-server in the background, filled with known values, beaten by redis-benchmark, saved by BGSAVE, read back whole.
# $1 is an empty directory for the socket and the dump. Prints only what does not depend on timing.
set -eu
directory=$1
socket=$directory/redis.sock
redis-server --port 0 --unixsocket "$socket" --dir "$directory" --dbfilename dump.rdb --save '' --daemonize no \
    --logfile "$directory/log" --enable-debug-command local &
server=$!
trap 'kill $server 2>/dev/null || true' EXIT
tries=0
until redis-cli -s "$socket" ping >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ $tries -lt 600 ] || { echo "redis-server does not answer"; cat "$directory/log"; exit 1; }
    sleep 0.1
done
keys=100000
awk -v n=$keys 'BEGIN { for (i = 0; i < n; i++) {
    value = sprintf("value %d of a row that is long enough to matter %d ", i, i * 7919 % 1000003);
    value = value value value value value value; printf "SET key:%d \"%s\"\r\n", i, value } }' |
    redis-cli -s "$socket" --pipe >"$directory/fill" || { cat "$directory/fill"; exit 1; }
redis-cli -s "$socket" dbsize
redis-cli -s "$socket" bgsave >/dev/null
redis-benchmark -s "$socket" -q -n 20000 -c 8 -P 4 -r 5000 -d 200 -t set,get,incr,lpush,lpop,hset >"$directory/benchmark"
tries=0
while [ "$(redis-cli -s "$socket" info persistence | tr -d '\r' | sed -n 's/^rdb_bgsave_in_progress://p')" != 0 ]; do
    tries=$((tries + 1))
    [ $tries -lt 1200 ] || { echo "BGSAVE does not end"; exit 1; }
    sleep 0.1
done
redis-cli -s "$socket" info persistence | tr -d '\r' | grep rdb_last_bgsave_status
awk -v n=$keys 'BEGIN { for (i = 0; i < n; i++) printf "GET key:%d\n", i }' | redis-cli -s "$socket" | sha256sum
# Save, empty, load: what comes back is what was there.
redis-cli -s "$socket" debug reload
awk -v n=$keys 'BEGIN { for (i = 0; i < n; i += 3) printf "GET key:%d\n", i }' | redis-cli -s "$socket" | sha256sum
redis-check-rdb "$directory/dump.rdb" >/dev/null && echo "dump is whole"
redis-cli -s "$socket" shutdown nosave || true
wait $server && echo "server ended with 0"
