#!/bin/sh
# A new cluster, started and stopped by the package's own init script, which becomes the cluster's user, with a load of queries that
# sort, hash and join in memory, in parallel workers and in code that is made for the query. To be run as root in a mount namespace
# of its own: the machine's clusters and configuration are covered. Prints only what does not depend on timing.
set -eu
export SYSTEMCTL_SKIP_REDIRECT=1 PG_CLUSTER_CONF_ROOT=/etc/postgresql LC_ALL=C
mkdir -p /run/postgresql
for covered in /etc/postgresql /var/lib/postgresql /var/log/postgresql /run/postgresql; do
    mount -t tmpfs -o mode=755 private $covered
    chown postgres:postgres $covered
done
version=$(ls /usr/lib/postgresql | sort -V | tail -n 1)
log=/var/log/postgresql/messages
port=54327
pg_createcluster -p $port -o listen_addresses='' -o shared_buffers=16MB -o fsync=off "$version" main >"$log" 2>&1 ||
    { cat "$log"; exit 1; }
/etc/init.d/postgresql start >"$log" 2>&1 || { cat "$log" /var/log/postgresql/*; exit 1; }
echo "the server is $(ps -o user= -p "$(head -n 1 /var/lib/postgresql/"$version"/main/postmaster.pid)")"
query() { su postgres -c "psql -qAtX -v ON_ERROR_STOP=1 -p $port" 2>&1; }
query <<'SQL'
create table t as select i as id, md5(i::text) as word, i * 7919 % 30011 as number from generate_series(1, 100000) i;
create table u as select i as number, md5((i * 31)::text) as name from generate_series(0, 30010) i;
analyze;
SQL
settings="set work_mem = '64MB'; set jit_above_cost = 0; set jit_inline_above_cost = 0; set jit_optimize_above_cost = 0;"
clients=
for client in 1 2; do
    query >/var/log/postgresql/answer$client <<SQL &
$settings
select md5(string_agg(word, '' order by word desc)) from t where id % 3 <> $client;
select md5(string_agg(name || word, ',' order by name, id)) from t join u using (number) where id % 5 <> $client;
select count(*), sum(c), max(m) from (select number, count(*) c, max(word) m from t group by number having number % 7 <> $client) g;
SQL
    clients="$clients $!"
done
for client in $clients; do wait "$client"; done
cat /var/log/postgresql/answer*
query <<SQL
$settings
set max_parallel_workers_per_gather = 2; set parallel_setup_cost = 0; set parallel_tuple_cost = 0; set min_parallel_table_scan_size = 0;
select count(*), count(distinct word), sum(length(name)) from t join u using (number);
SQL
/etc/init.d/postgresql stop >"$log" 2>&1 || { cat "$log"; exit 1; }
pg_lsclusters -h | awk '{ print $2, $4 }'
echo stopped
