#!/bin/sh
# pids.sh LIMIT COMMAND...: runs it in a control group that allows so many processes and threads; ends as it does.
set -eu
limit=$1
shift
group=/sys/fs/cgroup/pids/zcache-test-$$
if [ ! -d /sys/fs/cgroup/pids ]; then
    echo +pids >/sys/fs/cgroup/cgroup.subtree_control
    group=/sys/fs/cgroup/zcache-test-$$
fi
mkdir "$group"
trap 'for t in 1 2 3 4 5 6 7 8 9; do rmdir "$group" 2>/dev/null && break || sleep 0.1; done' EXIT
echo "$limit" >"$group/pids.max"
status=0
sh -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$group" "$@" || status=$?
exit $status
