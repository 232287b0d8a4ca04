//! Memory that changes by itself: what damage may do, and what it may not.
//!
//! The host flips bits of this guest's memory (crates/xtask/src/kernel/flips.rs), in what is stored. Readers of what is lost
//! get an error; nobody gets wrong bytes, and the kernel lives.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use crate::pages::{self, Mix};
use crate::sys::Region;

/// As in flips.rs.
const MARK: [u64; 4] = [
    0x7a63_6163_6865_2066,
    0x6c69_7073_2061_6e73,
    0x7765_7220_6865_7265,
    0x1357_9bdf_0246_8ace,
];
const TAG: u64 = u64::from_le_bytes(*b"zpagetag");

/// The host reads a console and a file; more than this is a hang.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// Has the host flip bits; how many it did.
fn flip(what: &str) -> Result<u64, String> {
    let region = Region::new(1)?;
    region.page(0)[..4].copy_from_slice(&MARK);
    // What is locked stays where the host finds it.
    region.lock()?;
    println!("@@ flip {what}");
    let begun = Instant::now();
    loop {
        match region.volatile_word(4) {
            0 if begun.elapsed() > ANSWER_MAX => return Err("the host does not answer".into()),
            0 => std::thread::sleep(Duration::from_millis(50)),
            answer => return Ok(answer - 1),
        }
    }
}

fn fill(page: &mut [u64; 512], number: usize) {
    pages::fill(page, number as u64, Mix::Half);
    page[0] = TAG;
}

/// Stores pages, has bits flipped, and reads all of them; how many gave an error.
pub(crate) fn suffer(what: &str, count: usize) -> Result<u64, String> {
    let region = Region::new(count)?;
    for number in 0..count {
        fill(region.page(number), number);
    }
    region.advise(0, count, libc::MADV_PAGEOUT)?;
    if flip(what)? == 0 {
        return Err("no bit was flipped".into());
    }
    let copy = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open("/tmp/copy")
        .map_err(|error| format!("/tmp/copy: {error}"))?;
    let (mut page, mut expected) = (vec![0; 4096], [0; 512]);
    let mut errors = 0;
    for number in 0..count {
        // The kernel reads the page here: an error, where this process would get SIGBUS.
        if !region.write_page(number, copy.as_raw_fd()) {
            errors += 1;
            continue;
        }
        copy.read_exact_at(&mut page, 0)
            .map_err(|error| error.to_string())?;
        fill(&mut expected, number);
        let same = page
            .chunks_exact(8)
            .zip(expected)
            .all(|(bytes, word)| bytes == word.to_le_bytes());
        if !same {
            return Err(format!("{} in page {number}", pages::WRONG));
        }
    }
    println!("{what}: {errors} of {count} pages gave an error");
    Ok(errors)
}
