#!/bin/sh
# nginx.sh LOAD DIRECTORY: nginx with a large map that master and workers share after fork, asked by LOAD (http_load.py) before and
# after a reload, which replaces the workers. As root the workers become www-data. DIRECTORY is made anew.
set -eu
load=$1
directory=$2
rm -rf "$directory"
mkdir "$directory"
chmod 755 "$directory"
awk 'BEGIN { for (i = 0; i < 120000; i++) printf "key%d \"value %d of key %d\";\n", i, i * 7919 % 1000003, i }' >"$directory/map"
cat >"$directory/conf" <<CONF
user www-data;
worker_processes 2;
daemon on;
pid $directory/pid;
error_log $directory/error.log warn;
events { worker_connections 64; }
http {
    access_log off;
    client_body_temp_path $directory/body;
    proxy_temp_path $directory/proxy;
    fastcgi_temp_path $directory/fastcgi;
    uwsgi_temp_path $directory/uwsgi;
    scgi_temp_path $directory/scgi;
    map_hash_max_size 262144;
    map_hash_bucket_size 128;
    map \$arg_key \$value { default none; include $directory/map; }
    server {
        listen unix:$directory/socket;
        location / { default_type text/plain; return 200 "\$value"; }
    }
}
CONF
nginx -e "$directory/error.log" -c "$directory/conf" 2>"$directory/said" || { cat "$directory/said"; exit 1; }
master=$(cat "$directory/pid")
# What zcache has beside the workers bears its name.
workers() { ps -o pid=,comm= --ppid "$master" | awk '$2 !~ /^zcache/ { print $1 }'; }
users() { for worker in $(workers); do ps -o user= -p "$worker"; done | sort -u | sed 's/^/worker: /'; }
users
/usr/bin/python3 "$load" "$directory/socket" 3000
before=$(workers)
nginx -e "$directory/error.log" -c "$directory/conf" -s reload 2>"$directory/said" || { cat "$directory/said"; exit 1; }
# The old workers are gone and two new ones are there.
tries=0
until [ "$(workers | wc -l)" = 2 ] && ! workers | grep -qwF "$before"; do
    tries=$((tries + 1))
    [ $tries -lt 600 ] || { echo "the workers are not replaced"; ps -ef; cat "$directory/error.log"; exit 1; }
    sleep 0.1
done
users
/usr/bin/python3 "$load" "$directory/socket" 3000
nginx -e "$directory/error.log" -c "$directory/conf" -s quit 2>"$directory/said"
while kill -0 "$master" 2>/dev/null; do sleep 0.05; done
sed -n '/\[\(error\|crit\|alert\|emerg\)\]/p' "$directory/error.log"
echo "nginx ended"
