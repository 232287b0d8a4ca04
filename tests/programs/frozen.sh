#!/bin/sh
# frozen.sh v1|v2 COMMAND...: runs it in a control group of its own that is frozen and thawed again and again; ends as it does.
# v1 is the freezer, which a machine with the unified hierarchy alone does not have; there it is v2 too.
set -eu
version=$1
shift
[ -d /sys/fs/cgroup/freezer ] || version=v2
case $version in
v1) group=/sys/fs/cgroup/freezer/zcache-test-$$ ;;
v2)
    root=/sys/fs/cgroup/unified
    [ -d $root ] || root=/sys/fs/cgroup
    group=$root/zcache-test-$$
    ;;
esac
mkdir "$group"
trap 'for t in 1 2 3 4 5 6 7 8 9; do rmdir "$group" 2>/dev/null && break || sleep 0.1; done' EXIT
# Waits until the group says so, which it does not while a task in it cannot be frozen yet.
reaches() {
    tries=0
    until grep -qx "$2" "$1"; do
        tries=$((tries + 1))
        [ $tries -lt 1000 ] || { echo "the group does not become $2"; return 0; }
        sleep 0.01
    done
}
freeze() {
    case $version in
    v1) echo FROZEN >"$group/freezer.state" && reaches "$group/freezer.state" FROZEN ;;
    v2) echo 1 >"$group/cgroup.freeze" && reaches "$group/cgroup.events" "frozen 1" ;;
    esac
}
thaw() {
    case $version in
    v1) echo THAWED >"$group/freezer.state" ;;
    v2) echo 0 >"$group/cgroup.freeze" ;;
    esac
}
sh -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$group" "$@" &
program=$!
for turn in 1 2 3 4 5 6; do
    sleep 0.05
    kill -0 $program 2>/dev/null || break
    freeze
    sleep 0.1
    thaw
done
status=0
wait $program || status=$?
exit $status
