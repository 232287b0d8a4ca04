//! Memory limits of the control groups that this process is in, of either
//! version. Sources: `cgroups(7)`, the kernel's `cgroup-v2.rst` and
//! `cgroup-v1/memory.rst`.

use std::fs;
use std::path::{Path, PathBuf};

/// Files of one version.
struct Files {
    limit: &'static str,
    usage: &'static str,
    inactive: &'static str,
}

const VERSION_1: Files = Files {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    inactive: "total_inactive_file",
};

const VERSION_2: Files = Files {
    limit: "memory.max",
    usage: "memory.current",
    inactive: "inactive_file",
};

/// Groups with a limit or without, from this process's to the topmost.
pub(crate) struct Groups {
    groups: Vec<(PathBuf, &'static Files)>,
}

impl Groups {
    /// Those of this process.
    pub(crate) fn of_this_process() -> Groups {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let (membership, mounts) = (read("/proc/self/cgroup"), read("/proc/self/mounts"));
        let mut groups = Vec::new();
        for (controllers, path) in memberships(&membership) {
            let (files, kind) = match controllers.is_empty() {
                true => (&VERSION_2, "cgroup2"),
                false => (&VERSION_1, "cgroup"),
            };
            let Some(root) = mount_of(&mounts, kind) else {
                continue;
            };
            // In a namespace the path may not be below the mount; then its root is all that is seen.
            let own = root.join(path.trim_start_matches('/'));
            let own = if own.is_dir() { own } else { root.clone() };
            let above = own
                .ancestors()
                .take_while(|folder| folder.starts_with(&root));
            groups.extend(above.map(|folder| (folder.to_owned(), files)));
        }
        Groups { groups }
    }

    /// What may still be used: the least of all groups with a limit.
    pub(crate) fn available_bytes(&self) -> Option<u64> {
        let each = self.groups.iter();
        each.filter_map(|(folder, files)| room(folder, files)).min()
    }

    /// The least limit.
    pub(crate) fn limit_bytes(&self) -> Option<u64> {
        let each = self.groups.iter();
        each.filter_map(|(folder, files)| number(folder, files.limit))
            .min()
    }

    /// The stalls of the innermost group that counts its own.
    pub(crate) fn pressure(&self) -> Option<String> {
        let own = self
            .groups
            .iter()
            .find(|(_, files)| files.limit == VERSION_2.limit);
        fs::read_to_string(own?.0.join("memory.pressure")).ok()
    }
}

/// Of each line of /proc/PID/cgroup that is about memory: its controllers, none
/// for version 2, and the path.
fn memberships(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let is_memory = controllers.split(',').any(|name| name == "memory");
        (controllers.is_empty() || is_memory).then_some((controllers, path))
    })
}

/// Where a version's hierarchy of memory is mounted.
fn mount_of(mounts: &str, kind: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (_, target, found, options) =
            (words.next()?, words.next()?, words.next()?, words.next()?);
        let has_memory = kind == "cgroup2" || options.split(',').any(|name| name == "memory");
        (found == kind && has_memory).then(|| PathBuf::from(target))
    })
}

fn number(folder: &Path, name: &str) -> Option<u64> {
    fs::read_to_string(folder.join(name))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// What is left below the limit, with what the kernel would give back first.
fn room(folder: &Path, files: &Files) -> Option<u64> {
    let limit = number(folder, files.limit)?;
    let usage = number(folder, files.usage)?;
    let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let inactive = stat.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == files.inactive).then(|| value.parse::<u64>().ok())?
    });
    Some(
        limit
            .saturating_sub(usage)
            .saturating_add(inactive.unwrap_or(0)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_both_versions_are_found() {
        let text = "9:name=systemd:/\n4:cpu,memory:/a/b\n0::/c\n";
        let found: Vec<_> = memberships(text).collect();
        assert_eq!(found, [("cpu,memory", "/a/b"), ("", "/c")]);
        let mounts = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(
            mount_of(mounts, "cgroup"),
            Some("/sys/fs/cgroup/memory".into())
        );
        assert_eq!(
            mount_of(mounts, "cgroup2"),
            Some("/sys/fs/cgroup/unified".into())
        );
        assert_eq!(mount_of("", "cgroup"), None);
    }

    #[test]
    fn room_is_what_the_limit_leaves_and_no_limit_is_none() {
        let folder =
            std::env::temp_dir().join(format!("zcache-lend-cgroup-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
        write("memory.max", "max\n");
        write("memory.current", "700\n");
        write("memory.stat", "anon 500\ninactive_file 100\n");
        assert_eq!(room(&folder, &VERSION_2), None);
        write("memory.max", "1000\n");
        assert_eq!(room(&folder, &VERSION_2), Some(400));
        write("memory.current", "1200\n");
        assert_eq!(room(&folder, &VERSION_2), Some(100));
        fs::remove_dir_all(&folder).unwrap();
    }
}
