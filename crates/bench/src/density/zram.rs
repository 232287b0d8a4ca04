//! The corpus on a zram device, by direct I/O, so that the page cache holds none of it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::Instant;

use nix::fcntl::OFlag;

use super::{Corpus, Page, Run};
use crate::corpus::PAGE_BYTES;
use crate::host::{HostError, Undo, Zram};

/// Pages of one transfer: 64 KiB, so that system calls weigh little.
const PAGES: usize = 16;

/// A buffer as direct I/O needs it.
#[repr(align(4096))]
struct Buffer([u8; PAGES * PAGE_BYTES]);

/// Writes the corpus, looks at the pool, and reads it back.
pub(super) fn run(codec: &'static str, corpus: &Corpus, undo: &mut Undo) -> Result<Run, HostError> {
    let bytes = (corpus.pages() * PAGE_BYTES) as u64;
    let zram = Zram::add(undo, bytes, codec)?;
    let path = zram.device();
    let failed = HostError::file(&path);
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags((OFlag::O_DIRECT | OFlag::O_CLOEXEC).bits())
        .open(&path);
    let device = device.map_err(failed)?;
    let mut buffer = Box::new(Buffer([0; PAGES * PAGE_BYTES]));
    let mut run = Run::new(bytes, corpus.pages() as u64);
    let mut used = zram.pool_bytes()?;
    let first = used;
    let mut at = 0;
    for pages in &corpus.sources {
        let clock = Instant::now();
        write(&device, pages, at, &mut buffer).map_err(HostError::file(&path))?;
        run.store_seconds += clock.elapsed().as_secs_f64();
        at += (pages.len() * PAGE_BYTES) as u64;
        let now = zram.pool_bytes()?;
        run.sources
            .push(((pages.len() * PAGE_BYTES) as u64, now - used));
        used = now;
    }
    run.ram_bytes = used - first;
    let mut at = 0;
    for pages in &corpus.sources {
        let (seconds, wrong) =
            read(&device, pages, at, &mut buffer).map_err(HostError::file(&path))?;
        run.load_seconds += seconds;
        run.wrong_pages += wrong;
        at += (pages.len() * PAGE_BYTES) as u64;
    }
    Ok(run)
}

fn write(device: &File, pages: &[Page], mut at: u64, buffer: &mut Buffer) -> std::io::Result<()> {
    for chunk in pages.chunks(PAGES) {
        let bytes = chunk.as_flattened();
        buffer.0[..bytes.len()].copy_from_slice(bytes);
        device.write_all_at(&buffer.0[..bytes.len()], at)?;
        at += bytes.len() as u64;
    }
    Ok(())
}

/// The time that the reading took, and how many pages came back wrong.
fn read(
    device: &File,
    pages: &[Page],
    mut at: u64,
    buffer: &mut Buffer,
) -> std::io::Result<(f64, u64)> {
    let (mut seconds, mut wrong) = (0.0, 0);
    for chunk in pages.chunks(PAGES) {
        let bytes = &mut buffer.0[..chunk.len() * PAGE_BYTES];
        let clock = Instant::now();
        device.read_exact_at(bytes, at)?;
        seconds += clock.elapsed().as_secs_f64();
        let (found, _) = bytes.as_chunks::<PAGE_BYTES>();
        wrong += found
            .iter()
            .zip(chunk)
            .filter(|(one, other)| one != other)
            .count() as u64;
        at += (chunk.len() * PAGE_BYTES) as u64;
    }
    Ok((seconds, wrong))
}
