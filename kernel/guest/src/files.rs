//! A file tree under pressure: re-read and changed in every way that there is, every byte checked.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::{Duration, Instant};

use crate::pages::{self, Mix, Random};
use crate::sys::{Region, TREE};

/// Numbers of the pages of a file; 0 for a page of zeros.
struct Model {
    path: String,
    pages: Vec<u64>,
}

/// A page of its own, as direct I/O wants it.
struct Buffer(Region);

impl Buffer {
    fn new() -> Result<Buffer, String> {
        Ok(Buffer(Region::new(1)?))
    }

    fn words(&mut self) -> &mut [u64; 512] {
        self.0.page(0)
    }

    fn bytes(&mut self) -> &mut [u8] {
        let words: *mut [u64; 512] = self.0.page(0);
        // SAFETY: the page is this buffer's, 4096 bytes long, and bytes may have any value.
        unsafe { &mut *words.cast::<[u8; 4096]>() }
    }

    fn fill(&mut self, number: u64) {
        if number == 0 {
            self.words().fill(0);
        } else {
            pages::fill(self.words(), number, Mix::All);
        }
    }

    fn check(&mut self, number: u64, what: &str) -> Result<(), String> {
        if number != 0 {
            pages::check(self.words(), number, Mix::All, what)
        } else if self.words().iter().all(|word| *word == 0) {
            Ok(())
        } else {
            Err(format!("{} in {what}, which is a hole", pages::WRONG))
        }
    }
}

fn said(what: &str, error: std::io::Error) -> String {
    format!("{what}: {error}")
}

fn advise(file: &File, page: usize, pages: usize, advice: i32) {
    let (at, len) = ((page * 4096) as i64, (pages * 4096) as i64);
    // SAFETY: the descriptor is open; advice changes no byte.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), at, len, advice) };
}

impl Model {
    fn make(
        name: usize,
        pages: usize,
        random: &mut Random,
        buffer: &mut Buffer,
    ) -> Result<Model, String> {
        let path = format!("{TREE}/file{name}");
        let mut file = File::create(&path).map_err(|error| said(&path, error))?;
        let mut model = Model {
            path,
            pages: Vec::new(),
        };
        for _ in 0..pages {
            let number = random.next() | 1;
            buffer.fill(number);
            file.write_all(buffer.bytes())
                .map_err(|error| said(&model.path, error))?;
            model.pages.push(number);
        }
        file.sync_all().map_err(|error| said(&model.path, error))?;
        Ok(model)
    }

    fn open(&self, flags: i32) -> Result<File, String> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags)
            .open(&self.path)
            .map_err(|error| said(&self.path, error))
    }

    fn read(&self, file: &File, page: usize, buffer: &mut Buffer) -> Result<(), String> {
        file.read_exact_at(buffer.bytes(), (page * 4096) as u64)
            .map_err(|error| said(&self.path, error))?;
        buffer.check(self.pages[page], &format!("{} page {page}", self.path))
    }

    fn change(&mut self, random: &mut Random, buffer: &mut Buffer) -> Result<(), String> {
        let page = random.below(self.pages.len());
        let at = (page * 4096) as u64;
        let number = random.next() | 1;
        let failed = |error| said("a change", error);
        match random.below(7) {
            // Through the page cache, without reading the page first.
            0 | 1 => {
                buffer.fill(number);
                let file = self.open(0)?;
                file.write_all_at(buffer.bytes(), at).map_err(failed)?;
                self.pages[page] = number;
            }
            // Past the page cache.
            2 => {
                buffer.fill(number);
                let file = self.open(libc::O_DIRECT)?;
                file.write_all_at(buffer.bytes(), at).map_err(failed)?;
                self.pages[page] = number;
            }
            // By a mapping.
            3 => {
                let file = self.open(0)?;
                // SAFETY: maps one page of the file.
                let map = unsafe {
                    libc::mmap(
                        std::ptr::null_mut(),
                        4096,
                        libc::PROT_READ | libc::PROT_WRITE,
                        libc::MAP_SHARED,
                        file.as_raw_fd(),
                        at as i64,
                    )
                };
                if map == libc::MAP_FAILED {
                    return Err(said("mmap", std::io::Error::last_os_error()));
                }
                // SAFETY: mapped above, a page long, and nobody else has it.
                let words = unsafe { &mut *map.cast::<[u64; 512]>() };
                pages::fill(words, number, Mix::All);
                // SAFETY: mapped above, and the reference is not used again.
                unsafe { libc::munmap(map, 4096) };
                self.pages[page] = number;
            }
            // Cut off and grown again: zeros behind the cut.
            4 => {
                let file = self.open(0)?;
                let len = (self.pages.len() * 4096) as u64;
                let keep = self.pages.len() - random.below(8.min(self.pages.len()));
                file.set_len((keep * 4096) as u64).map_err(failed)?;
                file.set_len(len).map_err(failed)?;
                self.pages[keep..].fill(0);
            }
            // A hole.
            5 => {
                let file = self.open(0)?;
                let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                // SAFETY: the descriptor is open.
                if unsafe { libc::fallocate(file.as_raw_fd(), mode, at as i64, 4096) } != 0 {
                    return Err(said("punch", std::io::Error::last_os_error()));
                }
                self.pages[page] = 0;
            }
            // The same name, another inode.
            _ if random.below(8) == 0 => {
                let fresh = format!("{}.new", self.path);
                fs::copy(&self.path, &fresh).map_err(failed)?;
                fs::rename(&fresh, &self.path).map_err(failed)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn check(&self, buffer: &mut Buffer) -> Result<(), String> {
        let file = self.open(0)?;
        (0..self.pages.len()).try_for_each(|page| self.read(&file, page, buffer))
    }
}

/// What is done to the files.
pub(crate) struct Tree {
    pub(crate) files: usize,
    pub(crate) pages: usize,
    pub(crate) time: Duration,
    pub(crate) seed: u64,
}

/// Makes the tree, re-reads and changes it, and removes it; how many reads there were.
pub(crate) fn churn(tree: &Tree) -> Result<u64, String> {
    let mut random = Random::new(tree.seed);
    let mut buffer = Buffer::new()?;
    let mut models = (0..tree.files)
        .map(|name| Model::make(name, tree.pages, &mut random, &mut buffer))
        .collect::<Result<Vec<_>, _>>()?;
    let begun = Instant::now();
    let mut reads = 0;
    while begun.elapsed() < tree.time {
        // Most reads go to a third of the files: those are active.
        let reach = if random.below(4) > 0 {
            tree.files.div_ceil(3)
        } else {
            tree.files
        };
        let chosen = random.below(reach);
        let file = models[chosen].open(0)?;
        let from = random.below(tree.pages);
        for page in from..(from + 32).min(tree.pages) {
            models[chosen].read(&file, page, &mut buffer)?;
            reads += 1;
        }
        if random.below(16) == 0 {
            advise(&file, 0, tree.pages, libc::POSIX_FADV_DONTNEED);
        }
        drop(file);
        if random.below(3) == 0 {
            let chosen = random.below(models.len());
            models[chosen].change(&mut random, &mut buffer)?;
        }
    }
    for model in &models {
        model.check(&mut buffer)?;
    }
    for model in &models {
        fs::remove_file(&model.path).map_err(|error| said(&model.path, error))?;
    }
    Ok(reads)
}
