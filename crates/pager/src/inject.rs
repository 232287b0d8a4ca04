//! Taking an address space into care: descriptors, code, ring, shadow and
//! servant are put into a stopped process by injected system calls.
//!
//! Happens at two moments, both before the first instruction of the program
//! there: after an exec and at the birth of a forked child. Everything injected
//! is marked so that a fork does not inherit it.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use zcache_sys::fd::PidFd;
use zcache_sys::process::read_memory;
use zcache_sys::ptrace::{self, InjectError, Registers};
use zcache_sys::servant::{
    self, CODE_PAGE, Command, ENTRY_CALL, ENTRY_CLONE, FILE_BYTES, RING_BASE, RING_BYTES, Ring,
    SHADOW_BASE,
};
use zcache_sys::shared::{SharedMap, fill};
use zcache_sys::uffd::{
    FEATURE_EVENT_FORK, FEATURE_EVENT_REMAP, FEATURE_MOVE, FEATURE_POISON, FEATURE_SIGBUS,
    FEATURE_THREAD_ID, USERFAULTFD_IOC_NEW, Uffd,
};

use crate::budget::PAGE_BYTES;
use crate::fork::queue_runs;
use crate::pager::Pager;
use crate::space::{Servant, Space};
use crate::table::{State, Vpn, pages};

const AT_SYSINFO_EHDR: u64 = 33;
const USER_CODE_64: u64 = 0x33;
const PROT_RW: u64 = (libc::PROT_READ | libc::PROT_WRITE) as u64;
const PROT_RX: u64 = (libc::PROT_READ | libc::PROT_EXEC) as u64;
const MAP_SHARED_FIXED: u64 = (libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE) as u64;
const MAP_SHADOW: u64 =
    (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE)
        as u64;

/// Why an address space cannot be paged.
#[derive(Debug)]
pub(crate) enum CareError {
    /// The image is for another machine mode.
    NotX86_64,
    /// No `syscall` instruction was found to inject with.
    NoEntry,
    /// An injected call failed in the process.
    Call { what: &'static str, errno: i32 },
    /// A call of the pager's own failed.
    Own {
        what: &'static str,
        error: io::Error,
    },
    /// The process ended meanwhile.
    Ended(Option<ptrace::Stop>),
}

impl fmt::Display for CareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CareError::NotX86_64 => {
                write!(
                    f,
                    "the program is a 32-bit image; only 64-bit (x86-64) programs can be paged"
                )
            }
            CareError::NoEntry => write!(f, "the process has no vDSO to make system calls from"),
            CareError::Call { what, errno } => {
                write!(
                    f,
                    "{what} in the program: {}",
                    io::Error::from_raw_os_error(*errno)
                )
            }
            CareError::Own { what, error } => write!(f, "{what}: {error}"),
            CareError::Ended(_) => write!(f, "the program ended"),
        }
    }
}

impl From<InjectError> for CareError {
    fn from(error: InjectError) -> Self {
        match error {
            InjectError::Died(stop) => CareError::Ended(Some(stop)),
            InjectError::Ptrace(error) if error.raw_os_error() == Some(libc::ESRCH) => {
                CareError::Ended(None)
            }
            InjectError::Ptrace(error) => CareError::Own {
                what: "ptrace",
                error,
            },
        }
    }
}

fn own(what: &'static str) -> impl Fn(io::Error) -> CareError {
    move |error| match error.raw_os_error() {
        Some(libc::ESRCH) => CareError::Ended(None),
        _ => CareError::Own { what, error },
    }
}

/// A stopped process into which calls are injected.
struct Patient {
    pid: i32,
    pidfd: PidFd,
    saved: Registers,
    mask: u64,
    vdso: u64,
    entry: std::cell::Cell<u64>,
}

impl Patient {
    fn open(pid: i32) -> Result<Patient, CareError> {
        let saved = ptrace::registers(pid).map_err(own("reading registers"))?;
        if saved.cs != USER_CODE_64 {
            return Err(CareError::NotX86_64);
        }
        let mask = ptrace::signal_mask(pid).map_err(own("reading the signal mask"))?;
        ptrace::set_signal_mask(pid, u64::MAX).map_err(own("blocking signals"))?;
        let pidfd = PidFd::open(pid).map_err(own("pidfd_open"))?;
        let (vdso, entry) = find_syscall(pid).ok_or(CareError::NoEntry)?;
        Ok(Patient {
            pid,
            pidfd,
            saved,
            mask,
            vdso,
            entry: entry.into(),
        })
    }

    fn call(&self, what: &'static str, number: i64, a: [u64; 6]) -> Result<u64, CareError> {
        let result = ptrace::inject(self.pid, &self.saved, self.entry.get(), number, a)?;
        u64::try_from(result).map_err(|_| CareError::Call {
            what,
            errno: -result as i32,
        })
    }

    fn take(&self, number: u64) -> Result<OwnedFd, CareError> {
        self.pidfd
            .take_fd(number as i32)
            .map_err(own("pidfd_getfd"))
    }

    fn close(&self, number: u64) -> Result<(), CareError> {
        self.call("close", libc::SYS_close, [number, 0, 0, 0, 0, 0])
            .map(drop)
    }

    /// Makes a userfaultfd in the process: by the system call, or by the
    /// device where an administrator has opened that to users.
    fn userfaultfd(&self, scratch: u64) -> Result<u64, CareError> {
        let flags = (libc::O_CLOEXEC | libc::O_NONBLOCK) as u64;
        let by_call = self.call("userfaultfd", libc::SYS_userfaultfd, [flags, 0, 0, 0, 0, 0]);
        let Err(CareError::Call {
            errno: libc::EPERM, ..
        }) = by_call
        else {
            return by_call;
        };
        let read_write = (libc::O_RDWR | libc::O_CLOEXEC) as u64;
        let arguments = [libc::AT_FDCWD as u64, scratch, read_write, 0, 0, 0];
        let Ok(device) = self.call("open", libc::SYS_openat, arguments) else {
            return by_call;
        };
        let made = self.call(
            "userfaultfd",
            libc::SYS_ioctl,
            [device, USERFAULTFD_IOC_NEW, flags, 0, 0, 0],
        );
        self.close(device)?;
        made
    }

    fn restore(self) -> Result<(), CareError> {
        ptrace::set_registers(self.pid, &self.saved).map_err(own("restoring registers"))?;
        ptrace::set_signal_mask(self.pid, self.mask).map_err(own("restoring the signal mask"))
    }
}

/// Finds the process's vDSO and a `syscall` instruction in it.
fn find_syscall(pid: i32) -> Option<(u64, u64)> {
    let auxv = fs::read(format!("/proc/{pid}/auxv")).ok()?;
    let word = |bytes: &[u8]| u64::from_ne_bytes(std::array::from_fn(|i| bytes[i]));
    let base = auxv
        .chunks_exact(16)
        .find(|pair| word(&pair[..8]) == AT_SYSINFO_EHDR)
        .map(|pair| word(&pair[8..]))?;
    let mut code = vec![0u8; 16_384];
    let mut got = 0;
    for chunk in code.chunks_mut(4096) {
        got += read_memory(pid, base + got as u64, chunk).unwrap_or(0);
    }
    let at = code[..got]
        .windows(2)
        .position(|pair| pair == [0x0f, 0x05])?;
    Some((base, base + at as u64))
}

impl Pager {
    /// After an exec: takes the new image into care. The process is stopped at
    /// the exit of its exec.
    pub(crate) fn care_for_image(&self, pid: i32) -> Result<Space, CareError> {
        let patient = Patient::open(pid)?;
        let ring = install_ring(&patient)?;
        let scratch = ring.put(0, &device_path());
        let number = patient.userfaultfd(scratch)?;
        let uffd = Uffd::from_fd(patient.take(number)?);
        patient.close(number)?;
        let features = FEATURE_EVENT_FORK
            | FEATURE_EVENT_REMAP
            | FEATURE_THREAD_ID
            | FEATURE_POISON
            | FEATURE_MOVE;
        uffd.handshake(features)
            .map_err(own("userfaultfd features"))?;
        let space = Space::new(self.new_space_id(), uffd, pid, self.sizes.shadow_slots);
        self.install_servant(&patient, &space, ring, scratch)?;
        let brk = patient.call("brk", libc::SYS_brk, [0; 6])?;
        space.core().brk = brk;
        self.adopt_mappings(&space, pid)?;
        patient.restore()?;
        Ok(space)
    }

    /// After a fork: gives the child's space, whose table is there already,
    /// hands of its own. The process is stopped before its first instruction.
    pub(crate) fn care_for_child(&self, pid: i32, space: &Space) -> Result<(), CareError> {
        let patient = Patient::open(pid)?;
        let ring = install_ring(&patient)?;
        let scratch = ring.put(0, &device_path());
        self.install_servant(&patient, space, ring, scratch)?;
        space.leader.store(pid, Ordering::Relaxed);
        patient.restore()
    }

    fn install_servant(
        &self,
        patient: &Patient,
        space: &Space,
        ring: Ring,
        scratch: u64,
    ) -> Result<(), CareError> {
        let shadow_bytes = self.sizes.shadow_slots * PAGE_BYTES;
        let nothing = u64::MAX;
        let arguments = [SHADOW_BASE, shadow_bytes, PROT_RW, MAP_SHADOW, nothing, 0];
        patient.call("mmap of the shadow", libc::SYS_mmap, arguments)?;
        for (start, len, advice) in [
            (SHADOW_BASE, shadow_bytes, libc::MADV_DONTFORK),
            (SHADOW_BASE, shadow_bytes, libc::MADV_NOHUGEPAGE),
            (CODE_PAGE, PAGE_BYTES, libc::MADV_DONTFORK),
            (RING_BASE, RING_BYTES, libc::MADV_DONTFORK),
        ] {
            // Kernels without huge pages refuse the advice about them.
            let result = patient.call(
                "madvise",
                libc::SYS_madvise,
                [start, len, advice as u64, 0, 0, 0],
            );
            if advice == libc::MADV_DONTFORK {
                result?;
            }
        }
        let shadow_fd = patient.userfaultfd(scratch)?;
        let shadow_uffd = Uffd::from_fd(patient.take(shadow_fd)?);
        shadow_uffd
            .handshake(FEATURE_MOVE | FEATURE_SIGBUS)
            .map_err(own("userfaultfd features (UFFDIO_MOVE needs Linux 6.8)"))?;
        shadow_uffd
            .register(SHADOW_BASE, shadow_bytes)
            .map_err(own("registering the shadow"))?;
        let servant = start_servant(patient, ring, shadow_fd)?;
        let servant = Servant {
            guard_slot: self.guard_process(&servant.pidfd),
            ..servant
        };
        patient.close(shadow_fd)?;
        let pagemap = File::open(format!("/proc/{}/pagemap", patient.pid))
            .map_err(own("opening the page map"))?;
        // Both are set once, here, for a space that nobody else knows yet.
        let _ = space.pagemap.set(pagemap);
        let _ = space.servant.set(servant);
        Ok(())
    }

    /// Registers what an exec left in memory: stack, heap, zeroed data.
    fn adopt_mappings(&self, space: &Space, pid: i32) -> Result<(), CareError> {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps"))
            .map_err(own("reading the memory map"))?;
        let Some(pagemap) = space.pagemap.get() else {
            return Ok(());
        };
        let mut resident = Vec::new();
        for (start, end) in maps.lines().filter_map(private_anonymous) {
            if space.uffd.register(start, end - start).is_err() {
                continue;
            }
            let range = pages(start, end - start);
            let mut entries = vec![0u8; (range.end - range.start) as usize * 8];
            let got = pagemap.read_at(&mut entries, range.start * 8).unwrap_or(0);
            for (index, entry) in entries[..got].chunks_exact(8).enumerate() {
                let entry = u64::from_ne_bytes(std::array::from_fn(|i| entry[i]));
                if entry >> 62 != 0 {
                    resident.push(Vpn(range.start + index as u64));
                }
            }
        }
        let mut core = space.core();
        for page in &resident {
            core.table.set(*page, State::Resident);
        }
        queue_runs(&mut core, &resident, self.next_stamp());
        drop(core);
        self.budget.charge_anyway(resident.len() as u64);
        Ok(())
    }
}

/// The range of a line of `/proc/PID/maps` if it is private anonymous memory
/// of the program.
fn private_anonymous(line: &str) -> Option<(u64, u64)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let flags = fields.next()?;
    let inode = fields.nth(2)?;
    let name = fields.next().unwrap_or("");
    let start = u64::from_str_radix(start, 16).ok()?;
    let end = u64::from_str_radix(end, 16).ok()?;
    let ours = (CODE_PAGE..SHADOW_BASE + (1 << 30)).contains(&start);
    let kernels = matches!(name, "[vdso]" | "[vvar]" | "[vvar_vclock]" | "[vsyscall]");
    (inode == "0" && flags.ends_with('p') && !ours && !kernels).then_some((start, end))
}

fn device_path() -> [u64; 3] {
    let mut bytes = [0u8; 24];
    let path = b"/dev/userfaultfd";
    bytes[..path.len()].copy_from_slice(path);
    std::array::from_fn(|word| {
        u64::from_ne_bytes(std::array::from_fn(|index| bytes[word * 8 + index]))
    })
}

/// Maps code and ring into the process and the ring into the pager. Further
/// calls are injected by the code page's own instruction, which the filter
/// lets pass.
fn install_ring(patient: &Patient) -> Result<Ring, CareError> {
    // The name is whatever stands at the vDSO's start: "\x7fELF…" and a zero.
    let name = patient.vdso;
    let number = patient.call(
        "memfd_create",
        libc::SYS_memfd_create,
        [name, u64::from(libc::MFD_CLOEXEC), 0, 0, 0, 0],
    )?;
    let file = patient.take(number)?;
    fill(&file, FILE_BYTES, servant::code()).map_err(own("writing the servant's code"))?;
    patient.call(
        "mmap of the servant's code",
        libc::SYS_mmap,
        [CODE_PAGE, PAGE_BYTES, PROT_RX, MAP_SHARED_FIXED, number, 0],
    )?;
    patient.call(
        "mmap of the servant's ring",
        libc::SYS_mmap,
        [
            RING_BASE,
            RING_BYTES,
            PROT_RW,
            MAP_SHARED_FIXED,
            number,
            PAGE_BYTES,
        ],
    )?;
    patient.entry.set(ENTRY_CALL);
    patient.close(number)?;
    let map = SharedMap::new(Some(&file), FILE_BYTES as usize).map_err(own("mmap of the ring"))?;
    Ok(Ring::new(map))
}

/// Clones the servant and has it cut its ties to the program.
fn start_servant(patient: &Patient, ring: Ring, shadow_fd: u64) -> Result<Servant, CareError> {
    let flags = (libc::CLONE_VM | libc::CLONE_UNTRACED) as u64;
    let mut base = patient.saved;
    base.r12 = RING_BASE;
    base.r13 = flags;
    let born = ptrace::inject(
        patient.pid,
        &base,
        ENTRY_CLONE,
        libc::SYS_clone,
        [flags, 0, 0, 0, 0, 0],
    )?;
    if born < 0 {
        return Err(CareError::Call {
            what: "clone of the servant",
            errno: -born as i32,
        });
    }
    // The child between only makes the servant; its end is awaited there.
    let wait = [born as u64, 0, libc::__WALL as u64, 0, 0, 0];
    patient.call("wait", libc::SYS_wait4, wait)?;
    let pid = ring.pid();
    if pid <= 0 {
        return Err(CareError::Call {
            what: "clone of the servant",
            errno: -pid,
        });
    }
    let pidfd = PidFd::open(pid).map_err(own("pidfd_open of the servant"))?;
    let root = ring.put(0, &[u64::from(b'/')]);
    let name: [u8; 16] = *b"zcache-servant\0\0";
    let name_words: [u64; 2] = std::array::from_fn(|word| {
        u64::from_ne_bytes(std::array::from_fn(|index| name[word * 8 + index]))
    });
    let name = ring.put(64, &name_words);
    let command = |number, arguments| Command { number, arguments };
    let all = u64::from(u32::MAX);
    let mut commands = vec![
        command(libc::SYS_setsid, [0; 6]),
        command(libc::SYS_chdir, [root, 0, 0, 0, 0, 0]),
        command(
            libc::SYS_prctl,
            [libc::PR_SET_NAME as u64, name, 0, 0, 0, 0],
        ),
        command(libc::SYS_close_range, [shadow_fd + 1, all, 0, 0, 0, 0]),
    ];
    if shadow_fd > 0 {
        commands.push(command(
            libc::SYS_close_range,
            [0, shadow_fd - 1, 0, 0, 0, 0],
        ));
    }
    let alive = || {
        !matches!(
            zcache_sys::fd::wait_readable(pidfd.as_fd(), Duration::ZERO),
            Ok(true)
        )
    };
    let mut results = Vec::new();
    ring.run(&commands, &mut results, alive)
        .map_err(|_| CareError::Ended(None))?;
    Ok(Servant {
        ring: Mutex::new(ring),
        pidfd,
        pid,
        shadow_fd,
        guard_slot: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_private_anonymous_ranges_are_adopted() {
        let line = "7ffc0000-7ffd0000 rw-p 00000000 00:00 0      [stack]";
        assert_eq!(private_anonymous(line), Some((0x7ffc_0000, 0x7ffd_0000)));
        for other in [
            "7f00-8f00 rw-s 00000000 00:01 12 /dev/zero (deleted)",
            "7f00-8f00 rw-p 00000000 08:01 77 /usr/bin/true",
            "7ffd0000-7ffd4000 r--p 00000000 00:00 0 [vvar]",
            "7ffd0000-7ffd4000 r-xp 00000000 00:00 0 [vdso]",
            "6a5c40000000-6a5c50000000 rw-p 00000000 00:00 0",
            "nonsense",
        ] {
            assert_eq!(private_anonymous(other), None, "{other}");
        }
    }

    #[test]
    fn the_servants_code_fits_its_page() {
        assert!(servant::code().len() < 4096);
        assert_eq!(&servant::code()[..2], [0x0f, 0x05]);
    }
}
