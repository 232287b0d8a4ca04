//! Transfers that a signal cuts short which the program ignores. Linux throws such a
//! signal away when it is sent, unless the receiver is traced: then it is woken, and
//! a call that has moved some bytes returns how many. The rest is moved by further
//! calls here, and the program sees one.
//!
//! Only where nothing else cuts short: descriptors that wait, and calls that go on
//! until all is done. A signal that is not ignored ends it, as it would without us.
//! The rest of a call with several buffers is moved one buffer at a time.
//!
//! Invariant: at each stop of the thread its registers say what was moved in all.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Instant;

use zcache_sys::fd::PidFd;
use zcache_sys::process::{read_memory, write_memory};
use zcache_sys::procfs;
use zcache_sys::ptrace::{self, Registers};
use zcache_sys::socket;

use super::again::{Again, Ended, is_interrupted};
use super::signals::is_ignored;
use crate::process::script::Claim;
use crate::process::tracer::Tracer;

/// Linux moves no more at once.
const BYTES_MAX: u64 = 0x7fff_f000;
/// And by no more buffers, or messages.
const VECTORS_MAX: u64 = 1024;
const VECTOR_BYTES: usize = 16;
/// `struct msghdr`, and `struct mmsghdr`, which has the bytes moved behind it.
const MESSAGE_BYTES: u64 = 56;
const MESSAGES_STEP: u64 = 64;
/// The memory devices: zeros, random numbers.
const MEMORY_DEVICES: u32 = 1;
/// `libc` has no names for them.
const PREADV2: i64 = 327;
const PWRITEV2: i64 = 328;

/// Where a call has what the rest of it begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// One buffer, if any, and a length; the place in the file, if the call says it.
    Buffer {
        buffer: Option<usize>,
        length: usize,
        place: Option<usize>,
    },
    /// An array of buffers, the rest of each of which this call moves.
    Vectors { each: Each },
    /// The same, but a message says where it is.
    Message { each: Each },
    /// An array of messages that are sent, or received.
    Messages { sends: bool },
}

/// A call that moves one buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Each {
    /// `read` or `write`.
    Plain(i64),
    /// `pread64`, from where argument 3 says.
    Placed(i64),
    /// `sendto` or `recvfrom`, with these flags.
    Socket(i64, u64),
}

/// A call that moves a part of the rest.
struct Piece {
    number: i64,
    arguments: [u64; 6],
    /// What it returns if all is moved.
    length: u64,
    moves: Moves,
}

/// What the result of a piece says.
enum Moves {
    /// So much more of what the whole call counts.
    Count,
    /// So many more bytes of a message that is counted already; where that is written,
    /// and what there was.
    BytesOf { at: u64, before: u64 },
}

/// A transfer that was cut short.
pub(crate) struct Cut {
    registers: Registers,
    shape: Shape,
    done: u64,
}

impl Cut {
    /// Whether the call from which a thread comes may have been cut short by `signal`,
    /// which is about to be delivered.
    pub(crate) fn of(thread: i32, signal: i32) -> Option<Cut> {
        let registers = ptrace::registers(thread).ok()?;
        let (number, arguments) = ptrace::call_of(&registers);
        let done = u64::try_from(registers.rax.cast_signed()).ok()?;
        let shape = shape_of(number, arguments)?;
        let whole = match shape {
            Shape::Buffer { length, .. } => arguments[length].min(BYTES_MAX),
            // Their sum lies in memory.
            _ => BYTES_MAX,
        };
        let cut = (1..whole).contains(&done);
        let goes_on = cut && is_ignored(thread, signal) && waits(thread, number, arguments);
        goes_on.then_some(Cut {
            registers,
            shape,
            done,
        })
    }

    /// Has the thread, which stands before the delivery of `signal`, move the rest.
    pub(crate) async fn finish(mut self, tracer: &Rc<Tracer>, claim: Claim, signal: i32) {
        let start = Instant::now();
        let socket = self.socket(tracer, claim.task);
        let mut again = Again::new(tracer, claim, signal);
        if let Some((socket, receives)) = socket {
            // To others `MSG_WAITALL` means nothing, and a message may be short.
            if receives && self.counts_bytes() && !socket::is_stream(&socket) {
                return again.go_on();
            }
            let timeout = socket::timeout(&socket, receives);
            again.set_deadline(timeout.and_then(|timeout| start.checked_add(timeout)));
        }
        loop {
            let Some(piece) = self.next_piece(&again).await else {
                return again.go_on();
            };
            // It may have been killed meanwhile.
            let instruction = self.registers.rip - 2;
            let _ = ptrace::set_call(
                again.task(),
                &self.registers,
                instruction,
                piece.number,
                piece.arguments,
            );
            if let Err(stop) = again.enter().await {
                again.set_registers(&self.answer());
                return again.hand_over(stop);
            }
            let by_us = match again.end().await {
                Ended::Itself => false,
                Ended::AtDeadline => true,
                Ended::Otherwise(stop) => return again.hand_over(stop),
            };
            let result = again.registers().map_or(0, |now| now.rax.cast_signed());
            self.add(&again, &piece, result).await;
            // Whatever ends it, what was moved is what the call says.
            again.set_registers(&self.answer());
            if by_us {
                return again.after_deadline().await;
            }
            // A signal that has met this piece shows itself before the next one begins.
            if result <= 0 && !is_interrupted(result) {
                return again.go_on();
            }
        }
    }

    /// The registers with which the whole call returns what was moved.
    fn answer(&self) -> Registers {
        Registers {
            rax: self.done,
            ..self.registers
        }
    }

    /// Whether the call says how many bytes were moved, not how many messages.
    fn counts_bytes(&self) -> bool {
        !matches!(self.shape, Shape::Messages { .. })
    }

    /// What the call sends to or receives from, if it may be a socket; and whether it
    /// receives.
    fn socket(&self, tracer: &Tracer, task: i32) -> Option<(OwnedFd, bool)> {
        let (number, a) = ptrace::call_of(&self.registers);
        let receives = match number {
            libc::SYS_recvfrom | libc::SYS_recvmsg | libc::SYS_recvmmsg => true,
            libc::SYS_write | libc::SYS_writev | libc::SYS_sendto => false,
            libc::SYS_sendmsg | libc::SYS_sendmmsg | libc::SYS_sendfile => false,
            _ => return None,
        };
        let process = PidFd::open(tracer.process_of(task)?).ok()?;
        Some((process.take_fd(a[0] as i32).ok()?, receives))
    }

    /// What is to be moved next; `None` where nothing is left.
    async fn next_piece(&self, again: &Again) -> Option<Piece> {
        let (number, mut arguments) = ptrace::call_of(&self.registers);
        match self.shape {
            Shape::Buffer {
                buffer,
                length,
                place,
            } => {
                arguments[length] = arguments[length].min(BYTES_MAX).checked_sub(self.done)?;
                for moved in [buffer, place].into_iter().flatten() {
                    arguments[moved] += self.done;
                }
                if number == libc::SYS_splice {
                    // What comes into the pipe from now on is not waited for.
                    arguments[5] |= u64::from(libc::SPLICE_F_NONBLOCK);
                }
                Some(Piece {
                    number,
                    arguments,
                    length: arguments[length],
                    moves: Moves::Count,
                })
                .filter(|piece| piece.length > 0)
            }
            Shape::Vectors { each } => {
                let (at, count) = (arguments[1], arguments[2]);
                self.piece_of(again, each, at, count, self.done, Moves::Count)
                    .await
            }
            Shape::Message { each } => {
                let message = words(again, arguments[1], MESSAGE_BYTES as usize).await?;
                if number == libc::SYS_recvmsg && message[4] != 0 {
                    // What comes beside the bytes would be lost.
                    return None;
                }
                let (at, count) = (message[2], message[3]);
                self.piece_of(again, each, at, count, self.done, Moves::Count)
                    .await
            }
            Shape::Messages { sends } => self.next_messages(again, sends).await,
        }
    }

    /// The rest of a message that was sent in part, then the messages behind it.
    async fn next_messages(&self, again: &Again, sends: bool) -> Option<Piece> {
        let (number, mut arguments) = ptrace::call_of(&self.registers);
        if sends {
            let last = arguments[1] + (self.done - 1) * MESSAGES_STEP;
            let message = words(again, last, MESSAGES_STEP as usize).await?;
            let before = message[7] & 0xffff_ffff;
            let each = Each::Socket(libc::SYS_sendto, arguments[3]);
            let moves = Moves::BytesOf {
                at: last + MESSAGE_BYTES,
                before,
            };
            let (at, count) = (message[2], message[3]);
            let piece = self.piece_of(again, each, at, count, before, moves).await;
            if piece.is_some() {
                return piece;
            }
        }
        arguments[2] = (arguments[2] & 0xffff_ffff)
            .min(VECTORS_MAX)
            .checked_sub(self.done)?;
        arguments[1] += self.done * MESSAGES_STEP;
        Some(Piece {
            number,
            arguments,
            length: arguments[2],
            moves: Moves::Count,
        })
        .filter(|piece| piece.length > 0)
    }

    /// The first buffer of an array of `count` at `at` that is not moved whole, when
    /// `done` bytes of all are.
    async fn piece_of(
        &self,
        again: &Again,
        each: Each,
        at: u64,
        count: u64,
        done: u64,
        moves: Moves,
    ) -> Option<Piece> {
        let arguments = ptrace::call_of(&self.registers).1;
        let count = usize::try_from(count.min(VECTORS_MAX)).ok()?;
        let vectors = words(again, at, count * VECTOR_BYTES).await?;
        let (base, length) = first_left(&vectors, done)?;
        let (number, rest) = match each {
            Each::Plain(number) => (number, [0; 3]),
            Each::Placed(number) => (number, [arguments[3] + done, 0, 0]),
            Each::Socket(number, flags) => (number, [flags, 0, 0]),
        };
        let [a, b, c] = rest;
        Some(Piece {
            number,
            arguments: [arguments[0], base, length, a, b, c],
            length,
            moves,
        })
    }

    /// Takes note of what a piece has moved.
    async fn add(&mut self, again: &Again, piece: &Piece, result: i64) {
        let moved = u64::try_from(result).unwrap_or(0);
        match piece.moves {
            Moves::Count => self.done += moved,
            Moves::BytesOf { at, before } => {
                let task = again.task();
                let bytes = ((before + moved) as u32).to_ne_bytes();
                let write = move |_: &_| {
                    // Where it cannot be written the kernel could not either.
                    let _ = write_memory(task, at, &bytes);
                };
                again.tracer().elsewhere(write).await;
            }
        }
    }
}

/// The rest of the first buffer of `vectors` that is not moved whole, when `done` bytes
/// of all are: where it begins, and how long it is.
fn first_left(vectors: &[u64], done: u64) -> Option<(u64, u64)> {
    let (mut before, mut left) = (done, BYTES_MAX.checked_sub(done)?);
    for vector in vectors.chunks_exact(2) {
        let (base, length) = (vector[0], vector[1]);
        if before < length {
            left = left.min(length - before);
            return (left > 0).then_some((base + before, left));
        }
        before -= length;
    }
    None
}

/// Words of the thread's memory; `None` where they cannot be read.
async fn words(again: &Again, at: u64, bytes: usize) -> Option<Vec<u64>> {
    let task = again.task();
    let read = again.tracer().elsewhere(move |_| {
        let mut buffer = vec![0u8; bytes];
        let read = read_memory(task, at, &mut buffer).ok()?;
        (read == bytes).then_some(buffer)
    });
    let words = read.await?;
    let word = |chunk: &[u8]| u64::from_ne_bytes(std::array::from_fn(|at| chunk[at]));
    Some(words.chunks_exact(8).map(word).collect())
}

/// Calls that return early by signals alone, and by their end.
fn shape_of(number: i64, a: [u64; 6]) -> Option<Shape> {
    let buffer = |buffer, length| Shape::Buffer {
        buffer,
        length,
        place: None,
    };
    let waits_for_all = |flags: u64| flags & libc::MSG_WAITALL as u64 != 0;
    Some(match number {
        libc::SYS_read | libc::SYS_write | libc::SYS_sendto => buffer(Some(1), 2),
        libc::SYS_recvfrom if waits_for_all(a[3]) => buffer(Some(1), 2),
        libc::SYS_getrandom => buffer(Some(0), 1),
        libc::SYS_pread64 => Shape::Buffer {
            buffer: Some(1),
            length: 2,
            place: Some(3),
        },
        // Their offsets lie in memory, where the kernel has moved them on.
        libc::SYS_copy_file_range | libc::SYS_splice => buffer(None, 4),
        libc::SYS_sendfile => buffer(None, 3),
        libc::SYS_readv => Shape::Vectors {
            each: Each::Plain(libc::SYS_read),
        },
        libc::SYS_writev => Shape::Vectors {
            each: Each::Plain(libc::SYS_write),
        },
        libc::SYS_preadv => Shape::Vectors {
            each: Each::Placed(libc::SYS_pread64),
        },
        PREADV2 if a[5] == 0 && a[3] != u64::MAX => Shape::Vectors {
            each: Each::Placed(libc::SYS_pread64),
        },
        PREADV2 if a[5] == 0 => Shape::Vectors {
            each: Each::Plain(libc::SYS_read),
        },
        PWRITEV2 if a[5] == 0 && a[3] == u64::MAX => Shape::Vectors {
            each: Each::Plain(libc::SYS_write),
        },
        libc::SYS_sendmsg => Shape::Message {
            each: Each::Socket(libc::SYS_sendto, a[2]),
        },
        libc::SYS_recvmsg if waits_for_all(a[2]) => Shape::Message {
            each: Each::Socket(libc::SYS_recvfrom, a[2]),
        },
        libc::SYS_sendmmsg => Shape::Messages { sends: true },
        libc::SYS_recvmmsg if !waits_for_all(a[3]) && a[3] & libc::MSG_WAITFORONE as u64 == 0 => {
            Shape::Messages { sends: false }
        }
        _ => return None,
    })
}

/// Whether nothing but a signal, or the end, can have ended the call early.
fn waits(thread: i32, number: i64, a: [u64; 6]) -> bool {
    let descriptor = |argument: u64| procfs::open_file(thread, argument as i32);
    let is = |argument: u64, kind: u32| descriptor(argument).is_some_and(|file| file.kind == kind);
    let blocks = |argument: u64| procfs::is_blocking(thread, argument as i32);
    let socket = |flags: u64| flags & libc::MSG_DONTWAIT as u64 == 0 && blocks(a[0]);
    match number {
        libc::SYS_getrandom | libc::SYS_copy_file_range => true,
        // Of others a short read is what there was.
        libc::SYS_read | libc::SYS_readv | libc::SYS_pread64 | libc::SYS_preadv | PREADV2 => {
            descriptor(a[0])
                .is_some_and(|file| file.kind == libc::S_IFCHR && file.device.0 == MEMORY_DEVICES)
        }
        // A signal ends no write to a file, but a limit or a full disk does.
        libc::SYS_write | libc::SYS_writev | PWRITEV2 => {
            !is(a[0], libc::S_IFREG) && descriptor(a[0]).is_some() && blocks(a[0])
        }
        // Into a pipe as much is moved as it has room for; out of one, what is there.
        libc::SYS_sendfile => !is(a[0], libc::S_IFIFO) && blocks(a[0]),
        libc::SYS_splice => is(a[0], libc::S_IFIFO) && !is(a[2], libc::S_IFIFO),
        libc::SYS_sendto | libc::SYS_recvfrom => socket(a[3]),
        libc::SYS_sendmsg | libc::SYS_recvmsg => socket(a[2]),
        libc::SYS_sendmmsg | libc::SYS_recvmmsg => socket(a[3]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_begins_in_the_first_buffer_that_is_not_moved_whole() {
        let vectors = [0x1000, 10, 0x2000, 0, 0x3000, 5];
        assert_eq!(first_left(&vectors, 0), Some((0x1000, 10)));
        assert_eq!(first_left(&vectors, 9), Some((0x1009, 1)));
        assert_eq!(first_left(&vectors, 10), Some((0x3000, 5)));
        assert_eq!(first_left(&vectors, 14), Some((0x3004, 1)));
        assert_eq!(first_left(&vectors, 15), None);
        assert_eq!(first_left(&[], 0), None);
    }

    #[test]
    fn no_more_is_moved_than_linux_moves_at_once() {
        let vectors = [0x1000, BYTES_MAX - 1, 0x2000, 5];
        assert_eq!(first_left(&vectors, BYTES_MAX - 1), Some((0x2000, 1)));
        assert_eq!(first_left(&vectors, BYTES_MAX), None);
    }
}
