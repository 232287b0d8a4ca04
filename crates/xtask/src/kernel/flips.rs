//! Bits of a guest's memory that change by themselves, as they do where memory has no error correction.
//!
//! The guest says what on its console (`@@ flip records` or `@@ flip zpages`) and waits for the answer in a page that it
//! has marked: how many bits were flipped. Its memory is a file here.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The first words of the page for the answer; the next word is the answer.
const MARK: [u64; 4] = [
    0x7a63_6163_6865_2066,
    0x6c69_7073_2061_6e73,
    0x7765_7220_6865_7265,
    0x1357_9bdf_0246_8ace,
];

/// A word of each page that the guest has stored. It is the page's first, so elsewhere than at the start of a page, and
/// not a multiple of eight bytes from there, it is in a zpage.
const TAG: [u8; 8] = *b"zpagetag";

const FLIPS_MAX: usize = 40;

const PAGE: usize = 4096;
/// The head of a frame of entries, and the length of an entry with a key; see crates/core/src/tables.
const HEAD: usize = 16;
const ENTRY: usize = 40;

fn word(page: &[u8], at: usize) -> u32 {
    let bytes = page.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    u32::from_le_bytes(bytes.unwrap_or_default())
}

/// Whether a page is a frame of entries: one after the other names the next page of the same object.
fn has_entries(page: &[u8]) -> bool {
    let starts = (HEAD..PAGE - 2 * ENTRY).step_by(ENTRY);
    let follows = |at: &usize| {
        let next = at + ENTRY;
        let has_bytes = word(page, *at + 8) >> 30 == 2;
        let object = |at| word(page, at + 24) << 7;
        has_bytes
            && object(*at) == object(next)
            && word(page, *at + 28).checked_add(1) == Some(word(page, next + 28))
    };
    starts.filter(follows).count() > 20
}

/// Where a bit is to be flipped in a page, if it is one of those.
fn place(what: &str, page: &[u8], number: usize) -> Option<usize> {
    match what {
        "records" if has_entries(page) => Some(HEAD + number * 7919 % (PAGE - 2 * HEAD)),
        "zpages" => (1..PAGE - TAG.len())
            .find(|at| at % 8 != 0 && page[*at..*at + TAG.len()] == TAG)
            .map(|at| at + number % TAG.len()),
        _ => None,
    }
}

fn flip(ram: &File, what: &str) -> std::io::Result<u64> {
    let mut page = [0; PAGE];
    let (mut flips, mut answer) = (0, None);
    for start in (0..ram.metadata()?.len()).step_by(PAGE) {
        ram.read_exact_at(&mut page, start)?;
        let is_marked = |(at, mark): (usize, &u64)| page[at * 8..at * 8 + 8] == mark.to_le_bytes();
        if MARK.iter().enumerate().all(is_marked) {
            answer = Some(start + 8 * MARK.len() as u64);
        }
        if flips == FLIPS_MAX {
            continue;
        }
        if let Some(at) = place(what, &page, flips) {
            let byte = page[at] ^ 1 << (flips % 8);
            ram.write_all_at(&[byte], start + at as u64)?;
            flips += 1;
        }
    }
    // A guest without an answer page waits until its time is over.
    if let Some(answer) = answer {
        ram.write_all_at(&(flips as u64 + 1).to_le_bytes(), answer)?;
    }
    Ok(flips as u64)
}

/// Does what a line of the console asks for.
pub(super) fn answer(ram: &Path, line: &str) {
    let Some(what) = line.strip_prefix("@@ flip ") else {
        return;
    };
    let file = OpenOptions::new().read(true).write(true).open(ram);
    match file.and_then(|file| flip(&file, what)) {
        Ok(flips) => println!("  {flips} bits flipped in {what}"),
        Err(error) => println!("  no bits flipped in {what}: {error}"),
    }
}
