//! System calls, as functions that say what went wrong.

use std::ffi::CString;
use std::io;
use std::os::fd::AsRawFd;

/// The swap device of the guest.
pub(crate) const SWAP: &str = "/dev/vda";
/// The device with the file system.
pub(crate) const DISK: &str = "/dev/vdb";
/// Where it is mounted.
pub(crate) const TREE: &str = "/mnt";

fn c(text: &str) -> CString {
    CString::new(text).expect("no text here has a zero byte")
}

fn check(what: &str, result: i64) -> Result<(), String> {
    if result < 0 {
        Err(format!("{what}: {}", io::Error::last_os_error()))
    } else {
        Ok(())
    }
}

pub(crate) fn mount(source: &str, target: &str, kind: &str) -> Result<(), String> {
    let (from, to, fs) = (c(source), c(target), c(kind));
    // SAFETY: the strings end in zero bytes and live on.
    let result =
        unsafe { libc::mount(from.as_ptr(), to.as_ptr(), fs.as_ptr(), 0, std::ptr::null()) };
    check(&format!("mount {source} at {target}"), result.into())
}

pub(crate) fn umount(target: &str) -> Result<(), String> {
    let at = c(target);
    // SAFETY: as above.
    let result = unsafe { libc::umount2(at.as_ptr(), 0) };
    check(&format!("umount {target}"), result.into())
}

pub(crate) fn swapon(device: &str) -> Result<(), String> {
    let path = c(device);
    // SAFETY: as above.
    let result = unsafe { libc::swapon(path.as_ptr(), 0) };
    check(&format!("swapon {device}"), result.into())
}

/// Before all other devices.
pub(crate) fn swapon_first(device: &str) -> Result<(), String> {
    let path = c(device);
    // SWAP_FLAG_PREFER, and the highest priority.
    let flags = 0x8000 | 0x7fff;
    // SAFETY: the string ends in a zero byte.
    let result = unsafe { libc::swapon(path.as_ptr(), flags) };
    check(&format!("swapon {device}"), result.into())
}

pub(crate) fn swapoff(device: &str) -> Result<(), String> {
    let path = c(device);
    // SAFETY: as above.
    let result = unsafe { libc::swapoff(path.as_ptr()) };
    check(&format!("swapoff {device}"), result.into())
}

pub(crate) fn load_module(path: &str, parameters: &str) -> Result<(), String> {
    let file = std::fs::File::open(path).map_err(|error| format!("{path}: {error}"))?;
    let text = c(parameters);
    // SAFETY: the descriptor is open and the string ends in a zero byte.
    let result =
        unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), text.as_ptr(), 0) };
    check(&format!("insmod {path} {parameters}"), result)
}

pub(crate) fn unload_module(name: &str) -> Result<(), String> {
    let text = c(name);
    // SAFETY: the string ends in a zero byte.
    let result = unsafe { libc::syscall(libc::SYS_delete_module, text.as_ptr(), libc::O_NONBLOCK) };
    check(&format!("rmmod {name}"), result)
}

/// Whatever a guest needs before the first scenario.
pub(crate) fn bring_up() -> Result<(), String> {
    for directory in ["/proc", "/sys", "/tmp", "/dev", TREE] {
        std::fs::create_dir_all(directory).map_err(|error| format!("{directory}: {error}"))?;
    }
    mount("proc", "/proc", "proc")?;
    mount("sysfs", "/sys", "sysfs")?;
    // The kernel may have mounted it already.
    let _ = mount("devtmpfs", "/dev", "devtmpfs");
    mount("debugfs", "/sys/kernel/debug", "debugfs")?;
    mount("tmpfs", "/tmp", "tmpfs")?;
    swapon(SWAP)?;
    mount(DISK, TREE, "ext4")
}

pub(crate) fn power_off() -> ! {
    // SAFETY: writes what is dirty.
    unsafe { libc::sync() };
    // SAFETY: ends everything here, which is the intention.
    unsafe { libc::reboot(libc::LINUX_REBOOT_CMD_POWER_OFF) };
    loop {
        std::thread::park();
    }
}

/// Anonymous memory of whole pages.
pub(crate) struct Region {
    start: *mut u8,
    pages: usize,
}

// SAFETY: a page is written by the one thread whose page it is; see the callers.
unsafe impl Sync for Region {}

impl Region {
    pub(crate) fn new(pages: usize) -> Result<Region, String> {
        // SAFETY: asks for new memory.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                pages * 4096,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(format!("mmap: {}", io::Error::last_os_error()));
        }
        Ok(Region {
            start: start.cast(),
            pages,
        })
    }

    pub(crate) fn pages(&self) -> usize {
        self.pages
    }

    /// One page. Whoever asks is the only one who uses it meanwhile.
    #[expect(clippy::mut_from_ref, reason = "each page has one owner at a time")]
    pub(crate) fn page(&self, number: usize) -> &mut [u64; 512] {
        assert!(number < self.pages);
        // SAFETY: inside the mapping.
        let at = unsafe { self.start.add(number * 4096) };
        // SAFETY: aligned, mapped, and used by nobody else by the rule above.
        unsafe { &mut *at.cast::<[u64; 512]>() }
    }

    /// Keeps all pages in RAM.
    pub(crate) fn lock(&self) -> Result<(), String> {
        // SAFETY: pins the mapping; no byte changes.
        let result = unsafe { libc::mlock(self.start.cast(), self.pages * 4096) };
        check("mlock", result.into())
    }

    /// A word of the first page that somebody outside changes.
    pub(crate) fn volatile_word(&self, number: usize) -> u64 {
        assert!(number < 512);
        // SAFETY: inside the mapping.
        let at = unsafe { self.start.cast::<u64>().add(number) };
        // SAFETY: mapped and aligned; any bytes are a word.
        unsafe { at.read_volatile() }
    }

    /// Writes a page to the start of a file; false where the page cannot be read.
    pub(crate) fn write_page(&self, number: usize, file: i32) -> bool {
        assert!(number < self.pages);
        // SAFETY: inside the mapping.
        let at = unsafe { self.start.add(number * 4096) };
        // SAFETY: the kernel reads the page, or says that it cannot.
        unsafe { libc::pwrite(file, at.cast(), 4096, 0) == 4096 }
    }

    /// Gives advice about some pages.
    pub(crate) fn advise(&self, first: usize, pages: usize, advice: i32) -> Result<(), String> {
        assert!(first + pages <= self.pages);
        // SAFETY: inside the mapping.
        let at = unsafe { self.start.add(first * 4096) };
        // SAFETY: the range is ours; what the advice drops is dropped on purpose.
        let result = unsafe { libc::madvise(at.cast(), pages * 4096, advice) };
        check("madvise", result.into())
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, and nobody has a page of it.
        unsafe { libc::munmap(self.start.cast(), self.pages * 4096) };
    }
}

/// Runs `child` in a forked process; its exit status, or the negative number of the signal that killed it.
pub(crate) fn forked(child: impl FnOnce() -> i32) -> Result<i32, String> {
    // SAFETY: the child calls nothing that another thread of the parent could hold a lock of: it reads memory and exits.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(format!("fork: {}", io::Error::last_os_error())),
        0 => {
            let status = child();
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(status) }
        }
        pid => {
            let mut status = 0;
            // SAFETY: waits for the child above.
            let waited = unsafe { libc::waitpid(pid, &mut status, 0) };
            if waited != pid {
                return Err(format!("waitpid: {}", io::Error::last_os_error()));
            }
            Ok(if libc::WIFEXITED(status) {
                libc::WEXITSTATUS(status)
            } else {
                -libc::WTERMSIG(status)
            })
        }
    }
}

/// A figure of /proc/meminfo, in pages.
pub(crate) fn meminfo_pages(name: &str) -> usize {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<usize>().ok())
        .map_or(0, |kib| kib / 4)
}

/// A figure of /proc/vmstat.
pub(crate) fn vmstat(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/vmstat").unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .and_then(|value| value.trim().parse().ok())
        .unwrap_or(0)
}

/// Writes a file of the kernel's.
pub(crate) fn write(path: &str, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{path}: {error}"))
}

/// Keeps what this process touches from now on in RAM.
pub(crate) fn lock_all_memory() -> Result<(), String> {
    // SAFETY: pins memory; no byte changes.
    let result = unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_ONFAULT) };
    check("mlockall", result.into())
}

pub(crate) fn unlock_all_memory() -> Result<(), String> {
    // SAFETY: as above.
    let result = unsafe { libc::munlockall() };
    check("munlockall", result.into())
}

/// Has reclaim drop a file's pages: they are read, and paged out by a mapping.
pub(crate) fn page_out(file: &std::fs::File, pages: usize) -> Result<(), String> {
    let bytes = pages * 4096;
    // SAFETY: asks for a new mapping.
    let map = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ,
            libc::MAP_SHARED | libc::MAP_POPULATE,
            file.as_raw_fd(),
            0,
        )
    };
    if map == libc::MAP_FAILED {
        return Err(format!("mmap: {}", io::Error::last_os_error()));
    }
    // SAFETY: mapped above; what is paged out is read again.
    let result = unsafe { libc::madvise(map, bytes, libc::MADV_PAGEOUT) };
    // SAFETY: mapped above, and nothing refers to it.
    unsafe { libc::munmap(map, bytes) };
    check("madvise", result.into())
}

/// Gives advice about all of a file.
pub(crate) fn advise_file(file: &std::fs::File, advice: i32) {
    // SAFETY: the descriptor is open; advice changes no byte.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, advice) };
}
