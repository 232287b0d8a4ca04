//! The servant: a task inside the target's address space that executes system
//! calls from a ring which the pager shares, because `UFFDIO_MOVE` and `madvise`
//! act on the caller's own memory map only.
//!
//! Stage on the data path: the pager's hands. Its code is position-independent,
//! uses no stack, no libc and no thread-local storage, and writes to no memory:
//! code and ring are mapped for reading from a sealed file, so that the program
//! around it cannot give it orders. What its calls did is read from the page
//! map; that they are done, from an eventfd. The run's secret, which lets its
//! calls pass the program's filter, is in a register and nowhere else.
//!
//! Invariant: one batch at a time.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::fd::{read_counter, wait_readable};
use crate::shared::{SharedMap, futex_wake, seal_for_reading};

/// Bytes of the ring.
pub const RING_BYTES: u64 = 0xb000;
/// Bytes of the code, in front of the ring in the file.
pub const CODE_BYTES: u64 = 0x1000;
/// Bytes of the memory file that holds code and ring.
pub const FILE_BYTES: u64 = CODE_BYTES + RING_BYTES;
/// Commands that one batch may carry.
pub const BATCH_MAX: usize = 256;

const SUBMIT: usize = 0;
const COUNT: usize = 64;
const BELL: usize = 72;
const ONE: usize = 80;
const COMMANDS: usize = 256;
const COMMAND_BYTES: usize = 48;
const DATA: usize = COMMANDS + BATCH_MAX * COMMAND_BYTES;
const DATA_BYTES: usize = RING_BYTES as usize - DATA;
const FILE_RING: usize = CODE_BYTES as usize;

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
    // Entry 16: the loop. Wants the ring's address in r12 and the secret in rbp.
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
    "xor r8d, r8d",
    "xor r9d, r9d",
    "syscall",
    "jmp 4b",
    "5:",
    "mov r14d, eax",
    "lea r13, [r12 + {commands}]",
    "mov r15d, [r12 + {count}]",
    "6:",
    "test r15d, r15d",
    "jz 7f",
    "mov eax, [r13]",
    "mov rdi, [r13 + 8]",
    "mov rsi, [r13 + 16]",
    "mov rdx, [r13 + 24]",
    "mov r10, [r13 + 32]",
    "mov r8, [r13 + 40]",
    "mov r9, rbp",
    "syscall",
    "xor r9d, r9d",
    // A call that must not fail and does is the end.
    "cmp rax, -4095",
    "jb 8f",
    "cmp dword ptr [r13 + 4], 0",
    "je 8f",
    "mov eax, 231",
    "xor edi, edi",
    "syscall",
    "8:",
    "add r13, 48",
    "dec r15d",
    "jmp 6b",
    "7:",
    "mov ebx, r14d",
    "mov eax, 1",
    "mov edi, [r12 + {bell}]",
    "lea rsi, [r12 + {one}]",
    "mov edx, 8",
    "syscall",
    "jmp 4b",
    "zcache_servant_end:",
    ".popsection",
    submit = const SUBMIT,
    count = const COUNT,
    commands = const COMMANDS,
    bell = const BELL,
    one = const ONE,
);

unsafe extern "C" {
    static zcache_servant_begin: u8;
    static zcache_servant_end: u8;
}

/// Offset in the code of the instruction for injected system calls.
pub const ENTRY_CALL: u64 = 0;
/// Offset in the code of the servant's loop.
pub const ENTRY_LOOP: u64 = 16;

/// The servant's machine code.
#[must_use]
pub fn code() -> &'static [u8] {
    let begin = &raw const zcache_servant_begin;
    let end = &raw const zcache_servant_end;
    let len = end as usize - begin as usize;
    // SAFETY: the two symbols bound one run of read-only bytes, assembled above.
    unsafe { std::slice::from_raw_parts(begin, len) }
}

/// One system call for the servant. The sixth argument is the secret.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// System call number.
    pub number: i64,
    /// If it fails, the servant ends.
    pub must: bool,
    /// Its arguments; addresses are the target's.
    pub arguments: [u64; 5],
}

/// Why a batch was not seen to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServantError {
    /// The servant has ended.
    Died,
    /// It does not run (it is frozen, or has no processor). The batch may still
    /// be done later: see [`Ring::finish`].
    Stuck,
    /// It has not finished a batch of before. Nothing was given to it.
    Busy,
}

/// The pager's end of one servant's ring. The caller serializes its use.
#[derive(Debug)]
pub struct Ring {
    map: SharedMap,
    bell: OwnedFd,
    /// Where the ring lies in the target.
    address: u64,
    /// Batches that were given and not seen to be done.
    pending: AtomicU64,
}

/// Writes the servant's code into a fresh memory file and seals it: from then on
/// it can be mapped for reading only, but by the mapping that is returned.
///
/// # Errors
/// Whatever the system calls report.
pub fn prepare_file(file: &OwnedFd) -> io::Result<SharedMap> {
    crate::shared::fill(file, FILE_BYTES, code())?;
    let map = SharedMap::new(Some(file), FILE_BYTES as usize)?;
    seal_for_reading(file)?;
    Ok(map)
}

impl Ring {
    /// Takes the mapping of a prepared file. `bell` is the eventfd that the servant
    /// knows by `number`; `address` is where the target has the ring.
    #[must_use]
    pub fn new(map: SharedMap, bell: OwnedFd, number: u64, address: u64) -> Ring {
        map.quad(FILE_RING + ONE).store(1, Ordering::Relaxed);
        map.quad(FILE_RING + BELL).store(number, Ordering::Relaxed);
        Ring {
            map,
            bell,
            address,
            pending: AtomicU64::new(0),
        }
    }

    /// Puts commands into the ring of a servant that has not begun: it finds them
    /// when it does. See [`Ring::finish`].
    ///
    /// # Panics
    /// When there are more than [`BATCH_MAX`] commands.
    pub fn submit(&self, commands: &[Command]) {
        assert!(commands.len() <= BATCH_MAX);
        for (index, command) in commands.iter().enumerate() {
            let at = FILE_RING + COMMANDS + index * COMMAND_BYTES;
            let number = command.number.cast_unsigned() | u64::from(command.must) << 32;
            self.map.quad(at).store(number, Ordering::Relaxed);
            for (slot, argument) in command.arguments.iter().enumerate() {
                self.map
                    .quad(at + 8 + slot * 8)
                    .store(*argument, Ordering::Relaxed);
            }
        }
        self.map
            .word(FILE_RING + COUNT)
            .store(commands.len() as u32, Ordering::Relaxed);
        self.pending.fetch_add(1, Ordering::Relaxed);
        let submit = self.map.word(FILE_RING + SUBMIT);
        submit.fetch_add(1, Ordering::Release);
        futex_wake(submit);
    }

    /// Where the target has the ring.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.address
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
        self.address + (DATA + offset) as u64
    }

    /// Runs `commands` in order, all of them whatever their results. `alive` is
    /// asked now and then while waiting, for at most `patience`.
    ///
    /// # Errors
    /// See [`ServantError`].
    ///
    /// # Panics
    /// When there are more than [`BATCH_MAX`] commands.
    pub fn run(
        &self,
        commands: &[Command],
        patience: Duration,
        alive: impl Fn() -> bool,
    ) -> Result<(), ServantError> {
        if self.finish(Duration::ZERO, &alive) == Err(ServantError::Stuck) {
            return Err(ServantError::Busy);
        }
        self.submit(commands);
        self.finish(patience, &alive)
    }

    /// Waits until no batch is under way.
    ///
    /// # Errors
    /// See [`ServantError`].
    pub fn finish(&self, patience: Duration, alive: impl Fn() -> bool) -> Result<(), ServantError> {
        let start = Instant::now();
        while self.pending.load(Ordering::Relaxed) > 0 {
            let wait = patience.min(Duration::from_millis(20));
            if matches!(wait_readable(self.bell.as_fd(), wait), Ok(true)) {
                let done = read_counter(&self.bell);
                self.pending.fetch_sub(done, Ordering::Relaxed);
            } else if !alive() {
                return Err(ServantError::Died);
            } else if start.elapsed() >= patience {
                return Err(ServantError::Stuck);
            }
        }
        Ok(())
    }
}

/// Bytes that the data area of a ring holds.
#[must_use]
pub const fn data_bytes() -> usize {
    DATA_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_fits_its_page_and_begins_with_its_entry() {
        assert!((code().len() as u64) < CODE_BYTES);
        assert_eq!(&code()[..2], [0x0f, 0x05]);
        assert_eq!(&code()[ENTRY_LOOP as usize..][..2], [0x31, 0xdb]);
    }

    #[test]
    fn who_has_the_file_cannot_write_to_it() {
        let file = crate::shared::memfd().expect("a memory file");
        let _map = prepare_file(&file).expect("it can be prepared");
        let again = SharedMap::new(Some(&file), FILE_BYTES as usize).map(drop);
        assert_eq!(again.unwrap_err().raw_os_error(), Some(libc::EPERM));
        let grown = crate::shared::fill(&file, FILE_BYTES * 2, &[0]);
        assert!(grown.is_err());
    }
}
