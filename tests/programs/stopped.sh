#!/bin/sh
# stopped.sh COMMAND...: runs it under timeout, which stops it, and itself, after some time; waits until it stands still, lets it go
# on, and ends as timeout does: with 124.
set -eu
state() { sed 's/.*) \(.\).*/\1/' "/proc/$1/stat" 2>/dev/null || echo gone; }
timeout -s STOP 0.15 "$@" &
timeout=$!
tries=0
until [ "$(state $timeout)" = T ]; do
    tries=$((tries + 1))
    [ $tries -lt 1500 ] && [ "$(state $timeout)" != gone ] || { echo "timeout does not stop: $(state $timeout)"; break; }
    sleep 0.02
done
sleep 0.7
kill -s CONT $timeout
status=0
wait $timeout || status=$?
exit $status
