//! Small filesystems in a file, mounted where a test wants its source.

use crate::support::{TempDir, tool};
use std::path::{Path, PathBuf};
use std::process::Command;

/// See the module's description. Mounted at `source` of a directory until it is dropped.
pub(crate) struct SmallDisk {
    image: PathBuf,
    at: PathBuf,
}

impl SmallDisk {
    /// An ext4 of so many bytes, of which so many percent are for root only.
    pub(crate) fn ext4(files: &TempDir, bytes: u64, reserved_percent: u32) -> SmallDisk {
        let disk = SmallDisk::of(files.file("image"), files.file("source"), bytes);
        let mut command = Command::new("mkfs.ext4");
        command.args([
            "-q",
            "-O",
            "^has_journal",
            "-m",
            &reserved_percent.to_string(),
        ]);
        disk.make("e2fsprogs", &mut command)
    }

    /// A Btrfs of so many bytes, none of which may hold more than `quota_bytes` of files.
    pub(crate) fn btrfs(files: &TempDir, bytes: u64, quota_bytes: u64) -> SmallDisk {
        let disk = SmallDisk::of(files.file("image"), files.file("source"), bytes);
        let disk = disk.make("btrfs-progs", Command::new("mkfs.btrfs").arg("-q"));
        let btrfs = |words: &[&str]| {
            tool(
                "btrfs-progs",
                Command::new("btrfs").args(words).arg(&disk.at),
            )
        };
        btrfs(&["quota", "enable"]);
        btrfs(&["qgroup", "limit", &quota_bytes.to_string()]);
        disk
    }

    /// An XFS of so many bytes.
    pub(crate) fn xfs(files: &TempDir, bytes: u64) -> SmallDisk {
        let disk = SmallDisk::of(files.file("image"), files.file("source"), bytes);
        disk.make("xfsprogs", Command::new("mkfs.xfs").arg("-q"))
    }

    /// No disk, but memory of so many bytes.
    pub(crate) fn tmpfs(files: &TempDir, bytes: u64) -> SmallDisk {
        let disk = SmallDisk::of(files.file("image"), files.file("source"), 0);
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "none"]);
        tool("mount", command.arg(&disk.at));
        disk
    }

    /// Layers on an ext4, since an overlay cannot have all filesystems below.
    pub(crate) fn overlay(files: &TempDir) -> [SmallDisk; 2] {
        let below = files.file("below");
        let disk = SmallDisk::of(files.file("image"), below.clone(), 400 << 20);
        let disk = disk.make("e2fsprogs", Command::new("mkfs.ext4").args(["-q", "-F"]));
        let layers = ["lower", "upper", "work"].map(|name| below.join(name));
        for layer in &layers {
            std::fs::create_dir(layer).expect("a directory");
        }
        std::fs::write(layers[0].join("from below"), "lower").expect("written");
        let [lower, upper, work] = layers.map(|layer| layer.display().to_string());
        let layers = SmallDisk::of(files.file("no image"), files.file("source"), 0);
        let mut command = Command::new("mount");
        let how = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        command.args(["-t", "overlay", "-o", &how, "none"]);
        tool("mount", command.arg(&layers.at));
        [layers, disk]
    }

    /// A Btrfs with two subvolumes, `a` and `b`.
    pub(crate) fn btrfs_with_subvolumes(files: &TempDir, bytes: u64) -> SmallDisk {
        let disk = SmallDisk::of(files.file("image"), files.file("source"), bytes);
        let disk = disk.make("btrfs-progs", Command::new("mkfs.btrfs").arg("-q"));
        for name in ["a", "b"] {
            let mut command = Command::new("btrfs");
            command.args(["-q", "subvolume", "create"]);
            tool("btrfs-progs", command.arg(disk.at.join(name)));
        }
        disk
    }

    /// An ext4 that is mounted somewhere within the source.
    pub(crate) fn ext4_at(files: &TempDir, image: &str, at: PathBuf, bytes: u64) -> SmallDisk {
        let disk = SmallDisk::of(files.file(image), at, bytes);
        disk.make("e2fsprogs", Command::new("mkfs.ext4").args(["-q", "-F"]))
    }

    /// An ext4 whose file lies on a tmpfs that has less room than the filesystem believes to have.
    pub(crate) fn promising_too_much(files: &TempDir, bytes: u64, room_bytes: u64) -> SmallDisk {
        let shelf = files.file("shelf");
        std::fs::create_dir(&shelf).expect("a directory");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={room_bytes}"), "none"]);
        tool("mount", command.arg(&shelf));
        let disk = SmallDisk::of(shelf.join("image"), files.file("source"), bytes);
        let mut command = Command::new("mkfs.ext4");
        command.args(["-q", "-O", "^has_journal", "-m", "0"]);
        disk.make("e2fsprogs", &mut command)
    }

    fn of(image: PathBuf, at: PathBuf, bytes: u64) -> SmallDisk {
        let file = std::fs::File::create(&image).expect("an image");
        file.set_len(bytes).expect("its size");
        std::fs::create_dir(&at).expect("a directory");
        SmallDisk { image, at }
    }

    fn make(self, package: &str, command: &mut Command) -> SmallDisk {
        tool(package, command.arg(&self.image));
        self.mount();
        self
    }

    pub(crate) fn at(&self) -> &Path {
        &self.at
    }

    pub(crate) fn image(&self) -> &Path {
        &self.image
    }

    pub(crate) fn mount(&self) {
        let mut command = Command::new("mount");
        command.args(["-o", "loop"]).arg(&self.image).arg(&self.at);
        tool("mount", &mut command);
    }

    pub(crate) fn unmount(&self) {
        tool("mount", Command::new("umount").arg(&self.at));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The target that shows it may be there still.
        for path in [self.at.as_path(), self.image.parent().expect("a directory")] {
            let _ = Command::new("umount").arg("--lazy").arg(path).output();
        }
    }
}
