//! Real programs in a mounted tree, with their own checks.

use super::support::Mounted;
use crate::support::{repository, tool};
use std::process::Command;

fn shell(mounted: &Mounted, script: &str) -> String {
    let mut command = Command::new("timeout");
    command.args(["200", "bash", "-euo", "pipefail", "-c", script]);
    tool("bash", command.current_dir(mounted.target()))
}

#[test]
fn git_clones_and_checks_and_a_clone_builds() {
    let mounted = Mounted::new("git", &["--ram", "64M"]);
    let root = repository();
    let script = format!(
        "git -c safe.directory='*' clone -q --no-hardlinks {root} repo
         cd repo
         git fsck --no-progress
         test -z \"$(git status --porcelain)\"
         git gc -q
         cc -std=c11 -O1 -pthread -o torture tests/torture/*.c
         ./torture --seconds 1 --threads 2 --bytes 8M --ops write,verify > /dev/null
         git checkout -q -b other && git commit -q --allow-empty -m x --author 'a <a@b>'
         git fsck --no-progress",
        root = root.display()
    );
    let script = script.replace("git commit", "git -c user.name=a -c user.email=a@b commit");
    shell(&mounted, &script);
}

#[test]
fn sqlite_finds_its_database_whole() {
    let mounted = Mounted::new("sqlite", &["--ram", "16M", "--admit", "all"]);
    for mode in ["delete", "wal", "truncate"] {
        let script = format!(
            "rm -f db*; sqlite3 db <<'SQL'
             pragma journal_mode={mode};
             pragma mmap_size=33554432;
             create table t(id integer primary key, word text, number integer);
             create index i on t(number);
             with recursive n(x) as (select 1 union all select x + 1 from n where x < 60000)
             insert into t select x, hex(randomblob(40)), x * 7919 % 60013 from n;
             update t set word = word || 'x' where id % 3 = 0;
             delete from t where id % 7 = 0;
             vacuum;
SQL
             sync db; dd if=db of=/dev/null iflag=nocache status=none
             sqlite3 db 'pragma integrity_check; select count(*) from t;'"
        );
        assert_eq!(
            shell(&mounted, &script).lines().last(),
            Some("51429"),
            "{mode}"
        );
        let check = shell(&mounted, "sqlite3 db 'pragma integrity_check'");
        assert_eq!(check.trim(), "ok", "{mode}");
    }
}

/// A cluster with checksums of its pages, filled, worked on, killed, and checked by its own tools.
const POSTGRESQL: &str = r#"
bin=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)
mkdir cluster && chown postgres: cluster && cd cluster
as() { setpriv --reuid=postgres --regid=postgres --init-groups "$@"; }
ctl() { as "$bin/pg_ctl" -s -w -t 60 -D "$PWD/data" "$@"; }
start() { ctl -l "$PWD/log" -o "-k $socket -c listen_addresses= -c shared_buffers=4MB" start; }
socket=$(mktemp -d) && chown postgres: "$socket"
trap 'ctl -m immediate stop || true; rm -rf "$socket"' EXIT
as "$bin/initdb" -k -A trust -D data > /dev/null
start
export PGHOST=$socket PGDATABASE=postgres
as "$bin/pgbench" -q -i -s 5 2> /dev/null
as "$bin/pgbench" -n -c 4 -t 200 > /dev/null
# As a crash of the server: what was committed is there again.
committed=$(as psql -Atc 'select count(*) from pgbench_history')
ctl -m immediate stop
start
test "$committed" = "$(as psql -Atc 'select count(*) from pgbench_history')"
as "$bin/pgbench" -n -S -c 2 -t 2000 > /dev/null
as psql -Atc 'create extension amcheck' > /dev/null
as "$bin/pg_amcheck" --heapallindexed postgres
as psql -Atc 'select sum(abalance) = (select sum(delta) from pgbench_history) from pgbench_accounts'
ctl -m fast stop
as "$bin/pg_checksums" --check -D data > /dev/null
"#;

#[test]
fn postgresql_finds_its_cluster_whole() {
    let mounted = Mounted::new("postgresql", &["--ram", "32M", "--admit", "all"]);
    assert_eq!(shell(&mounted, POSTGRESQL).trim(), "t");
}

/// Jobs of every kind at once, each on files of its own; then all once more from what is there, on either side.
const FIO: &str = "
common='--size=6M --runtime=20 --verify=crc32c --verify_fatal=1 --randseed=7 --group_reporting --output=/dev/null'
jobs() {
    fio $common --directory=$1 $2 \
        --name=buffered --rw=randrw --bsrange=512-64k --bs_unaligned=1 --numjobs=2 \
        --name=mapped --rw=randrw --bs=4k --ioengine=mmap --numjobs=2 \
        --name=direct --rw=randrw --bs=4k --ioengine=libaio --direct=1 --iodepth=8 --numjobs=2 \
        --name=synced --rw=randwrite --bs=16k --fdatasync=8 \
        --name=appended --rw=write --bs=3k
}
jobs . ''
for file in *; do sync $file; dd if=$file of=/dev/null iflag=nocache count=0 status=none; done
jobs . --verify_only
jobs ../source --verify_only
";

#[test]
fn fio_verifies_what_it_wrote() {
    for options in [
        &["--ram", "16M", "--admit", "all"][..],
        &["--ram", "32M", "--no-watch"],
    ] {
        let mounted = Mounted::new("fio", options);
        shell(&mounted, FIO);
        let stats = mounted.finish();
        assert_eq!(stats["damaged_pages"], 0, "{stats}");
    }
}
