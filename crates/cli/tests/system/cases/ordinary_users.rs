//! Users without privileges, by each of the doors that README names: access to /dev/userfaultfd, the sysctl
//! `vm.unprivileged_userfaultfd`, and root without CAP_SYS_PTRACE, as in containers.

use super::support::{Setting, compare, usual};
use crate::support::{Job, TempDir, compile, tool, tree, zcache};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Where every user can reach zcache and the programs.
struct Reachable(TempDir);

impl Reachable {
    fn new(name: &str) -> Reachable {
        tree::need_root();
        let files = TempDir::new(name);
        tool(
            "coreutils",
            Command::new("chmod").arg("755").arg(files.path()),
        );
        let reachable = Reachable(files);
        reachable.bring("zcache", &zcache());
        reachable
    }

    fn bring(&self, name: &str, program: &Path) -> std::path::PathBuf {
        let copy = self.0.file(name);
        std::fs::copy(program, &copy).expect("a copy of a program");
        tool("coreutils", Command::new("chmod").arg("755").arg(&copy));
        copy
    }
}

/// How a user comes to run zcache.
#[derive(Clone, Copy)]
enum Door {
    /// /dev/userfaultfd may be opened by everybody, in a namespace of mounts of its own.
    Device,
    /// vm.unprivileged_userfaultfd is 1, and the device is closed.
    Setting,
    /// Root with the capabilities that Docker leaves by default; the device is root's.
    Docker,
}

const NOBODY: &str =
    "setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --bounding-set=-all";
const DOCKER: &str = "setpriv --bounding-set=-all,+chown,+dac_override,+fsetid,+fowner,+mknod,+net_raw,+setgid,+setuid,+setfcap,+setpcap,+net_bind_service,+sys_chroot,+kill,+audit_write --inh-caps=-all";

/// The program, alone and under zcache, by this door.
fn through(door: Door, path: &str, arguments: &[&str]) {
    let files = Reachable::new("door");
    let program = files.bring("program", &compile::case(path));
    let device = match door {
        Door::Device => {
            let device = files.0.file("device");
            tool(
                "coreutils",
                Command::new("mknod").arg(&device).args(["c", "10", "257"]),
            );
            tool("coreutils", Command::new("chmod").arg("666").arg(&device));
            format!("mount --bind {} /dev/userfaultfd && ", device.display())
        }
        Door::Setting | Door::Docker => String::new(),
    };
    let identity = match door {
        Door::Device | Door::Setting => NOBODY,
        Door::Docker => DOCKER,
    };
    let text = format!("{device}exec {identity} \"$@\"");
    let _setting =
        matches!(door, Door::Setting).then(|| Setting::set("vm/unprivileged_userfaultfd", "1"));
    let job = Job::new(&program)
        .args(arguments)
        .command(&files.0.file("zcache"))
        .within(["unshare", "--mount", "/bin/bash", "-c", &text, "bash"])
        .bound(Duration::from_secs(60))
        .linger(Duration::from_secs(5));
    let plain = job.plain();
    plain.assert_success();
    let under = job.under(&usual());
    compare(&plain, &under);
    for line in under.err().lines() {
        assert!(
            !line.starts_with("zcache"),
            "a user is told what does not help him: {line}"
        );
    }
}

#[test]
fn memory_by_the_device() {
    through(Door::Device, "rights/hold", &["150"]);
}

#[test]
fn memory_by_the_setting() {
    through(Door::Setting, "rights/hold", &["150"]);
}

#[test]
fn memory_by_dockers_capabilities() {
    through(Door::Docker, "rights/hold", &["150"]);
}

#[test]
fn children_by_the_device() {
    through(Door::Device, "forks/clones", &["fork"]);
}

#[test]
fn children_by_the_setting() {
    through(Door::Setting, "forks/clones", &["vfork"]);
}

#[test]
fn children_by_dockers_capabilities() {
    through(Door::Docker, "forks/clones", &["spawn"]);
}

#[test]
fn large_forks_by_the_device() {
    through(Door::Device, "forks/large_forks", &["60", "5"]);
}

#[test]
fn memory_map_calls_by_the_device() {
    through(Door::Device, "memory/refused_maps", &[]);
    through(Door::Device, "memory/stale_tails", &["remaps"]);
}

#[test]
fn protections_by_the_setting() {
    through(Door::Setting, "memory/protections", &["r", "3"]);
}

#[test]
#[ignore = "differs: nobody may look into children that are not dumpable"]
fn a_program_that_is_not_dumpable_by_the_device() {
    through(Door::Device, "rights/changes", &["not-dumpable"]);
}

#[test]
#[ignore = "differs: nobody may look into a user namespace of its own making"]
fn a_user_namespace_by_the_device() {
    through(Door::Device, "namespaces/entered", &["user,pid,mount"]);
}

#[test]
#[ignore = "differs: a wait for clones sees the helper"]
fn no_new_privileges_by_the_setting() {
    through(Door::Setting, "visible/waits", &["plain"]);
}

#[test]
#[ignore = "differs: without CAP_SYS_PTRACE nobody may look into another user's children"]
fn a_change_of_the_user_by_dockers_capabilities() {
    through(Door::Docker, "rights/changes", &["setuid"]);
}

#[test]
fn system_calls_on_memory_by_the_setting() {
    through(Door::Setting, "memory/other_eyes", &["calls"]);
}
