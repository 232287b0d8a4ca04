//! The servant: a task inside the target's address space that executes system
//! calls from a ring which the pager shares, because `UFFDIO_MOVE`, `madvise`
//! and `mmap` act on the caller's own memory map only.
//!
//! Stage on the data path: the pager's hands. Its code is position-independent,
//! uses no stack, no libc and no thread-local storage, and runs with all
//! signals blocked in its own session with its own table of descriptors.
//!
//! Invariant: one batch at a time; `complete == submit` means that the servant
//! sleeps and that the results of the last batch stand in the ring.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::shared::{SharedMap, futex_wait, futex_wake};

/// Where the servant's code page lies in every target: a place that neither
/// the kernel's layouts nor common allocators and sanitizers use.
pub const CODE_PAGE: u64 = 0x6a5c_0000_0000;
/// Where the ring lies, behind the code.
pub const RING_BASE: u64 = CODE_PAGE + 0x1000;
/// Bytes of the ring.
pub const RING_BYTES: u64 = 0xb000;
/// Bytes of the memory file that holds code and ring.
pub const FILE_BYTES: u64 = 0x1000 + RING_BYTES;
/// Where the shadow range lies.
pub const SHADOW_BASE: u64 = CODE_PAGE + 0x4000_0000;
/// Commands that one batch may carry.
pub const BATCH_MAX: usize = 256;

const SUBMIT: usize = 0;
const COMPLETE: usize = 64;
const COUNT: usize = 128;
const PID: usize = 132;
const COMMANDS: usize = 256;
const COMMAND_BYTES: usize = 64;
const DATA: usize = COMMANDS + BATCH_MAX * COMMAND_BYTES;
const DATA_BYTES: usize = RING_BYTES as usize - DATA;
const FILE_RING: usize = 0x1000;

std::arch::global_asm!(
    ".pushsection .rodata.zcache_servant, \"a\", @progbits",
    ".balign 64",
    ".globl zcache_servant_begin",
    ".hidden zcache_servant_begin",
    ".globl zcache_servant_end",
    ".hidden zcache_servant_end",
    "zcache_servant_begin:",
    // Entry 0: one injected system call.
    "syscall",
    "int3",
    ".balign 16",
    // Entry 16: injected clone; the child makes the servant and ends, so that
    // the servant is an orphan of the pager and no child of the program.
    "syscall",
    "test eax, eax",
    "jz 2f",
    "int3",
    "2:",
    "mov eax, 56",
    "mov rdi, r13",
    "xor esi, esi",
    "xor edx, edx",
    "xor r10d, r10d",
    "xor r8d, r8d",
    "syscall",
    "test eax, eax",
    "jz 3f",
    "mov [r12 + {pid}], eax",
    "xor edi, edi",
    "mov eax, 60",
    "syscall",
    "int3",
    "3:",
    "xor ebx, ebx",
    "4:",
    "mov eax, [r12 + {submit}]",
    "cmp eax, ebx",
    "jne 5f",
    "mov eax, 202",
    "lea rdi, [r12 + {submit}]",
    "xor esi, esi",
    "mov edx, ebx",
    "xor r10d, r10d",
    "syscall",
    "jmp 4b",
    "5:",
    "mov r14d, eax",
    "lea r13, [r12 + {commands}]",
    "mov r15d, [r12 + {count}]",
    "6:",
    "test r15d, r15d",
    "jz 7f",
    "mov rax, [r13]",
    "mov rdi, [r13 + 8]",
    "mov rsi, [r13 + 16]",
    "mov rdx, [r13 + 24]",
    "mov r10, [r13 + 32]",
    "mov r8, [r13 + 40]",
    "mov r9, [r13 + 48]",
    "syscall",
    "mov [r13 + 56], rax",
    "add r13, 64",
    "dec r15d",
    "jmp 6b",
    "7:",
    "mov ebx, r14d",
    "mov [r12 + {complete}], ebx",
    "mov eax, 202",
    "lea rdi, [r12 + {complete}]",
    "mov esi, 1",
    "mov edx, 1",
    "syscall",
    "jmp 4b",
    "zcache_servant_end:",
    ".popsection",
    submit = const SUBMIT,
    complete = const COMPLETE,
    count = const COUNT,
    pid = const PID,
    commands = const COMMANDS,
);

unsafe extern "C" {
    static zcache_servant_begin: u8;
    static zcache_servant_end: u8;
}

/// Address of the instruction for injected system calls.
pub const ENTRY_CALL: u64 = CODE_PAGE;
/// Address of the instruction for the injected clone. Wants the ring's address
/// in r12 and the servant's clone flags in r13.
pub const ENTRY_CLONE: u64 = CODE_PAGE + 16;

/// The servant's machine code, to be placed at [`CODE_PAGE`].
#[must_use]
pub fn code() -> &'static [u8] {
    let begin = &raw const zcache_servant_begin;
    let end = &raw const zcache_servant_end;
    let len = end as usize - begin as usize;
    // SAFETY: the two symbols bound one run of read-only bytes, assembled above.
    unsafe { std::slice::from_raw_parts(begin, len) }
}

/// One system call for the servant.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// System call number.
    pub number: i64,
    /// Its arguments; addresses are the target's.
    pub arguments: [u64; 6],
}

/// Why a batch brought no results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServantDied;

/// The pager's end of one servant's ring. The caller serializes its use.
#[derive(Debug)]
pub struct Ring {
    map: SharedMap,
}

impl Ring {
    /// Takes the mapping of the memory file that holds code and ring.
    #[must_use]
    pub fn new(map: SharedMap) -> Ring {
        Ring { map }
    }

    /// The servant's process number, 0 until it was born.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.map.signed(FILE_RING + PID).load(Ordering::Acquire)
    }

    /// Writes `words` into the data area at byte `offset` and returns the
    /// target's address of it.
    ///
    /// # Panics
    /// When it would not fit.
    pub fn put(&self, offset: usize, words: &[u64]) -> u64 {
        assert!(offset + words.len() * 8 <= DATA_BYTES);
        for (index, word) in words.iter().enumerate() {
            self.map
                .quad(FILE_RING + DATA + offset + index * 8)
                .store(*word, Ordering::Relaxed);
        }
        RING_BASE + (DATA + offset) as u64
    }

    /// Reads a word of the data area at byte `offset`.
    #[must_use]
    pub fn get(&self, offset: usize) -> u64 {
        self.map
            .quad(FILE_RING + DATA + offset)
            .load(Ordering::Relaxed)
    }

    /// Runs `commands` in order, all of them whatever their results, and
    /// appends the results. `alive` is asked now and then while waiting.
    ///
    /// # Errors
    /// [`ServantDied`] when `alive` said no before the batch was complete.
    ///
    /// # Panics
    /// When there are more than [`BATCH_MAX`] commands.
    pub fn run(
        &self,
        commands: &[Command],
        results: &mut Vec<i64>,
        alive: impl Fn() -> bool,
    ) -> Result<(), ServantDied> {
        assert!(commands.len() <= BATCH_MAX);
        for (index, command) in commands.iter().enumerate() {
            let at = FILE_RING + COMMANDS + index * COMMAND_BYTES;
            self.map
                .quad(at)
                .store(command.number.cast_unsigned(), Ordering::Relaxed);
            for (slot, argument) in command.arguments.iter().enumerate() {
                self.map
                    .quad(at + 8 + slot * 8)
                    .store(*argument, Ordering::Relaxed);
            }
        }
        self.map
            .word(FILE_RING + COUNT)
            .store(commands.len() as u32, Ordering::Relaxed);
        let submit = self.map.word(FILE_RING + SUBMIT);
        let ticket = submit.load(Ordering::Relaxed).wrapping_add(1);
        submit.store(ticket, Ordering::Release);
        futex_wake(submit);
        let complete = self.map.word(FILE_RING + COMPLETE);
        loop {
            let seen = complete.load(Ordering::Acquire);
            if seen == ticket {
                break;
            }
            futex_wait(complete, seen, Duration::from_millis(20));
            if complete.load(Ordering::Acquire) != ticket && !alive() {
                return Err(ServantDied);
            }
        }
        for index in 0..commands.len() {
            let at = FILE_RING + COMMANDS + index * COMMAND_BYTES + 56;
            results.push(self.map.quad(at).load(Ordering::Relaxed).cast_signed());
        }
        Ok(())
    }
}

/// Bytes that the data area of a ring holds.
#[must_use]
pub const fn data_bytes() -> usize {
    DATA_BYTES
}
