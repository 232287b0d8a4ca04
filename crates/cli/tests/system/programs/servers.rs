//! Servers as their packages start them, most of which become another user, beaten by clients of the same tree.

use crate::support::{Job, TempDir, User, agrees, compile, half, tests_file};

#[test]
#[ignore = "long"]
fn redis_under_its_benchmark() {
    let files = TempDir::new("redis");
    let directory = files.file("data");
    std::fs::create_dir(&directory).expect("a directory for redis");
    let job = Job::new("sh")
        .arg(tests_file("programs/redis.sh"))
        .arg(&directory);
    let (plain, _) = half(&job, || {
        std::fs::remove_dir_all(&directory).expect("the data can be removed");
        std::fs::create_dir(&directory).expect("a directory for redis again");
    });
    for line in [
        "100000",
        "rdb_last_bgsave_status:ok",
        "dump is whole",
        "server ended with 0",
    ] {
        assert!(plain.out().contains(line), "{line}: {}", plain.out());
    }
}

#[test]
#[ignore = "long"]
fn postgresql_by_its_init_script() {
    let job = Job::new("unshare")
        .args(["--mount", "sh"])
        .arg(tests_file("programs/postgresql.sh"));
    let (plain, _) = agrees(&job, || ());
    plain.assert_success();
    for line in ["the server is postgres", "stopped"] {
        assert!(plain.out().contains(line), "{line}: {}", plain.out());
    }
}

/// The server's directory, which workers of another user may read.
fn nginx_in(files: &TempDir) -> Job {
    Job::new("sh")
        .arg(tests_file("programs/nginx.sh"))
        .arg(tests_file("programs/http_load.py"))
        .arg(files.file("nginx"))
}

#[test]
#[ignore = "long"]
fn nginx_whose_workers_drop_their_rights() {
    let files = TempDir::new("nginx");
    let (plain, _) = agrees(&nginx_in(&files), || ());
    plain.assert_success();
    assert!(plain.out().contains("worker: www-data"), "{}", plain.out());
}

#[test]
#[ignore = "long"]
fn nginx_of_an_ordinary_user() {
    let user = User::nobody();
    let job = Job::new("sh")
        .arg(user.brings(&tests_file("programs/nginx.sh")))
        .arg(user.brings(&tests_file("programs/http_load.py")))
        .arg(user.file("nginx"));
    let (plain, _) = agrees(&job.by(&user), || ());
    plain.assert_success();
    assert!(plain.out().contains("worker: nobody"), "{}", plain.out());
}

#[test]
#[ignore = "long"]
fn sshd_with_logins_of_another_user() {
    let user = User::named("postgres");
    let job = Job::new("sh")
        .arg(tests_file("programs/sshd.sh"))
        .args(["postgres".into(), user.brings(&compile::churn())]);
    let (plain, _) = agrees(&job, || ());
    plain.assert_success();
    assert!(
        plain.out().contains("logged in as postgres"),
        "{}",
        plain.out()
    );
}

#[test]
#[ignore = "long"]
fn sshd_of_an_ordinary_user() {
    let user = User::named("postgres");
    let job = Job::new("sh")
        .arg(user.brings(&tests_file("programs/sshd.sh")))
        .args(["postgres".into(), user.brings(&compile::churn())]);
    agrees(&job.by(&user), || ());
}
