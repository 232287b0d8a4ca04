//! Copies of some of a target's pages, each with the same chance.
//!
//! - `pages.len() + vanished_pages == chosen`.
//! - With the same seed and the same ranges the same pages are chosen.
//!
//! A page of a process is read by `/proc/PID/mem`, a page of a file from the
//! file. Bytes behind the end of a file's last page are zero, as in the page
//! cache. A target that shrinks or ends meanwhile leaves vanished pages.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use zcache::{PAGE_SIZE, Page};

use crate::random::Random;
use crate::source::{Kind, Source};

/// Neighbouring pages that are read by one call at most.
const PAGES_A_READ: usize = 64;

const PAGE: u64 = PAGE_SIZE as u64;

/// Pages of one target, in the order of their addresses.
#[derive(Debug)]
pub struct Sample {
    /// The copies.
    pub pages: Vec<Page>,
    /// Chosen pages that were gone when they were read.
    pub vanished_pages: u64,
    /// How long the reading took.
    pub time: Duration,
}

/// Copies `count` pages of a source, or all if it has no more. `tick` is called
/// after each read with the number of pages that are done.
pub fn sample(source: &Source, count: u64, seed: u64, mut tick: impl FnMut(u64)) -> Sample {
    let start = Instant::now();
    let file_end = match source.kind {
        Kind::File { bytes } => Some(bytes),
        Kind::Process { .. } => None,
    };
    let mut reader = Reader {
        file: &source.file,
        file_end,
        pages: Vec::with_capacity(count.min(source.pages()) as usize),
        vanished: 0,
        buffer: vec![0; PAGES_A_READ * PAGE_SIZE],
    };
    for run in choose(source, count, seed) {
        reader.read(run);
        tick(reader.pages.len() as u64 + reader.vanished);
    }
    Sample {
        pages: reader.pages,
        vanished_pages: reader.vanished,
        time: start.elapsed(),
    }
}

/// Runs of neighbouring chosen pages, in bytes of the source's file (selection
/// sampling: Knuth, The Art of Computer Programming 2, 3.4.2, algorithm S).
fn choose(source: &Source, count: u64, seed: u64) -> Vec<Range<u64>> {
    let mut left = source.pages();
    let mut wanted = count.min(left);
    let mut random = Random::new(seed);
    let mut runs: Vec<Range<u64>> = Vec::new();
    for range in &source.ranges {
        for start in range.clone().step_by(PAGE_SIZE) {
            if wanted == 0 {
                return runs;
            }
            let chosen = wanted == left || random.below(left) < wanted;
            left -= 1;
            if !chosen {
                continue;
            }
            wanted -= 1;
            match runs.last_mut() {
                Some(run)
                    if run.end == start && run.end - run.start < PAGES_A_READ as u64 * PAGE =>
                {
                    run.end += PAGE;
                }
                _ => runs.push(start..start + PAGE),
            }
        }
    }
    runs
}

struct Reader<'a> {
    file: &'a File,
    file_end: Option<u64>,
    pages: Vec<Page>,
    vanished: u64,
    buffer: Vec<u8>,
}

impl Reader<'_> {
    fn read(&mut self, run: Range<u64>) {
        let mut at = run.start;
        while at < run.end {
            let wanted = (run.end - at) as usize;
            let got = self.read_at(at, wanted);
            let (pages, rest) = self.buffer[..got].as_chunks::<PAGE_SIZE>();
            self.pages.extend_from_slice(pages);
            at += (got - rest.len()) as u64;
            if got == wanted {
                continue;
            }
            // An error and an early end mean the same: this page is gone, unless
            // it is a file's last one.
            if !rest.is_empty() && self.file_end == Some(at + rest.len() as u64) {
                let mut page = [0; PAGE_SIZE];
                page[..rest.len()].copy_from_slice(rest);
                self.pages.push(page);
            } else {
                self.vanished += 1;
            }
            at += PAGE;
        }
    }

    /// Reads until `wanted` bytes are there or no more come.
    fn read_at(&mut self, at: u64, wanted: usize) -> usize {
        let mut got = 0;
        while got < wanted {
            match self
                .file
                .read_at(&mut self.buffer[got..wanted], at + got as u64)
            {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => break,
                Ok(more) => got += more,
            }
        }
        got
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Target;

    /// A file whose page `n` begins with `n`.
    fn file(name: &str, bytes: u64) -> std::path::PathBuf {
        let path =
            std::env::temp_dir().join(format!("zcache-measure-{}-{name}", std::process::id()));
        let mut content = vec![0u8; bytes as usize];
        for (number, page) in content.chunks_mut(PAGE_SIZE).enumerate() {
            page[..4].copy_from_slice(&(number as u32 + 1).to_le_bytes());
        }
        std::fs::write(&path, content).expect("a file");
        path
    }

    fn numbers(sample: &Sample) -> Vec<u32> {
        let number = |page: &Page| u32::from_le_bytes([page[0], page[1], page[2], page[3]]);
        sample.pages.iter().map(number).collect()
    }

    #[test]
    fn all_pages_come_in_order_and_the_last_is_padded() {
        let path = file("all", 300 * PAGE + 100);
        let source = Source::open(&Target::File(path.clone())).expect("a source");
        assert_eq!(source.pages(), 301);
        let all = sample(&source, u64::MAX, 1, |_| ());
        assert_eq!(numbers(&all), (1..=301).collect::<Vec<_>>());
        assert_eq!(all.pages[300][100..], [0; PAGE_SIZE - 100]);
        assert_eq!(all.vanished_pages, 0);
        std::fs::remove_file(path).expect("it is there");
    }

    #[test]
    fn a_part_is_chosen_evenly_and_by_its_seed() {
        let path = file("part", 1000 * PAGE);
        let source = Source::open(&Target::File(path.clone())).expect("a source");
        let one = numbers(&sample(&source, 100, 1, |_| ()));
        assert_eq!(one.len(), 100);
        assert!(one.is_sorted_by(|a, b| a < b));
        assert_eq!(one, numbers(&sample(&source, 100, 1, |_| ())));
        assert_ne!(one, numbers(&sample(&source, 100, 2, |_| ())));
        // Over many seeds every page comes equally often: 20 times of 200, with
        // a standard deviation of 4.2.
        let mut times = vec![0; 1000];
        for seed in 0..200 {
            for number in numbers(&sample(&source, 100, seed, |_| ())) {
                times[number as usize - 1] += 1;
            }
        }
        let (least, most) = (times.iter().min(), times.iter().max());
        assert!(
            *least.expect("pages") >= 3 && *most.expect("pages") <= 45,
            "{least:?} {most:?}"
        );
        std::fs::remove_file(path).expect("it is there");
    }

    #[test]
    fn pages_cut_off_meanwhile_are_counted() {
        for cut in [40 * PAGE, 40 * PAGE + 7, 0] {
            let path = file(&format!("cut-{cut}"), 200 * PAGE + 9);
            let source = Source::open(&Target::File(path.clone())).expect("a source");
            let file = File::options().write(true).open(&path).expect("the file");
            file.set_len(cut).expect("it shrinks");
            let all = sample(&source, u64::MAX, 1, |_| ());
            assert_eq!(numbers(&all), (1..=(cut / PAGE) as u32).collect::<Vec<_>>());
            assert_eq!(all.vanished_pages, 201 - cut / PAGE);
            std::fs::remove_file(path).expect("it is there");
        }
    }
}
