#!/bin/sh
# transient.sh COMMAND...: runs it in a new group of each hierarchy that systemd-run --scope would make one in, with limits on memory
# and processes that it does not reach, and takes the groups away at its end. Ends as it does.
set -eu
name=zcache-test-$$.scope
groups=
for hierarchy in memory pids cpu freezer systemd unified .; do
    directory=/sys/fs/cgroup/$hierarchy
    [ -f "$directory/cgroup.procs" ] || continue
    mkdir "$directory/$name"
    groups="$groups $directory/$name"
done
[ -n "$groups" ] || { echo "there are no control groups"; exit 1; }
trap 'for group in $groups; do for t in 1 2 3 4 5 6 7 8 9; do rmdir "$group" 2>/dev/null && break || sleep 0.1; done; done' EXIT
for group in $groups; do
    [ ! -f "$group/memory.limit_in_bytes" ] || echo 512M >"$group/memory.limit_in_bytes"
    [ ! -f "$group/memory.max" ] || echo 512M >"$group/memory.max"
    [ ! -f "$group/pids.max" ] || echo 200 >"$group/pids.max"
done
status=0
sh -c 'for group in $0; do echo $$ >"$group/cgroup.procs"; done; exec "$@"' "$groups" "$@" || status=$?
exit $status
