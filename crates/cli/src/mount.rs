//! `zcache mount` and `zcache umount`: read the command line, and become a
//! daemon if asked to.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use zcache_mount::{MountConfig, MountFlags};
use zcache_sys::process::{self, Side};

use crate::remote_options::RemoteOptions;
use crate::{codecs, size};

/// Show a tree a second time, and keep what the page cache drops of it.
///
/// TARGET shows the tree SOURCE. Pages of files that are read through TARGET,
/// dropped by the page cache and read again are kept compressed in RAM, so that
/// the next time they come from there and not from slow storage; with --remote, what
/// RAM has no room for is kept in other machines' RAM. What is
/// written goes to SOURCE before the write returns; nothing can be lost here.
///
/// Returns when the tree is there; `zcache umount TARGET`, umount(8) or SIGTERM
/// take it away. SIGUSR1 writes the statistics. What is guaranteed when SOURCE
/// is changed beside the mount is in docs/mount.md.
///
/// Ends with 0, or with 125 when it cannot mount. Needs root.
#[derive(Args)]
pub(crate) struct Mount {
    /// The budget for compressed pages and zcache's own memory, for example 512M
    /// or 2G (K, M, G, T: powers of 1024). Without it an eighth of the machine's.
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    ram: Option<u64>,

    /// Which pages are kept: seen-again, those that are read a second time, so
    /// that a stream displaces nothing; or all.
    #[arg(long, value_name = "POLICY", default_value = "seen-again")]
    admit: String,

    /// Nothing can be changed through TARGET.
    #[arg(long)]
    read_only: bool,

    // Its help lists the codecs that there are.
    #[arg(long, value_name = "NAME", default_value = "auto", help = codecs::help())]
    codec: String,

    /// How compressed pages are packed: block (densest), or, for comparison,
    /// zbud, ztri or zsmalloc.
    #[arg(long, value_name = "NAME", default_value = "block")]
    allocator: String,

    /// CPU time for compressing cold pages harder (at a higher level, with a dictionary)
    /// while nothing else needs it, in percent of one processor; 0 for none.
    #[arg(long, value_name = "PERCENT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=100))]
    cold_cpu: u32,

    /// Write statistics as JSON to this file at the end and on SIGUSR1.
    #[arg(long, value_name = "FILE")]
    stats: Option<PathBuf>,

    /// Do not watch the filesystem of SOURCE for changes beside the mount, which
    /// is done where it can be: they are seen at the next open all the same.
    #[arg(long)]
    no_watch: bool,

    /// How requests and answers go between the kernel and zcache: uring
    /// (FUSE over io_uring: Linux 6.14, off until somebody writes Y to
    /// /sys/module/fuse/parameters/enable_uring), dev (/dev/fuse), or auto:
    /// uring where the kernel offers it.
    #[arg(long, value_name = "NAME", default_value = "auto")]
    transport: String,

    /// How many requests are served at once; without it two for each processor.
    #[arg(long, value_name = "NUMBER")]
    threads: Option<usize>,

    /// Stay in the foreground, and end with the mount.
    #[arg(long, short)]
    foreground: bool,

    /// Options as mount(8) and /etc/fstab have them: ro, suid, dev, noexec,
    /// noatime, nowatch, and ram=, admit=, codec=, allocator=, cold-cpu=, stats=,
    /// transport=, threads=, and remote=, remote-max= and the like as above (of a
    /// cluster one node, since commas part options).
    #[arg(short = 'o', value_name = "OPTIONS", value_delimiter = ',')]
    options: Vec<String>,

    #[command(flatten)]
    remote: RemoteOptions,

    /// The directory to be shown.
    source: PathBuf,

    /// The directory where it is shown.
    target: PathBuf,
}

/// Take a mount of `zcache mount` away, also one whose zcache was killed.
///
/// Ends with 0, or with 125 when there is no such mount or it is in use.
#[derive(Args)]
pub(crate) struct Umount {
    /// Hide it now, and end it when nobody uses it any more.
    #[arg(long, short)]
    lazy: bool,

    /// Where the tree is shown.
    target: PathBuf,
}

/// The command of [`Guard`].
pub(crate) const GUARD: &str = "guard-of-mount";

/// What `zcache mount` starts beside itself.
#[derive(Args)]
pub(crate) struct Guard;

impl Guard {
    pub(crate) fn run(&self) {
        zcache_mount::guard();
    }
}

impl Umount {
    /// Unmounts.
    ///
    /// # Errors
    /// What to tell the user.
    pub(crate) fn run(&self) -> Result<(), String> {
        zcache_mount::unmount(&self.target, self.lazy).map_err(|error| error.to_string())
    }
}

impl Mount {
    /// Mounts; returns when the mount is there, or in the foreground when it is
    /// gone.
    ///
    /// # Errors
    /// What to tell the user.
    pub(crate) fn run(mut self) -> Result<(), String> {
        if self.options.iter().any(|option| option == "remount") {
            return self.remount();
        }
        let flags = self.take_options()?;
        let foreground = self.foreground;
        let config = self.config(flags)?;
        match foreground {
            true => serve(&config, || ()),
            false => serve_in_background(&config),
        }
    }

    /// Changes how the kernel treats a mount that is there; what is not said stays
    /// as it is. mount(8) adds the options that it has found in its lists, which
    /// say nothing new.
    fn remount(&mut self) -> Result<(), String> {
        let told = |error: zcache_mount::MountError| error.to_string();
        let mut flags = zcache_mount::mounted_flags(&self.target).map_err(told)?;
        flags.read_only |= self.read_only;
        for option in &self.options {
            set_flag(&mut flags, option);
        }
        zcache_mount::remount(&self.target, flags).map_err(told)
    }

    /// Reads what `-o` says into the options proper.
    fn take_options(&mut self) -> Result<MountFlags, String> {
        let mut flags = MountFlags {
            read_only: self.read_only,
            ..MountFlags::default()
        };
        for option in std::mem::take(&mut self.options) {
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (option.as_str(), None),
            };
            if set_flag(&mut flags, &option) {
                continue;
            }
            match (name, value) {
                ("nowatch", None) => self.no_watch = true,
                ("ram", Some(value)) => self.ram = Some(size::parse(value)?),
                ("admit", Some(value)) => self.admit = value.to_owned(),
                ("codec", Some(value)) => self.codec = value.to_owned(),
                ("allocator", Some(value)) => self.allocator = value.to_owned(),
                ("cold-cpu", Some(value)) => self.cold_cpu = percent(value)?,
                ("stats", Some(value)) => self.stats = Some(value.into()),
                ("transport", Some(value)) => self.transport = value.to_owned(),
                ("threads", Some(value)) => {
                    let number = value
                        .parse()
                        .map_err(|_| format!("threads={value}: no number"));
                    self.threads = Some(number?);
                }
                (name, value)
                    if let Some(rest) = of_remote(name)
                        && self.remote.set(rest, value)? => {}
                // What only mount(8) and systemd read.
                (
                    "defaults" | "auto" | "noauto" | "nofail" | "_netdev" | "user" | "nouser"
                    | "async" | "relatime",
                    None,
                ) => {}
                (name, _) if name.starts_with("x-") || name.starts_with("comment") => {}
                _ => {
                    return Err(format!(
                        "-o {option}: no such option; zcache mount --help lists them"
                    ));
                }
            }
        }
        Ok(flags)
    }

    fn config(self, flags: MountFlags) -> Result<MountConfig, String> {
        let ram_bytes = self
            .ram
            .unwrap_or_else(|| zcache_mount::system_ram_bytes() / 8);
        let remote = self.remote.tier_of_cache(ram_bytes)?;
        Ok(MountConfig {
            source: self.source,
            target: self.target,
            ram_bytes,
            admit: self
                .admit
                .parse()
                .map_err(|error| format!("--admit: {error}"))?,
            codec: self
                .codec
                .parse()
                .map_err(|error| format!("--codec: {error}"))?,
            allocator: self
                .allocator
                .parse()
                .map_err(|error| format!("--allocator: {error}"))?,
            cold_cpu_percent: self.cold_cpu,
            tiers: Vec::from_iter(remote),
            watch: !self.no_watch,
            flags,
            // A daemon's working directory is the root.
            stats: self
                .stats
                .map(|path| std::path::absolute(&path).unwrap_or(path)),
            transport: self
                .transport
                .parse()
                .map_err(|error| format!("--transport: {error}"))?,
            threads: self.threads,
            guard: vec!["/proc/self/exe".into(), GUARD.into()],
        })
    }
}

/// Sets the flag that an option of mount(8) names; whether it names one.
fn set_flag(flags: &mut MountFlags, option: &str) -> bool {
    match option {
        "ro" => flags.read_only = true,
        "rw" => flags.read_only = false,
        "suid" => flags.suid = true,
        "nosuid" => flags.suid = false,
        "dev" => flags.devices = true,
        "nodev" => flags.devices = false,
        "exec" => flags.exec = true,
        "noexec" => flags.exec = false,
        "atime" => flags.access_times = true,
        "noatime" => flags.access_times = false,
        _ => return false,
    }
    true
}

/// What an option of mount(8) about other machines' RAM is about.
fn of_remote(name: &str) -> Option<&str> {
    match name {
        "remote" => Some(""),
        name => name.strip_prefix("remote-"),
    }
}

fn percent(value: &str) -> Result<u32, String> {
    let number = value.parse().ok().filter(|number| *number <= 100);
    number.ok_or_else(|| format!("cold-cpu={value}: no number from 0 to 100"))
}

fn serve(config: &MountConfig, mounted: impl FnOnce()) -> Result<(), String> {
    zcache_mount::mount(config, mounted).map_err(|error| error.to_string())
}

/// Leaves a child behind that serves, and returns when it does.
fn serve_in_background(config: &MountConfig) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("cannot go to the background: {error}");
    let (mut said, mut say) = std::io::pipe().map_err(failed)?;
    match process::fork().map_err(failed)? {
        Side::Parent(_) => {
            drop(say);
            let mut word = [0];
            match said.read(&mut word) {
                Ok(1) => Ok(()),
                // The child has told the user why.
                _ => std::process::exit(zcache_pager::EXIT_OWN),
            }
        }
        Side::Child => {
            drop(said);
            serve(config, || {
                zcache_mount::leave_terminal();
                let _ = say.write_all(b"!");
                drop(say);
            })
        }
    }
}

/// mount(8) calls /sbin/mount.zcache for the type zcache, and for a remount
/// /sbin/mount.fuse.zcache, in its own way: source, target, switches, and options
/// behind `-o`. A link of such a name to this program makes it the helper. Without
/// the latter, /sbin/mount.fuse of package fuse3 calls this program by its own
/// name in the same way, and adds `dev` and `suid` by itself: these are not taken
/// from there.
pub(crate) fn as_helper(arguments: Vec<OsString>) -> Vec<OsString> {
    let name = arguments.first().map(|name| Path::new(name).file_name());
    let name = name.flatten().unwrap_or_default().to_os_string();
    let is_helper = name == "mount.zcache" || name == "mount.fuse.zcache";
    let begins = |argument: &OsString| argument.as_encoded_bytes().starts_with(b"/");
    if !is_helper && !arguments.get(1).is_some_and(begins) {
        return arguments;
    }
    let mut translated: Vec<OsString> = vec!["zcache".into(), "mount".into()];
    let mut rest = arguments.into_iter().skip(1);
    while let Some(argument) = rest.next() {
        match argument.to_str() {
            // Verbose, sloppy, and not to be listed: nothing that changes here.
            Some("-v" | "-s" | "-n") => {}
            // The type, which the name says already.
            Some("-t") => drop(rest.next()),
            Some(options) if !is_helper && options.contains(',') => {
                let asked = options.split(',');
                let asked = asked.filter(|option| !matches!(*option, "dev" | "suid"));
                translated.push(asked.collect::<Vec<_>>().join(",").into());
            }
            _ => translated.push(argument),
        }
    }
    translated
}

#[cfg(test)]
mod tests {
    use super::*;

    fn helper(arguments: &[&str]) -> Vec<OsString> {
        as_helper(arguments.iter().map(OsString::from).collect())
    }

    #[test]
    fn mount_calls_the_helper_in_its_own_way() {
        let said = ["/sbin/mount.zcache", "/a", "/b", "-n", "-o", "rw,ram=64M"];
        let wanted = ["zcache", "mount", "/a", "/b", "-o", "rw,ram=64M"];
        assert_eq!(helper(&said), wanted.map(OsString::from));
        for name in ["/sbin/mount.fuse.zcache", "zcache"] {
            let added = match name {
                "zcache" => "remount,ro,dev,suid",
                _ => "remount,ro",
            };
            let said = [name, "/a", "/b", "-o", added];
            let wanted = ["zcache", "mount", "/a", "/b", "-o", "remount,ro"];
            assert_eq!(helper(&said), wanted.map(OsString::from));
        }
        let plain = ["zcache", "mount", "-n"];
        assert_eq!(helper(&plain), plain.map(OsString::from));
    }
}
