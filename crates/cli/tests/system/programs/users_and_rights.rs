//! Programs that change their user, and what the new user must not be able to do.

use super::PYTHON;
use crate::support::{Job, User, agrees, compile, tests_file, tree};

/// A command that becomes the user nobody, and a program of which every byte is checked in its name.
fn as_nobody(words: &[&str]) -> Job {
    let mut words = words.iter();
    let command = words.next().expect("a command");
    Job::new(command).args(words.copied())
}

/// The program in a directory that everybody may enter; it lives as long as the user.
fn hog(user: &User) -> String {
    user.brings(&compile::churn()).display().to_string()
}

#[test]
fn su_to_another_user() {
    let user = User::nobody();
    let text = format!("id -un; {} 20000 80000", hog(&user));
    let (plain, _) = agrees(
        &as_nobody(&["su", "-s", "/bin/sh", "-c", &text, "nobody"]),
        || (),
    );
    plain.assert_success();
    assert!(plain.out().starts_with("nobody"), "{}", plain.out());
}

#[test]
#[ignore = "long"]
fn su_with_a_login_shell() {
    let user = User::named("postgres");
    let text = format!("id -un; pwd; {} 20000 80000; exit 5", hog(&user));
    agrees(&as_nobody(&["su", "-", "postgres", "-c", &text]), || ());
}

#[test]
#[ignore = "long"]
fn runuser_to_another_user() {
    let user = User::nobody();
    let hog = hog(&user);
    agrees(
        &as_nobody(&["runuser", "-u", "nobody", "--", &hog, "20000", "80000"]),
        || (),
    );
}

#[test]
#[ignore = "long"]
fn sudo_to_another_user() {
    let user = User::nobody();
    let hog = hog(&user);
    agrees(
        &as_nobody(&["sudo", "-n", "-u", "nobody", &hog, "20000", "80000"]),
        || (),
    );
}

#[test]
fn setpriv_that_drops_every_right() {
    let user = User::nobody();
    let hog = hog(&user);
    let job = as_nobody(&["setpriv"]).args(tree::WITHOUT_RIGHTS);
    agrees(&job.args([&hog, "20000", "80000"]), || ());
}

#[test]
#[ignore = "long"]
fn setpriv_of_an_ordinary_user() {
    let user = User::nobody();
    let hog = hog(&user);
    let job = Job::new("setpriv").args(["--no-new-privs", &hog, "20000", "80000"]);
    agrees(&job.by(&user), || ());
}

#[test]
#[ignore = "long"]
fn chroot_as_another_user() {
    let user = User::nobody();
    let churn = user.brings(&compile::churn_static());
    let name = format!("/{}", churn.file_name().expect("a name").to_string_lossy());
    let job = Job::new("chroot")
        .arg("--userspec=nobody:nogroup")
        .arg(user.home())
        .args([&name, "20000", "80000"]);
    agrees(&job, || ());
}

#[test]
#[ignore = "long"]
fn start_stop_daemon_that_changes_the_user() {
    let user = User::nobody();
    let hog = hog(&user);
    let words = [
        "start-stop-daemon",
        "--start",
        "--chuid",
        "nobody",
        "--exec",
        &hog,
        "--",
    ];
    agrees(&as_nobody(&words).args(["20000", "80000"]), || ());
}

/// As a server does it: memory is filled and children are made by root, and then the rights go.
#[test]
fn a_process_that_drops_its_rights_while_it_holds_memory() {
    tree::need_root();
    let (plain, _) = agrees(
        &Job::new(PYTHON).arg(tests_file("programs/drop_rights.py")),
        || (),
    );
    plain.assert_success();
}
