//! Containers inside zcache, and zcache inside containers.
//!
//! Each test has a PID namespace of its own around everything: were a number from inside taken for one from outside, no process of
//! the machine would be hit.

use crate::support::{Job, TempDir, User, agrees, compile};

/// A first process that does not become the command, reaps, and stays until the others are gone: its end is the end of them all.
const INIT: [&str; 9] = [
    "unshare",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
    "sh",
    "-c",
    "\"$@\"; status=$?
     for turn in $(seq 100); do set -- /proc/[0-9]*; [ $# -gt 1 ] || break; sleep 0.05; done; exit $status",
    "sh",
];

/// A sandbox with all namespaces of its own, over the machine's files.
const BWRAP: [&str; 12] = [
    "bwrap",
    "--unshare-all",
    "--die-with-parent",
    "--ro-bind",
    "/",
    "/",
    "--dev",
    "/dev",
    "--proc",
    "/proc",
    "--tmpfs",
    "/tmp",
];

/// What runs in the container: processes of a shell, and some whose bytes are checked. Counted at the end are the processes that a
/// container's tools would count; what zcache has in the container bears its name.
const TEXT: &str = "id -u; for i in 1 2 3; do sh -c 'exit 3' || true; done
    { \"$1\" 20000 80000 & \"$1\" 20000 60000; wait $!; } | sort; ps -e -o comm= | grep -cv ^zcache";

#[test]
#[ignore = "long"]
fn bubblewrap_of_root() {
    let user = User::nobody();
    let job = Job::new(BWRAP[0])
        .args(&BWRAP[1..])
        .args(["sh", "-c", TEXT, "sh"])
        .arg(user.brings(&compile::churn()));
    agrees(&job.within(INIT), || ());
}

#[test]
#[ignore = "long"]
fn bubblewrap_of_an_ordinary_user() {
    let user = User::nobody();
    let job = Job::new(BWRAP[0])
        .args(&BWRAP[1..])
        .args(["sh", "-c", TEXT, "sh"])
        .arg(user.brings(&compile::churn()));
    agrees(&job.within(INIT).by(&user), || ());
}

#[test]
#[ignore = "long"]
fn namespaces_of_unshare() {
    let user = User::nobody();
    let job = Job::new("unshare")
        .args(["--pid", "--fork", "--mount-proc", "--ipc", "--uts", "--net"])
        .args(["sh", "-c", TEXT, "sh"])
        .arg(user.brings(&compile::churn()));
    agrees(&job.within(INIT), || ());
}

#[test]
#[ignore = "long"]
fn namespaces_of_unshare_of_an_ordinary_user() {
    let user = User::nobody();
    let job = Job::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "--pid",
            "--fork",
            "--mount-proc",
        ])
        .args(["sh", "-c", TEXT, "sh"])
        .arg(user.brings(&compile::churn()));
    agrees(&job.within(INIT).by(&user), || ());
}

/// zcache runs in the container, which has the device and a place for the swap file.
#[test]
#[ignore = "long"]
fn inside_a_rootless_container() {
    let user = User::nobody();
    let job = Job::new(user.brings(&compile::churn())).args(["20000", "80000"]);
    let container = BWRAP.iter().copied().chain([
        "--dev-bind",
        "/dev/userfaultfd",
        "/dev/userfaultfd",
        "--bind",
        "/var/tmp",
        "/var/tmp",
    ]);
    agrees(&job.within(INIT).by(&user).within(container), || ());
}

/// Root with the capabilities that container engines give by default; the device is root's.
#[test]
#[ignore = "long"]
fn inside_a_container_of_root_with_few_capabilities() {
    let job = Job::new(compile::churn()).args(["20000", "80000"]);
    let capabilities = "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+net_bind_service,+net_raw,\
                        +sys_chroot,+mknod,+audit_write,+setfcap";
    let bounding = format!("--bounding-set={capabilities}");
    agrees(
        &job.within(INIT)
            .within(["setpriv", "--inh-caps=-all", bounding.as_str()]),
        || (),
    );
}

/// Podman knows control groups of version 2 alone, and wants mounts that propagate.
const PODMAN_MOUNTS: &str = "umount -l /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup && mount --make-rshared / && exec \"$@\"";

/// A container whose only file is the program.
fn podman(root: &std::path::Path, state: &TempDir) -> Job {
    let churn = root.join("churn");
    std::fs::create_dir(root).expect("a directory for the container");
    std::fs::copy(compile::churn_static(), churn).expect("a copy of the program");
    Job::new("podman")
        .arg("--root")
        .arg(state.file("storage"))
        .arg("--runroot")
        .arg(state.file("run"))
        .args(["run", "--rm", "--network=none", "--cgroups=disabled"])
        .args([
            "--ulimit=nofile=1024:1024",
            "--ulimit=nproc=1000:1000",
            "--rootfs",
        ])
        .arg(root)
        .args(["/churn", "40000", "150000"])
}

#[test]
#[ignore = "long: needs the packages podman and crun"]
fn podman_of_root() {
    let files = TempDir::new("podman");
    let job = podman(&files.file("root"), &files);
    agrees(
        &job.within(["unshare", "--mount", "sh", "-c", PODMAN_MOUNTS, "sh"]),
        || (),
    );
}

#[test]
#[ignore = "long: needs the packages podman and crun"]
fn podman_of_an_ordinary_user() {
    let user = User::nobody();
    let files = TempDir::new("podman");
    let job = podman(&files.file("root"), &files).env("XDG_RUNTIME_DIR", files.path());
    user.owns(files.path());
    let mounts = ["unshare", "--mount", "sh", "-c", PODMAN_MOUNTS, "sh"];
    agrees(&job.within(mounts).by(&user), || ());
}
