//! Anonymous memory under pressure, every byte checked, with threads and forks.

use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::pages::{self, Mix, Random};
use crate::sys::{self, Region};

/// What a torture does.
pub(crate) struct Torture {
    pub(crate) pages: usize,
    pub(crate) threads: usize,
    pub(crate) time: Duration,
    pub(crate) forks: bool,
    pub(crate) seed: u64,
}

struct Shared {
    region: Region,
    /// Of each page: 0 when it was dropped and reads as zeros, else the number that it was filled by. Kept in memory that
    /// is swapped as well.
    versions: Vec<AtomicU64>,
    /// Held for reading during a change, so that a fork sees whole pages.
    whole: RwLock<()>,
    failed: AtomicBool,
}

impl Shared {
    fn check(&self, page: usize) -> Result<(), String> {
        let version = self.versions[page].load(Ordering::Relaxed);
        let bytes = self.region.page(page);
        if version != 0 {
            pages::check(bytes, version, Mix::All, &format!("page {page}"))
        } else if bytes.iter().all(|word| *word == 0) {
            Ok(())
        } else {
            Err(format!(
                "{} in page {page}, which was dropped",
                pages::WRONG
            ))
        }
    }

    fn renew(&self, page: usize, version: u64) {
        pages::fill(self.region.page(page), version, Mix::All);
        self.versions[page].store(version, Ordering::Relaxed);
    }

    /// A thread's life: pages `first`, `first + step`, … are its own.
    fn work(&self, torture: &Torture, first: usize) -> Result<u64, String> {
        let step = torture.threads;
        let own = torture.pages / step;
        let mut random = Random::new(torture.seed ^ (first as u64) << 32);
        for at in 0..own {
            let _whole = self.whole.read().map_err(|_| "poisoned")?;
            self.renew(at * step + first, random.next() | 1);
        }
        let begun = Instant::now();
        let mut operations = 0;
        while begun.elapsed() < torture.time && !self.failed.load(Ordering::Relaxed) {
            operations += 1;
            // Two thirds of the touches go to a quarter of the pages.
            let reach = if random.below(3) > 0 { own / 4 } else { own };
            let page = random.below(reach.max(1)) * step + first;
            if torture.forks && random.below(4000) == 0 {
                self.fork(&mut random)?;
                continue;
            }
            let _whole = self.whole.read().map_err(|_| "poisoned")?;
            self.check(page)?;
            match random.below(10) {
                0..=3 => self.renew(page, random.next() | 1),
                4 if random.below(20) == 0 => {
                    self.region.advise(page, 1, libc::MADV_DONTNEED)?;
                    self.versions[page].store(0, Ordering::Relaxed);
                }
                5 if random.below(20) == 0 => self.region.advise(page, 1, libc::MADV_PAGEOUT)?,
                _ => {}
            }
        }
        for at in 0..own {
            self.check(at * step + first)?;
        }
        Ok(operations)
    }

    /// A child looks at pages of all threads while the parent goes on changing them, and changes some itself.
    fn fork(&self, random: &mut Random) -> Result<(), String> {
        let whole = self.whole.write().map_err(|_| "poisoned")?;
        let mut own = random.clone();
        let status = sys::forked(|| {
            for _ in 0..400 {
                let page = own.below(self.region.pages());
                if self.check(page).is_err() {
                    return 99;
                }
                if own.below(4) == 0 {
                    self.renew(page, own.next() | 1);
                }
            }
            0
        });
        drop(whole);
        match status? {
            0 => Ok(()),
            99 => Err(format!("{} in a forked child", pages::WRONG)),
            // Killed for want of memory: nothing is said about bytes.
            _ => Ok(()),
        }
    }
}

/// Runs a torture; how many touches there were.
pub(crate) fn torture(torture: &Torture) -> Result<u64, String> {
    let shared = Shared {
        region: Region::new(torture.pages)?,
        versions: (0..torture.pages).map(|_| AtomicU64::new(0)).collect(),
        whole: RwLock::new(()),
        failed: AtomicBool::new(false),
    };
    let shared = &shared;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..torture.threads)
            .map(|first| {
                scope.spawn(move || {
                    let result = shared.work(torture, first);
                    if result.is_err() {
                        shared.failed.store(true, Ordering::Relaxed);
                    }
                    result
                })
            })
            .collect();
        let mut operations = 0;
        let mut failure = None;
        for thread in threads {
            match thread.join().map_err(|_| "a thread panicked".to_owned()) {
                Ok(Ok(count)) => operations += count,
                Ok(Err(error)) | Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(operations), Err)
    })
}

/// Touches memory until it is killed.
pub(crate) fn devour() -> Result<(), String> {
    let region = Region::new(sys::meminfo_pages("MemTotal") * 64)?;
    for page in 0..region.pages() {
        pages::fill(region.page(page), page as u64, Mix::All);
    }
    Err("nobody stopped it".into())
}
