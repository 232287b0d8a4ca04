//! The mount itself: made, found in the kernel's list, taken away.
//!
//! Stage: before the first request and after the last.

use std::ffi::{CStr, CString, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags as KernelFlags, UnmountFlags};
use zcache_sys::fd::PidFd;

use crate::config::{MountConfig, MountFlags};
use crate::device::Device;
use crate::error::MountError;
use crate::session::Transfer;

/// An extended attribute of the root that is asked for to see whether anybody
/// answers: nobody has it, and the source is not asked.
pub(crate) const ALIVE: &CStr = c"trusted.zcache.alive";

/// The type in the kernel's list.
const TYPE: &str = "fuse.zcache";

/// Source and target as the kernel will name them, checked.
pub(crate) fn resolve(config: &MountConfig) -> Result<(PathBuf, PathBuf), MountError> {
    let source = directory("SOURCE", &config.source)?;
    let target = directory("TARGET", &config.target)?;
    if source.starts_with(&target) {
        return Err(MountError::Hidden { source, target });
    }
    if target.starts_with(&source) {
        return Err(MountError::Inside { source, target });
    }
    Ok((source, target))
}

fn directory(role: &'static str, path: &Path) -> Result<PathBuf, MountError> {
    let failed = |error| MountError::Path {
        role,
        path: path.to_owned(),
        error,
    };
    let whole = path.canonicalize().map_err(failed)?;
    match whole.metadata().map_err(failed)?.is_dir() {
        true => Ok(whole),
        false => Err(MountError::NotADirectory {
            role,
            path: path.to_owned(),
        }),
    }
}

/// Mounts what `device` serves.
pub(crate) fn mount(
    device: &Device,
    source: &Path,
    target: &Path,
    flags: MountFlags,
) -> Result<(), MountError> {
    let refused = |error: io::Error| MountError::Refused {
        target: target.to_owned(),
        error,
    };
    let options = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions,allow_other",
        device.as_file().as_raw_fd(),
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let options = CString::new(options).expect("no zero byte in it");
    rustix::mount::mount(
        source,
        target,
        TYPE,
        kernel_flags(flags),
        options.as_c_str(),
    )
    .map_err(|error| refused(error.into()))
}

fn kernel_flags(flags: MountFlags) -> KernelFlags {
    let chosen = [
        (flags.read_only, KernelFlags::RDONLY),
        (!flags.suid, KernelFlags::NOSUID),
        (!flags.devices, KernelFlags::NODEV),
        (!flags.exec, KernelFlags::NOEXEC),
        (!flags.access_times, KernelFlags::NOATIME),
    ];
    let set = chosen.into_iter().filter(|(set, _)| *set);
    set.fold(KernelFlags::empty(), |all, (_, flag)| all | flag)
}

/// How far the kernel may read ahead in the mount, in requests: several, so that
/// one is answered from RAM while another waits for the source.
const READ_AHEAD_TRANSFERS: usize = 2;

/// Lets the kernel read as far ahead as requests can be answered at once. The
/// limit for a new mount is 128 KiB, and where it stays so, sweeps are slower.
pub(crate) fn widen_readahead(device: u32, transfer: Transfer) -> io::Result<()> {
    let path = format!("/sys/class/bdi/0:{device}/read_ahead_kb");
    let kib = (READ_AHEAD_TRANSFERS * transfer.bytes()) >> 10;
    std::fs::write(path, kib.to_string())
}

/// A mount in the kernel's list.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Listed {
    /// Major and minor.
    device: (u32, u32),
    at: PathBuf,
    options: String,
    kind: String,
}

/// All mounts, the topmost of a path last, for mounts can hide each other.
fn listed() -> io::Result<Vec<Listed>> {
    let mounts = std::fs::read("/proc/self/mountinfo")?;
    let lines = mounts.split(|byte| *byte == b'\n');
    Ok(lines.filter_map(parse).collect())
}

/// What is mounted at a path, if anything.
fn listed_at(target: &Path) -> io::Result<Option<Listed>> {
    Ok(listed()?.into_iter().rfind(|mount| mount.at == target))
}

/// The minor number of what is mounted there, whose major number is 0. By it the
/// kernel also names the connection.
pub(crate) fn device_at(target: &Path) -> io::Result<u32> {
    match listed_at(target)?.map(|found| found.device) {
        Some((0, minor)) => Ok(minor),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

/// Whether what has this device number shows up within a folder.
pub(crate) fn is_within(device: u32, folder: &Path) -> io::Result<bool> {
    let all = listed()?;
    let mut ours = all.iter().filter(|one| one.device == (0, device));
    Ok(ours.any(|one| one.at.starts_with(folder)))
}

/// A mount of ours.
fn ours_at(target: &Path) -> Result<Listed, MountError> {
    let found = listed_at(target).map_err(|error| MountError::System {
        what: "/proc/self/mountinfo",
        error,
    })?;
    match found {
        Some(found) if found.kind == TYPE => Ok(found),
        found => Err(MountError::NotMounted {
            target: target.to_owned(),
            found: found.map(|found| found.kind),
        }),
    }
}

/// A line of the list.
fn parse(line: &[u8]) -> Option<Listed> {
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    let mut fields = line.split(|byte| *byte == b' ');
    let device = std::str::from_utf8(fields.nth(2)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let at = unescape(fields.nth(1)?);
    let options = text(fields.next()?);
    // Optional fields end with a dash.
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
    Some(Listed {
        device: (major.parse().ok()?, minor.parse().ok()?),
        at,
        options,
        kind: text(kind),
    })
}

/// Blanks and the like are written in octal.
fn unescape(field: &[u8]) -> PathBuf {
    let mut path = Vec::new();
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let octal = (*first == b'\\').then(|| tail.get(..3)).flatten();
        let code = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(byte) => {
                path.push(byte);
                rest = &tail[3..];
            }
            None => {
                path.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(path))
}

/// How the kernel treats a mount of ours now.
///
/// # Errors
/// [`MountError::NotMounted`], or what the system says.
pub fn mounted_flags(target: &Path) -> Result<MountFlags, MountError> {
    let ours = ours_at(&absolute(target))?;
    let has = |name: &str| ours.options.split(',').any(|option| option == name);
    Ok(MountFlags {
        read_only: has("ro"),
        suid: !has("nosuid"),
        devices: !has("nodev"),
        exec: !has("noexec"),
        access_times: !has("noatime"),
    })
}

/// Changes how the kernel treats a mount of ours.
///
/// # Errors
/// [`MountError::NotMounted`], or what the system says: EBUSY where files are
/// open for writing and nothing is to be changed any more.
pub fn remount(target: &Path, flags: MountFlags) -> Result<(), MountError> {
    let target = absolute(target);
    ours_at(&target)?;
    rustix::mount::mount_remount(&target, kernel_flags(flags), c"").map_err(|error| {
        MountError::Path {
            role: "TARGET",
            path: target,
            error: error.into(),
        }
    })
}

/// How long an unmount waits at most for the process that served the mount.
const END_BOUND: Duration = Duration::from_secs(10);

/// How long zcache may take to answer before it counts as dead.
const ANSWER_BOUND: Duration = Duration::from_secs(10);

/// How long those who were waiting may take to go once they have an error.
const LEAVE_BOUND: Duration = Duration::from_secs(3);

/// Takes a mount of zcache's away; `lazy` hides it at once and ends it when
/// nobody uses it any more. Otherwise this waits until the process that served
/// it has ended, and so let go of the source, unless it serves somebody still
/// (by a mount of the same in another place). Where zcache does not answer any
/// more, whoever waits for it gets an error, and nobody waits for its end.
///
/// # Errors
/// [`MountError::NotMounted`], [`MountError::Busy`], or what the system says.
pub fn unmount(target: &Path, lazy: bool) -> Result<(), MountError> {
    let target = absolute(target);
    let ours = ours_at(&target)?;
    if !answers(&target) {
        return abort(&target, lazy);
    }
    // Afterwards the device's number may be another mount's.
    let stays = lazy || is_also_elsewhere(&ours).unwrap_or(true);
    let servers = match stays {
        true => Vec::new(),
        false => servers_of(ours.device),
    };
    detach(&target, lazy)?;
    let end = Instant::now() + END_BOUND;
    for server in servers {
        // What is still there then, is there for a reason that is not ours.
        let left = end.saturating_duration_since(Instant::now());
        let _ = zcache_sys::fd::wait_readable(server.as_fd(), left);
    }
    Ok(())
}

/// Aborts the connection of a mount, and takes away what is not in use.
fn abort(target: &Path, lazy: bool) -> Result<(), MountError> {
    let flags = UnmountFlags::FORCE | UnmountFlags::NOFOLLOW;
    if rustix::mount::unmount(target, flags).is_ok() {
        return Ok(());
    }
    let end = Instant::now() + LEAVE_BOUND;
    loop {
        match detach(target, lazy) {
            Err(MountError::Busy { .. }) if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(50));
            }
            result => return result,
        }
    }
}

/// Whether a mount is there a second time, as by a bind mount of it.
fn is_also_elsewhere(mount: &Listed) -> io::Result<bool> {
    let all = listed()?.into_iter();
    let same = all.filter(|other| other.device == mount.device);
    Ok(same.count() > 1)
}

/// The process that serves a mount, by what the kernel says of descriptors of
/// `/dev/fuse` (Linux 6.17). One whose mount had the same number before, and which
/// is about to end, cannot be told from it.
fn servers_of((_, connection): (u32, u32)) -> Vec<PidFd> {
    let line = format!("fuse_connection:\t{connection}");
    let serves = |pid: &i32| {
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fdinfo"));
        descriptors.into_iter().flatten().flatten().any(|entry| {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            text.lines().any(|told| told == line)
        })
    };
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let ours = numbers.filter(|pid| is_zcache(*pid)).filter(serves);
    ours.filter_map(|pid| PidFd::open(pid).ok()).collect()
}

/// Whether a process has our name, or that of our helper for mount(8).
fn is_zcache(pid: i32) -> bool {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.contains("zcache")
}

/// Whether who serves a mount answers, or is known to be gone.
fn answers(target: &Path) -> bool {
    let (said, answer) = std::sync::mpsc::channel();
    let target = target.to_owned();
    let asking = std::thread::Builder::new().spawn(move || {
        // It is not there, which is an answer.
        let _ = rustix::fs::lgetxattr(&target, ALIVE, &mut [0u8; 1]);
        let _ = said.send(());
    });
    asking.is_err() || answer.recv_timeout(ANSWER_BOUND).is_ok()
}

/// Takes away what is mounted there.
pub(crate) fn detach(target: &Path, lazy: bool) -> Result<(), MountError> {
    let flags = match lazy {
        true => UnmountFlags::DETACH,
        false => UnmountFlags::empty(),
    };
    rustix::mount::unmount(target, flags | UnmountFlags::NOFOLLOW).map_err(|error| match error {
        rustix::io::Errno::BUSY => MountError::Busy {
            target: target.to_owned(),
        },
        error => MountError::Path {
            role: "TARGET",
            path: target.to_owned(),
            error: error.into(),
        },
    })
}

/// The path as the kernel lists it. A mount whose server is dead cannot be
/// looked at, so only the folder that it lies in is.
fn absolute(target: &Path) -> PathBuf {
    if let Ok(whole) = target.canonicalize() {
        return whole;
    }
    let bytes = target.as_os_str().as_bytes();
    let trimmed = bytes.strip_suffix(b"/").unwrap_or(bytes);
    let target = Path::new(std::ffi::OsStr::from_bytes(trimmed));
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    match (folder.canonicalize(), target.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => target.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_list_is_read() {
        let line = b"36 35 98:0 / /mnt/a\\040b rw,noatime shared:1 master:2 - fuse.zcache /src rw";
        let found = parse(line).expect("a line");
        assert_eq!(found.at, Path::new("/mnt/a b"));
        assert_eq!(found.kind, "fuse.zcache");
        assert_eq!((found.device, &*found.options), ((98, 0), "rw,noatime"));
        assert_eq!(parse(b""), None);
        assert_eq!(unescape(b"end\\"), Path::new("end\\"));
    }

    #[test]
    fn what_is_mounted_is_told() {
        let found = listed_at(Path::new("/proc")).expect("the list");
        assert_eq!(found.expect("it is mounted").kind, "proc");
        let error = unmount(Path::new("/proc/"), false).expect_err("not ours");
        assert!(error.to_string().contains("type proc"), "{error}");
        let error = unmount(Path::new("/nonexistent"), false).expect_err("nothing");
        assert!(error.to_string().contains("no mount"), "{error}");
    }
}
