#!/bin/sh
# tmux.sh DIRECTORY CHURN: a detached session runs a program in each of two windows; prints what the windows show at the end.
set -eu
directory=$1
churn=$2
unset TMUX
tmux() { command tmux -S "$directory/socket" -f /dev/null "$@"; }
tmux new-session -d -s work -x 80 -y 24 "'$churn' 20000 80000; echo first ended with \$?; tmux -S '$directory/socket' wait-for -S first; exec sleep 600"
tmux new-window -d -t work "'$churn' 20000 60000; echo second ended with \$?; tmux -S '$directory/socket' wait-for -S second; exec sleep 600"
server=$(tmux display-message -p '#{pid}')
tmux wait-for first
tmux wait-for second
for window in 0 1; do
    tmux capture-pane -p -t "work:$window" | sed '/^$/d'
done
tmux list-windows -F '#{window_index} #{window_width}x#{window_height}'
tmux kill-server
while kill -0 "$server" 2>/dev/null; do sleep 0.05; done
echo "the server is gone"
