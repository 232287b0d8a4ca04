//! A machine that needs its RAM itself: a control group with a limit, and a program in it that fills it.

use super::lender::{BOUND, Borrower, Lender};
use crate::support::{compile, eventually, plain_only, tree};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A control group with a limit of memory, of either version.
struct Group(PathBuf);

impl Group {
    fn new(bytes: u64) -> Group {
        tree::need_root();
        let name = format!("zcache-test-lend-{}", std::process::id());
        let (root, limit) = match Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists()
        {
            true => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            false => ("/sys/fs/cgroup", "memory.max"),
        };
        let path = Path::new(root).join(name);
        std::fs::create_dir(&path)
            .expect("a control group of memory, mounted below /sys/fs/cgroup");
        let group = Group(path);
        std::fs::write(group.0.join(limit), bytes.to_string()).expect("a limit of its memory");
        group
    }

    /// A program in it that holds so much memory.
    fn hog(&self, mib: u64) -> Child {
        Command::new("sh")
            .args(["-c", "echo $$ > \"$0\"/cgroup.procs && exec \"$@\""])
            .arg(&self.0)
            .arg(compile::hold())
            .args(["--forever", "--bytes", &format!("{mib}M")])
            .stdout(Stdio::null())
            .spawn()
            .expect("sh is there")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        eventually(BOUND, || std::fs::remove_dir(&self.0).is_ok());
    }
}

#[test]
fn a_lender_that_is_short_has_its_ram_back_and_lends_again_when_there_is_room() {
    if plain_only() {
        return;
    }
    let group = Group::new(512 << 20);
    let options = ["--ram", "64M", "--keep-free", "128M", "--again-after", "2"];
    let mut lender = Lender::start_in(Some(&group.0), &options);
    let (url, password) = (lender.url(), lender.password());
    let mut borrower = Borrower::start(40, &password, &["--remote", &url, "--swap", "/var/tmp"]);
    borrower.await_passes(1);
    let server = lender.server().expect("a server");
    let mut hog = group.hog(400);
    lender.await_words("is short of memory");
    let is_gone = eventually(BOUND, || !Path::new(&format!("/proc/{server}")).exists());
    let err = lender.err();
    assert!(
        is_gone && err.contains("borrowers have everything on disk"),
        "{err}"
    );
    // The disk alone has its pages now.
    borrower.await_passes(2);
    assert!(lender.server().is_none(), "{}", lender.err());
    let _ = hog.kill();
    let _ = hog.wait();
    lender.await_words("there is room again");
    assert!(eventually(BOUND, || lender.server().is_some()));
    borrower.await_passes(2);
    assert!(
        borrower.end("nodes_given_up") >= 1,
        "the borrower did not notice"
    );
    assert_eq!(lender.end("TERM").code(), Some(0));
}
