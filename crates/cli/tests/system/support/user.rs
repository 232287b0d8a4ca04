//! An ordinary user, whom nothing but access to `/dev/userfaultfd` entitles to run zcache.
//!
//! The access is given in a mount namespace of the one run, by a copy of the device that everybody may open; the machine's own
//! stays as it is. The user has no capability and no group. What the user runs is copied into a directory of its own, since the
//! build's directory may be closed to others.

use super::{TempDir, tool, tree, zcache};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

const DEVICE: &str = "/dev/userfaultfd";

/// Takes the place of the device and becomes the user; what follows is the user's command.
const BECOME: &str = "mount --bind \"$1\" /dev/userfaultfd && owner=$2 && shift 2 &&
    exec setpriv --reuid=${owner%:*} --regid=${owner#*:} --clear-groups \"$@\"";

/// A user with a home.
pub(crate) struct User {
    home: TempDir,
    owner: String,
}

impl User {
    /// The user `nobody`.
    pub(crate) fn nobody() -> User {
        User::new("65534:65534")
    }

    /// The user of this name, with the group that the user has at login.
    pub(crate) fn named(name: &str) -> User {
        let id = |option: &str| tool("coreutils", Command::new("id").args([option, name]));
        User::new(&format!("{}:{}", id("-u").trim(), id("-g").trim()))
    }

    fn new(owner: &str) -> User {
        tree::need_root();
        let user = User {
            home: TempDir::new("user"),
            owner: owner.to_string(),
        };
        user.owns(user.home.path());
        tool(
            "coreutils",
            Command::new("chmod").arg("755").arg(user.home()),
        );
        user.brings(&zcache());
        let device = user.file("userfaultfd");
        tool(
            "coreutils",
            Command::new("cp").arg("-a").arg(DEVICE).arg(&device),
        );
        tool("coreutils", Command::new("chmod").arg("666").arg(&device));
        user
    }

    /// Where the user's files are.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// The path of a file in the user's home.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.home.file(name)
    }

    /// Gives a file or a whole directory to the user.
    pub(crate) fn owns(&self, path: &Path) {
        tool(
            "coreutils",
            Command::new("chown").args(["-R", &self.owner]).arg(path),
        );
    }

    /// Copies a file or a directory into the user's home; returns where it is there.
    pub(crate) fn brings(&self, path: &Path) -> PathBuf {
        let copy = self.file(
            &path
                .file_name()
                .expect("a file with a name")
                .to_string_lossy(),
        );
        tool(
            "coreutils",
            Command::new("cp").arg("-r").arg(path).arg(&copy),
        );
        tool(
            "coreutils",
            Command::new("chmod").arg("-R").arg("a+rX").arg(&copy),
        );
        copy
    }

    /// The command under test, where the user can reach it.
    pub(super) fn zcache(&self) -> PathBuf {
        self.file(&zcache().file_name().expect("a name").to_string_lossy())
    }

    /// The words before the user's command.
    pub(super) fn words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = ["unshare", "--mount", "sh", "-c", BECOME, "sh"]
            .iter()
            .map(Into::into)
            .collect();
        words.push(self.file("userfaultfd").into());
        words.push(self.owner.clone().into());
        words
    }
}
