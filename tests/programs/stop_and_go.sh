#!/bin/sh
# stop_and_go.sh COMMAND...: stops every process of the command's tree for a while, again and again, and ends as the command does.
# Takes next to no memory itself, since that is outside the budget when zcache is the command.
set -eu
"$@" &
command=$!
# Puts a process and all below it into $tree; a word of nothing but the shell, which so starts nothing meanwhile.
collect() {
    tree="$tree $1"
    for file in /proc/"$1"/task/*/children; do
        children=
        { read -r children <"$file"; } 2>/dev/null || true
        set -- "$@" $children
    done
    shift
    while [ $# -gt 0 ]; do
        collect "$1"
        shift
    done
}
running() { [ -e /proc/$command/exe ] && kill -0 $command 2>/dev/null; }
while running; do
    sleep 0.05
    tree=
    collect $command
    kill -s STOP $tree 2>/dev/null || true
    sleep 0.03
    kill -s CONT $tree 2>/dev/null || true
done
status=0
wait $command || status=$?
exit $status
