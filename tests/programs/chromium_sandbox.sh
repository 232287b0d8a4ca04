#!/bin/sh
# chromium_sandbox.sh DIRECTORY PAGE: runs a page in chromium, and looks from outside how its renderers are confined meanwhile.
# DIRECTORY is made anew.
set -eu
directory=$1
page=$2
rm -rf "$directory"
mkdir "$directory"
chromium --headless --disable-gpu --no-first-run --user-data-dir="$directory/profile" --virtual-time-budget=20000 --dump-dom \
    "$page" >"$directory/page" 2>"$directory/said" &
browser=$!
while kill -0 $browser 2>/dev/null; do
    for process in /proc/[0-9]*; do
        tr '\0' ' ' <"$process/cmdline" 2>/dev/null | grep -q -- "type=renderer.*" || continue
        awk '/^Seccomp:/ { print "a renderer has", $1, $2 } /^NSpid:/ && NF > 2 { print "a renderer is in an inner PID namespace" }' \
            "$process/status" 2>/dev/null >>"$directory/seen" || true
    done
    sleep 0.1
done
status=0
wait $browser || status=$?
# A renderer that is just being made is not confined yet.
sort -u "$directory/seen" | grep -v 'Seccomp: 0'
grep -o 'sorted .*digest [-0-9]*' "$directory/page" | head -n 1
echo "chromium ended with $status"
[ $status = 0 ] || cat "$directory/said"
