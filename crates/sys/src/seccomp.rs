//! The seccomp filter that has the tracer hear of every system call that changes
//! a program's memory map or that needs memory which no fault asks for.
//!
//! The filter is installed once, before the first exec, and inherited by the
//! whole tree. The calling thread stops before the call; it makes the call
//! itself when the tracer lets it go on. Calls with the run's secret in their
//! last argument are the servant's and pass; no watched call has a use for that
//! argument that could be the secret. Source: `seccomp(2)`.

use std::io;

use crate::fd::check;

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const X32_SYSCALL_BIT: u32 = 0x4000_0000;

const LD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JEQ: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const JGE: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const JSET: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const RET: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const fn offset_argument(index: u32) -> u32 {
    16 + index * 8
}

/// What the tracer is told of a call that this filter reports. Filters that the
/// program has put upon itself may report others.
pub const WATCHED: u32 = 0x7a63;

/// Instructions of a filter, in the form that the kernel reads.
pub type Instruction = libc::sock_filter;

/// `madvise` advices that change contents or inheritance.
pub const ADVICES: [u32; 8] = [4, 8, 9, 18, 19, 24, 102, 103];

/// `prctl` operations that the tracer sees: PR_SET_MM, PR_SET_SECCOMP.
const OPERATIONS: [u32; 2] = [35, 22];
const MADV_DONTNEED_LOCKED: u32 = 24;
const MLOCK_ONFAULT: u64 = 1;
const MAP_TYPE: u32 = 0xf;
const MAP_DROPPABLE: u32 = 8;
const SHM_REMAP: u32 = 0o40000;
const UFFDIO_REGISTER: u32 = 0xc020_aa00;
/// The other request to a userfaultfd that is reported.
pub const UFFDIO_MOVE: u32 = 0xc028_aa05;
/// Futex operations in which the kernel touches a word without asking anybody
/// for its page: WAKE_OP, LOCK_PI, UNLOCK_PI, TRYLOCK_PI, WAIT_REQUEUE_PI,
/// CMP_REQUEUE_PI, LOCK_PI2.
const FUTEX_OPERATIONS: [u32; 7] = [5, 6, 7, 8, 11, 12, 13];
/// What `unshare` may not do while another task shares the memory.
const ALONE: u32 =
    (libc::CLONE_NEWUSER | libc::CLONE_VM | libc::CLONE_SIGHAND | libc::CLONE_THREAD) as u32;

/// A piece of a filter.
#[derive(Default)]
struct Assembler {
    code: Vec<Instruction>,
}

impl Assembler {
    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) {
        self.code.push(libc::sock_filter { code, jt, jf, k });
    }

    fn load(&mut self, offset: u32) {
        self.push(LD_WORD, 0, 0, offset);
    }

    fn argument(&mut self, index: u32) {
        self.load(offset_argument(index));
    }

    fn allow(&mut self) {
        self.push(RET, 0, 0, libc::SECCOMP_RET_ALLOW);
    }

    fn watch(&mut self) {
        self.push(RET, 0, 0, libc::SECCOMP_RET_TRACE | WATCHED);
    }

    fn fail(&mut self, errno: i32) {
        self.push(RET, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32);
    }

    /// If what was loaded compares as `test` says with `k`, what `body` says.
    fn when(&mut self, test: u16, k: u32, body: impl FnOnce(&mut Assembler)) {
        let mut inner = Assembler::default();
        body(&mut inner);
        self.push(test, 0, inner.code.len() as u8, k);
        self.code.append(&mut inner.code);
    }

    /// As `when`, if it does not.
    fn unless(&mut self, test: u16, k: u32, body: impl FnOnce(&mut Assembler)) {
        let mut inner = Assembler::default();
        body(&mut inner);
        self.push(test, inner.code.len() as u8, 0, k);
        self.code.append(&mut inner.code);
    }

    /// If argument `index` is this word of 64 bits, what `body` says. What was
    /// loaded is lost.
    fn when_argument(&mut self, index: u32, value: u64, body: impl FnOnce(&mut Assembler)) {
        let mut inner = Assembler::default();
        inner.load(offset_argument(index));
        inner.when(JEQ, value as u32, body);
        self.load(offset_argument(index) + 4);
        let length = inner.code.len() as u8;
        self.push(JEQ, 0, length, (value >> 32) as u32);
        self.code.append(&mut inner.code);
    }

    /// If argument `index` is one of these, going by its lower 32 bits, watch.
    fn watch_if_one_of(&mut self, index: u32, mask: u32, values: &[u32]) {
        self.argument(index);
        if mask != u32::MAX {
            self.push(AND, 0, 0, mask);
        }
        for value in values {
            self.when(JEQ, *value, Assembler::watch);
        }
        self.allow();
    }
}

/// What a filter does about one call.
type Case = fn(&mut Assembler);

/// What is done about each watched call, by its number.
fn cases() -> Vec<(i64, Case)> {
    vec![
        (libc::SYS_mmap, mmap),
        (libc::SYS_munmap, Assembler::watch),
        (libc::SYS_mremap, Assembler::watch),
        (libc::SYS_brk, Assembler::watch),
        (libc::SYS_madvise, |a| {
            a.watch_if_one_of(2, u32::MAX, &ADVICES)
        }),
        (libc::SYS_process_madvise, |a| {
            a.watch_if_one_of(3, u32::MAX, &ADVICES)
        }),
        (libc::SYS_clone, clone),
        (libc::SYS_clone3, Assembler::watch),
        (libc::SYS_fork, Assembler::watch),
        (libc::SYS_shmat, |a| {
            a.argument(2);
            a.when(JSET, SHM_REMAP, Assembler::watch);
            a.allow();
        }),
        (libc::SYS_prctl, |a| {
            a.watch_if_one_of(0, u32::MAX, &OPERATIONS)
        }),
        (libc::SYS_seccomp, Assembler::watch),
        (libc::SYS_vmsplice, Assembler::watch),
        (libc::SYS_mlock, Assembler::watch),
        (libc::SYS_mlock2, Assembler::watch),
        (libc::SYS_mlockall, Assembler::watch),
        (libc::SYS_set_tid_address, Assembler::watch),
        (libc::SYS_io_uring_setup, Assembler::watch),
        (libc::SYS_ioctl, |a| {
            a.watch_if_one_of(1, u32::MAX, &[UFFDIO_REGISTER, UFFDIO_MOVE])
        }),
        (libc::SYS_futex, |a| {
            a.watch_if_one_of(1, 127, &FUTEX_OPERATIONS)
        }),
        (libc::SYS_unshare, |a| {
            a.argument(0);
            a.when(JSET, ALONE, Assembler::watch);
            a.allow();
        }),
    ]
}

/// A new address space unless CLONE_VM; nobody escapes the tracer.
fn clone(a: &mut Assembler) {
    a.argument(0);
    a.when(JSET, libc::CLONE_UNTRACED as u32, |a| a.fail(libc::EPERM));
    a.when(JSET, libc::CLONE_VM as u32, Assembler::allow);
    a.watch();
}

/// Private anonymous memory, anything at a fixed place, writable private files, memory
/// that may be dropped.
fn mmap(a: &mut Assembler) {
    a.argument(3);
    a.when(JSET, libc::MAP_FIXED as u32, Assembler::watch);
    a.push(AND, 0, 0, MAP_TYPE);
    a.when(JEQ, MAP_DROPPABLE, Assembler::watch);
    a.argument(3);
    a.unless(JSET, libc::MAP_PRIVATE as u32, Assembler::allow);
    a.when(JSET, libc::MAP_ANONYMOUS as u32, Assembler::watch);
    a.argument(2);
    a.when(JSET, libc::PROT_WRITE as u32, Assembler::watch);
    a.allow();
}

fn program(secret: u64) -> Vec<Instruction> {
    let mut a = Assembler::default();
    // Another ABI (int 0x80, x32) would change memory behind our back: none.
    a.load(OFFSET_ARCH);
    a.unless(JEQ, AUDIT_ARCH_X86_64, |a| a.fail(libc::ENOSYS));
    a.load(OFFSET_NUMBER);
    a.when(JGE, X32_SYSCALL_BIT, |a| a.fail(libc::ENOSYS));
    // Everything else is decided by its number alone, so that the kernel can
    // remember the answer and does not run the filter for it again.
    let cases = cases();
    for (index, (number, _)) in cases.iter().enumerate() {
        a.push(JEQ, (cases.len() - index) as u8, 0, *number as u32);
    }
    a.allow();
    a.when_argument(5, secret, Assembler::allow);
    a.load(OFFSET_NUMBER);
    for (number, case) in cases {
        a.when(JEQ, number as u32, case);
    }
    a.allow();
    a.code
}

/// When one call is allowed.
type Allowed<'a> = &'a dyn Fn(&mut Assembler);

/// What a servant may call: nothing but what these say.
#[derive(Clone, Copy, Debug)]
pub struct ServantCalls {
    /// Where its ring lies: its wake-up word, and what it writes to `bell`.
    pub ring: u64,
    /// The descriptor by which it tells that a batch is done.
    pub bell: u64,
    /// The descriptor of the shadow's userfaultfd, and the one request for it.
    pub move_fd: u64,
    /// The request.
    pub move_request: u64,
    /// The shadow: start and bytes. Its end is below the same multiple of 4 GiB.
    pub shadow: (u64, u64),
    /// The pen: start and bytes.
    pub pen: (u64, u64),
}

impl ServantCalls {
    /// The servant's own filter: its few calls on its few ranges, and death for
    /// any other.
    #[must_use]
    ///
    /// # Panics
    /// When the shadow reaches a multiple of 4 GiB.
    pub fn filter(&self) -> Vec<Instruction> {
        let (start, len) = self.shadow;
        assert_eq!(
            start >> 32,
            (start + len) >> 32,
            "words of 32 bits are compared"
        );
        let mut a = Assembler::default();
        a.load(OFFSET_ARCH);
        a.unless(JEQ, AUDIT_ARCH_X86_64, kill);
        a.load(OFFSET_NUMBER);
        let calls: [(i64, Allowed<'_>); 8] = [
            (libc::SYS_futex, &|a| {
                a.when_argument(0, self.ring, Assembler::allow)
            }),
            (libc::SYS_write, &|a| {
                a.when_argument(0, self.bell, Assembler::allow)
            }),
            (libc::SYS_ioctl, &|a| {
                a.when_argument(0, self.move_fd, |a| {
                    a.when_argument(1, self.move_request, Assembler::allow);
                });
            }),
            (libc::SYS_madvise, &|a| self.madvise(a)),
            (libc::SYS_mmap, &|a| {
                a.when_argument(0, self.pen.0, |a| a.when_argument(2, 0, Assembler::allow));
            }),
            (libc::SYS_mlock2, &|a| {
                a.when_argument(2, MLOCK_ONFAULT, Assembler::allow);
            }),
            (libc::SYS_munlock, &Assembler::allow),
            (libc::SYS_mremap, &|a| {
                a.when_argument(4, self.pen.0, Assembler::allow)
            }),
        ];
        for (number, call) in calls {
            a.when(JEQ, number as u32, |a| {
                call(a);
                kill(a);
            });
        }
        kill(&mut a);
        a.code
    }

    /// Gives back what lies in the shadow; has the program's pages be its own.
    fn madvise(&self, a: &mut Assembler) {
        a.argument(2);
        a.when(JEQ, libc::MADV_POPULATE_WRITE as u32, Assembler::allow);
        a.when(JEQ, libc::MADV_DONTFORK as u32, |a| {
            a.when_argument(0, self.pen.0, Assembler::allow);
            kill(a);
        });
        a.unless(JEQ, MADV_DONTNEED_LOCKED, kill);
        a.when_argument(0, self.pen.0, Assembler::allow);
        let (start, len) = self.shadow;
        a.load(offset_argument(0) + 4);
        a.when(JEQ, (start >> 32) as u32, |a| {
            a.argument(0);
            a.when(JGE, start as u32, |a| {
                a.unless(JGE, (start + len) as u32, Assembler::allow);
            });
        });
    }
}

fn kill(a: &mut Assembler) {
    a.push(RET, 0, 0, libc::SECCOMP_RET_KILL_PROCESS);
}

/// Installs the filter for the calling thread. Runs between fork and exec:
/// allocates nothing.
pub(crate) fn install(filter: &[Instruction]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_ptr().cast_mut(),
    };
    let attempt = || {
        // SAFETY: the program and its instructions live across the call.
        check(unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                0,
                &raw const program,
            )
        })
    };
    match attempt() {
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
            // SAFETY: takes integers.
            check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into())?;
            attempt().map(drop)
        }
        other => other.map(drop),
    }
}

/// The filter in the form that `install` takes, made before fork.
#[derive(Clone)]
pub struct Filter(pub(crate) Vec<Instruction>);

impl Filter {
    /// A filter that lets calls with `secret` as their last argument pass.
    #[must_use]
    pub fn new(secret: u64) -> Filter {
        Filter(program(secret))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a filter says of a call, by the few instructions that are used here.
    fn verdict(filter: &[Instruction], number: i64, arguments: [u64; 6]) -> u32 {
        let word = |offset: u32| match offset {
            OFFSET_NUMBER => number as u32,
            OFFSET_ARCH => AUDIT_ARCH_X86_64,
            _ => {
                let argument = arguments[(offset as usize - 16) / 8];
                (argument >> ((offset % 8) * 8)) as u32
            }
        };
        let (mut at, mut loaded) = (0, 0);
        loop {
            let one = &filter[at];
            at += 1;
            let holds = match one.code {
                LD_WORD => {
                    loaded = word(one.k);
                    continue;
                }
                AND => {
                    loaded &= one.k;
                    continue;
                }
                RET => return one.k,
                JEQ => loaded == one.k,
                JGE => loaded >= one.k,
                JSET => loaded & one.k != 0,
                other => panic!("instruction {other:#x}"),
            };
            at += usize::from(if holds { one.jt } else { one.jf });
        }
    }

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const WATCH: u32 = libc::SECCOMP_RET_TRACE | WATCHED;
    const SECRET: u64 = 0x1234_5678_9abc_d000;

    #[test]
    fn the_programs_calls_are_watched_by_what_linux_looks_at() {
        let filter = program(SECRET);
        let high = 1 << 32;
        for (number, arguments, expected) in [
            (libc::SYS_getpid, [0; 6], ALLOW),
            (libc::SYS_munmap, [0; 6], WATCH),
            (libc::SYS_madvise, [0, 0, 4, 0, 0, 0], WATCH),
            (libc::SYS_madvise, [0, 0, high | 4, 0, 0, 0], WATCH),
            (libc::SYS_madvise, [0, 0, 3, 0, 0, 0], ALLOW),
            (libc::SYS_madvise, [0, 0, 4, 0, 0, SECRET], ALLOW),
            (libc::SYS_madvise, [0, 0, 4, 0, 0, SECRET ^ high], WATCH),
            (libc::SYS_madvise, [0, 0, 4, 0, 0, SECRET ^ 1], WATCH),
            (libc::SYS_mmap, [0, 0, 3, 0x22, 0, 0], WATCH),
            (libc::SYS_mmap, [0, 0, 1, 0x02, 0, 0], ALLOW),
            (libc::SYS_mmap, [0, 0, 3, 0x02, 0, 0], WATCH),
            (libc::SYS_mmap, [0, 0, 3, 0x11, 0, 0], WATCH),
            (libc::SYS_clone, [0x11, 0, 0, 0, 0, 0], WATCH),
            (libc::SYS_clone, [0x100, 0, 0, 0, 0, 0], ALLOW),
            (libc::SYS_futex, [0, 0x80 | 6, 0, 0, 0, 0], WATCH),
            (libc::SYS_futex, [0, 0x80, 0, 0, 0, 0], ALLOW),
            (libc::SYS_unshare, [0x1000_0000, 0, 0, 0, 0, 0], WATCH),
            (libc::SYS_unshare, [0x2_0000, 0, 0, 0, 0, 0], ALLOW),
        ] {
            let said = verdict(&filter, number, arguments);
            assert_eq!(said, expected, "call {number} of {arguments:x?}");
        }
        let untraced = [libc::CLONE_UNTRACED as u64, 0, 0, 0, 0, 0];
        assert_ne!(verdict(&filter, libc::SYS_clone, untraced), ALLOW);
    }

    #[test]
    fn a_servant_may_do_its_few_calls_on_its_few_ranges_and_dies_by_any_other() {
        let (shadow, pen) = (0x7f00_0010_0000, 0x7f00_0100_0000);
        let len = 0x80_0000;
        let calls = ServantCalls {
            ring: 0x7f00_0000_1000,
            bell: 0,
            move_fd: 2,
            move_request: 0xc028_aa05,
            shadow: (shadow, len),
            pen: (pen, 0x4_0000),
        };
        let filter = calls.filter();
        let high = 1 << 32;
        for (number, arguments, allowed) in [
            (libc::SYS_futex, [calls.ring, 0, 0, 0, 0, 0], true),
            (libc::SYS_futex, [calls.ring + 4, 0, 0, 0, 0, 0], false),
            (libc::SYS_write, [0, 0, 8, 0, 0, 0], true),
            (libc::SYS_write, [1, 0, 8, 0, 0, 0], false),
            (libc::SYS_ioctl, [2, calls.move_request, 0, 0, 0, 0], true),
            (
                libc::SYS_ioctl,
                [2, calls.move_request ^ 1, 0, 0, 0, 0],
                false,
            ),
            (libc::SYS_ioctl, [3, calls.move_request, 0, 0, 0, 0], false),
            (libc::SYS_madvise, [shadow, 4096, 24, 0, 0, 0], true),
            (
                libc::SYS_madvise,
                [shadow + len - 4096, 4096, 24, 0, 0, 0],
                true,
            ),
            (libc::SYS_madvise, [shadow + len, 4096, 24, 0, 0, 0], false),
            (libc::SYS_madvise, [shadow - 4096, 4096, 24, 0, 0, 0], false),
            (libc::SYS_madvise, [shadow + high, 4096, 24, 0, 0, 0], false),
            (libc::SYS_madvise, [pen, 4096, 24, 0, 0, 0], true),
            (libc::SYS_madvise, [pen, 4096, 10, 0, 0, 0], true),
            (libc::SYS_madvise, [shadow, 4096, 10, 0, 0, 0], false),
            (libc::SYS_madvise, [0x1000, 4096, 23, 0, 0, 0], true),
            (libc::SYS_mremap, [0x1000, 4096, 4096, 7, pen, 0], true),
            (libc::SYS_mremap, [0x1000, 4096, 4096, 7, shadow, 0], false),
            (libc::SYS_mmap, [pen, 4096, 0, 0, 0, 0], true),
            (libc::SYS_mmap, [pen, 4096, 7, 0, 0, 0], false),
            (libc::SYS_mlock2, [0x1000, 4096, 1, 0, 0, 0], true),
            (libc::SYS_munlock, [shadow, len, 0, 0, 0, 0], true),
            (libc::SYS_munlock, [0x1000, len, 0, 0, 0, 0], true),
            (libc::SYS_openat, [0; 6], false),
            (libc::SYS_clone, [0; 6], false),
        ] {
            let said = verdict(&filter, number, arguments) == ALLOW;
            assert_eq!(said, allowed, "call {number} of {arguments:x?}");
        }
    }

    #[test]
    #[should_panic(expected = "words of 32 bits")]
    fn a_shadow_that_ends_on_a_multiple_of_4_gib_is_none() {
        let calls = ServantCalls {
            ring: 0,
            bell: 0,
            move_fd: 0,
            move_request: 0,
            shadow: (0x7eff_ff80_0000, 0x80_0000),
            pen: (0, 0),
        };
        let _ = calls.filter();
    }
}
