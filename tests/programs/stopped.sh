#!/bin/sh
# stopped.sh COMMAND...: runs it under timeout, which stops it, and itself, after some time; waits until it stands still, lets it go
# on, and ends as timeout does: with 124.
set -eu
# T is stopped. Under a tracer a stopped process is t, as it is for a moment at any event; so that must last.
state() { sed 's/.*) \(.\).*/\1/' "/proc/$1/stat" 2>/dev/null || echo gone; }
timeout -s STOP 0.15 "$@" &
timeout=$!
looks=0
still=0
until [ $still -ge 15 ]; do
    case $(state $timeout) in
    T) still=15 ;;
    t) still=$((still + 1)) ;;
    *) still=0 ;;
    esac
    looks=$((looks + 1))
    [ $looks -lt 1500 ] || { echo "timeout does not stop: $(state $timeout)"; break; }
    sleep 0.02
done
sleep 0.7
kill -s CONT $timeout
status=0
wait $timeout || status=$?
exit $status
