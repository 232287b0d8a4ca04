//! seccomp user notification: how the pager hears of every system call that
//! changes a program's memory map, before it happens.
//!
//! The filter is installed once, before the first exec, and inherited by the
//! whole tree. Calls from the servant's code page pass it, since they are the
//! pager's own. Source: `seccomp(2)`, `seccomp_unotify(2)`.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::fd::check;

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const X32_SYSCALL_BIT: u32 = 0x4000_0000;
const WAIT_KILLABLE_RECV: libc::c_ulong = 1 << 5;
const SYNC_WAKE_UP: u64 = 1;
const NOTIF_RECV: libc::c_ulong = 0xc050_2100;
const NOTIF_SEND: libc::c_ulong = 0xc018_2101;
const NOTIF_SET_FLAGS: libc::c_ulong = 0x4008_2104;

const LD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JEQ: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const JGE: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const JSET: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RET: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_IP: u32 = 8;
const fn offset_argument(index: u32) -> u32 {
    16 + index * 8
}

/// `madvise` advices that change contents or inheritance: the pager sees them.
pub const ADVICES: [u32; 10] = [4, 8, 9, 10, 11, 18, 19, 24, 102, 103];

/// The calls that the filter looks at closer.
const WATCHED: [i64; 10] = [
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_clone,
    libc::SYS_fork,
    libc::SYS_clone3,
    libc::SYS_io_uring_setup,
    libc::SYS_process_madvise,
];

/// Whether a system call may have to wait for the pager's answer.
pub(crate) fn is_watched(number: i64) -> bool {
    WATCHED.contains(&number)
}

/// A system call that waits for the pager's answer.
#[derive(Clone, Copy, Debug)]
pub struct Notice {
    /// Names this notice in the answer.
    pub id: u64,
    /// The calling thread.
    pub thread: i32,
    /// The system call's number.
    pub number: i64,
    /// Its arguments.
    pub arguments: [u64; 6],
}

/// What the caller of a notified system call is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The call happens as if there were no filter.
    Continue,
    /// The call returns this value (a negated errno on failure).
    Return(i64),
}

/// The pager's end of the filter.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
}

impl Listener {
    /// Wraps the descriptor that the filter's installation returned.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Listener {
        // Wakes the pager on the caller's own processor where the kernel can
        // (Linux 6.6); without it the hand-off is only slower.
        // SAFETY: takes an integer by value.
        let _ = unsafe { libc::ioctl(fd.as_raw_fd(), NOTIF_SET_FLAGS, SYNC_WAKE_UP) };
        Listener { fd }
    }

    /// Waits for the next notice.
    ///
    /// # Errors
    /// ENOENT when the caller died meanwhile (try again), EINTR.
    pub fn receive(&self) -> io::Result<Notice> {
        // SAFETY: all-zero is required by the kernel and valid for the type.
        let mut raw: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the structure has the size that the request number encodes.
        let result = unsafe { libc::ioctl(self.fd.as_raw_fd(), NOTIF_RECV, &raw mut raw) };
        check(result.into())?;
        Ok(Notice {
            id: raw.id,
            thread: raw.pid.cast_signed(),
            number: raw.data.nr.into(),
            arguments: raw.data.args,
        })
    }

    /// Answers a notice.
    ///
    /// # Errors
    /// ENOENT when the caller died meanwhile.
    pub fn answer(&self, id: u64, answer: Answer) -> io::Result<()> {
        let mut raw = libc::seccomp_notif_resp {
            id,
            val: 0,
            error: 0,
            flags: 0,
        };
        match answer {
            Answer::Continue => raw.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
            Answer::Return(value) if (-4095..0).contains(&value) => raw.error = value as i32,
            Answer::Return(value) => raw.val = value,
        }
        // SAFETY: the structure has the size that the request number encodes.
        let result = unsafe { libc::ioctl(self.fd.as_raw_fd(), NOTIF_SEND, &raw mut raw) };
        check(result.into())?;
        Ok(())
    }
}

/// A filter under construction. Every way out is a `return` right behind the
/// test, since jumps reach 255 instructions at most.
struct Assembler {
    code: Vec<libc::sock_filter>,
}

impl Assembler {
    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) {
        self.code.push(libc::sock_filter { code, jt, jf, k });
    }

    fn load(&mut self, offset: u32) {
        self.push(LD_WORD, 0, 0, offset);
    }

    fn allow(&mut self) {
        self.push(RET, 0, 0, libc::SECCOMP_RET_ALLOW);
    }

    fn notify(&mut self) {
        self.push(RET, 0, 0, libc::SECCOMP_RET_USER_NOTIF);
    }

    fn fail(&mut self, errno: i32) {
        self.push(RET, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32);
    }
}

/// Builds the filter; calls whose instruction lies in the page at `code_page`
/// (which must not cross a 4 GiB boundary) pass it.
fn program(code_page: u64) -> Vec<libc::sock_filter> {
    let mut a = Assembler { code: Vec::new() };
    let low = (code_page & 0xffff_ffff) as u32;
    let high = (code_page >> 32) as u32;
    // Another ABI (int 0x80, x32) would change memory behind our back: none.
    a.load(OFFSET_ARCH);
    a.push(JEQ, 1, 0, AUDIT_ARCH_X86_64);
    a.fail(libc::ENOSYS);
    a.load(OFFSET_NUMBER);
    a.push(JGE, 0, 1, X32_SYSCALL_BIT);
    a.fail(libc::ENOSYS);
    // Everything else is decided by its number alone, so that the kernel can
    // remember the answer and does not run the filter for it again.
    for (index, number) in WATCHED.iter().enumerate() {
        a.push(JEQ, (WATCHED.len() - index) as u8, 0, *number as u32);
    }
    a.allow();
    // The servant's own calls.
    a.load(OFFSET_IP + 4);
    a.push(JEQ, 0, 4, high);
    a.load(OFFSET_IP);
    a.push(JGE, 0, 2, low);
    a.push(JGE, 1, 0, low + 4096);
    a.allow();
    a.load(OFFSET_NUMBER);
    for number in [
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_brk,
        libc::SYS_fork,
    ] {
        a.push(JEQ, 0, 1, number as u32);
        a.notify();
    }
    // clone3 hides its flags in memory; programs fall back to clone. io_uring
    // and process_madvise could drop pages without being seen.
    for number in [
        libc::SYS_clone3,
        libc::SYS_io_uring_setup,
        libc::SYS_process_madvise,
    ] {
        a.push(JEQ, 0, 1, number as u32);
        a.fail(libc::ENOSYS);
    }
    // clone: a new address space unless CLONE_VM; nobody escapes the tracer.
    a.push(JEQ, 0, 6, libc::SYS_clone as u32);
    a.load(offset_argument(0));
    a.push(JSET, 0, 1, libc::CLONE_UNTRACED as u32);
    a.fail(libc::EPERM);
    a.push(JSET, 0, 1, libc::CLONE_VM as u32);
    a.allow();
    a.notify();
    // madvise by advice.
    let advices = ADVICES.len() as u8;
    a.push(JEQ, 0, 3 + 2 * advices - 1, libc::SYS_madvise as u32);
    a.load(offset_argument(2));
    for advice in ADVICES {
        a.push(JEQ, 0, 1, advice);
        a.notify();
    }
    a.allow();
    // mmap: private anonymous, anything at a fixed place, writable private files.
    a.push(JEQ, 1, 0, libc::SYS_mmap as u32);
    a.allow();
    a.load(offset_argument(3));
    a.push(JSET, 0, 1, libc::MAP_FIXED as u32);
    a.notify();
    a.push(JSET, 1, 0, libc::MAP_PRIVATE as u32);
    a.allow();
    a.push(JSET, 0, 1, libc::MAP_ANONYMOUS as u32);
    a.notify();
    a.load(offset_argument(2));
    a.push(JSET, 0, 1, libc::PROT_WRITE as u32);
    a.notify();
    a.allow();
    a.code
}

/// Installs the filter for the calling thread; returns the listener's number
/// in this process. Runs between fork and exec: allocates nothing.
pub(crate) fn install(filter: &[libc::sock_filter]) -> io::Result<RawFd> {
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_ptr().cast_mut(),
    };
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | WAIT_KILLABLE_RECV;
    let attempt = || {
        // SAFETY: the program and its instructions live across the call.
        check(unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                flags,
                &raw const program,
            )
        })
    };
    match attempt() {
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
            // SAFETY: takes integers.
            check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into())?;
            attempt().map(|fd| fd as RawFd)
        }
        other => other.map(|fd| fd as RawFd),
    }
}

/// The filter in the form that `install` takes, made before fork.
#[derive(Clone)]
pub struct Filter(pub(crate) Vec<libc::sock_filter>);

impl Filter {
    /// See [`crate::servant::CODE_PAGE`] for the page whose calls pass.
    #[must_use]
    pub fn new(code_page: u64) -> Filter {
        Filter(program(code_page))
    }
}
