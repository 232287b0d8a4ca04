//! The front: the process that the user started. It stands for the program
//! towards the shell: passes signals on, stops and continues with the program,
//! and ends as the program ended. The pager is its child.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use zcache_sys::fd::Epoll;
use zcache_sys::process::{self, Arrived, Signals};

use crate::error::EXIT_OWN;
use crate::pager::say;

/// What the pager tells the front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// The program runs under this number.
    Started(i32),
    /// It was stopped by this signal.
    Stopped(i32),
    /// It goes on; to be acknowledged by a byte.
    Continued,
    /// It has ended, but others of its tree go on without a front.
    Background,
    /// It exited with this code.
    Exited(i32),
    /// This signal ended it.
    Signaled(i32),
}

impl Word {
    pub(crate) fn encode(self) -> [u8; 5] {
        let (kind, value) = match self {
            Word::Started(pid) => (0, pid),
            Word::Stopped(signal) => (1, signal),
            Word::Exited(code) => (2, code),
            Word::Signaled(signal) => (3, signal),
            Word::Background => (4, 0),
            Word::Continued => (5, 0),
        };
        let [a, b, c, d] = value.to_le_bytes();
        [kind, a, b, c, d]
    }

    pub(crate) fn decode([kind, a, b, c, d]: [u8; 5]) -> Option<Word> {
        let value = i32::from_le_bytes([a, b, c, d]);
        Some(match kind {
            0 => Word::Started(value),
            1 => Word::Stopped(value),
            2 => Word::Exited(value),
            3 => Word::Signaled(value),
            4 => Word::Background,
            5 => Word::Continued,
            _ => return None,
        })
    }
}

/// Stands in front of the pager `pager` until the program has ended; returns
/// the exit code for this process.
pub(crate) fn stand(mut words: UnixStream, signals: &Signals, pager: i32) -> i32 {
    let mut program = 0;
    let mut background = false;
    let Ok(epoll) = Epoll::new() else {
        return EXIT_OWN;
    };
    let added = epoll
        .add(signals.as_fd(), 0)
        .and_then(|()| epoll.add(words.as_fd(), 1));
    if let Err(error) = added {
        say!("a system call failed: {error}");
        return EXIT_OWN;
    }
    let mut tokens = Vec::new();
    loop {
        tokens.clear();
        if epoll.wait(&mut tokens, None).is_err() {
            return EXIT_OWN;
        }
        while let Some(arrived) = signals.next() {
            pass_on(arrived, program, pager);
        }
        if !tokens.contains(&1) {
            continue;
        }
        let mut bytes = [0; 5];
        let word = words
            .read_exact(&mut bytes)
            .ok()
            .and_then(|()| Word::decode(bytes));
        match word {
            Some(Word::Started(pid)) => {
                program = pid;
                // Only the program holds its input and output from here on.
                if let Err(error) = process::release_standard_streams() {
                    say!("standard output stays open until the end: {error}");
                }
            }
            Some(Word::Stopped(signal)) => process::stop_by(signal),
            Some(Word::Continued) => drop(words.write_all(&[0])),
            Some(Word::Background) => background = true,
            Some(Word::Exited(code)) => {
                see_off(&mut words, pager, background);
                return code;
            }
            Some(Word::Signaled(signal)) => {
                see_off(&mut words, pager, background);
                process::die_by(signal);
                return 128 + signal;
            }
            None => {
                say!("the pager died; the program and all its processes were killed");
                return EXIT_OWN;
            }
        }
    }
}

/// Waits until pager and guard are gone too, so that nothing of zcache is left
/// when the user has the prompt back. They end by themselves.
fn see_off(words: &mut UnixStream, pager: i32, background: bool) {
    if !background {
        let mut rest = [0; 16];
        while matches!(words.read(&mut rest), Ok(1..)) {}
        // Its times become ours, for who measures this process.
        zcache_sys::ptrace::wait_for(pager);
    }
}

/// Signals that a process sent to us are meant for the program. Those from the
/// terminal it has got itself, being in the same process group.
fn pass_on(arrived: Arrived, program: i32, pager: i32) {
    match arrived.signal {
        libc::SIGCHLD => {}
        // They may have ended meanwhile.
        libc::SIGUSR1 => drop(process::kill(pager, libc::SIGUSR1)),
        signal
            if arrived.from_process
                && program > 0
                && ![program, pager].contains(&arrived.sender) =>
        {
            drop(process::kill(program, signal));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_wire() {
        for word in [
            Word::Started(77),
            Word::Stopped(20),
            Word::Exited(255),
            Word::Signaled(9),
            Word::Background,
            Word::Continued,
        ] {
            assert_eq!(Word::decode(word.encode()), Some(word));
        }
        assert_eq!(Word::decode([9, 0, 0, 0, 0]), None);
    }
}
