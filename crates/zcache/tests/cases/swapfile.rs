//! The swap file under attack: a full filesystem, a file that was cut off or
//! changed, limits on files and descriptors, paths that are none. Pages come back
//! as they were or as errors that name them, and the store goes on.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use zcache::tier::TierSource;
use zcache::{Event, OpenError, PoolId, PoolKind, Store, StoreConfig, SwapConfig};

use crate::support::pages::noise;
use crate::{Tally, child, get, key, plain};

/// Pages put, of which an eighth fit into RAM.
const PAGES: u64 = 2000;

fn open_at(path: &Path) -> Result<Store, OpenError> {
    Store::open(StoreConfig {
        tiers: vec![TierSource::disk(SwapConfig {
            path: Some(path.to_owned()),
            bytes_max: None,
        })],
        ..plain(1 << 20)
    })
}

/// An empty directory for a test.
fn directory(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// The store's own file, which has no name, by the descriptor.
fn file_of(store_in: &Path) -> File {
    let store_in = store_in.canonicalize().unwrap();
    let of_store = |path: &PathBuf| {
        std::fs::read_link(path).is_ok_and(|target| {
            target.starts_with(&store_in) && target.to_string_lossy().ends_with("(deleted)")
        })
    };
    let mut descriptors = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let path = descriptors.find_map(|entry| Some(entry.path()).filter(of_store));
    let mut options = File::options();
    options.write(true).open(path.unwrap()).unwrap()
}

struct Run {
    store: Store,
    pool: PoolId,
    there: Vec<bool>,
}

impl Run {
    fn filled(store: Store) -> Run {
        let mut run = Run {
            pool: store.create_pool(PoolKind::Persistent),
            store,
            there: Vec::new(),
        };
        run.fill();
        run
    }

    /// Puts every page once; how many were refused.
    fn fill(&mut self) -> usize {
        let put = |index| {
            let page = noise(index);
            self.store.put(&key(self.pool, 0, index), &page).is_ok()
        };
        self.there = (0..PAGES).map(put).collect();
        self.there.iter().filter(|there| !**there).count()
    }

    fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for (index, there) in (0..).zip(&self.there) {
            if *there {
                tally.add(get(&self.store, &key(self.pool, 0, index)), &noise(index));
            }
        }
        tally
    }

    fn taken(&self) -> u64 {
        self.there.iter().filter(|there| **there).count() as u64
    }

    /// After everything was flushed it is as good as new.
    fn starts_anew(&mut self) {
        self.store.flush_pool(self.pool);
        assert_eq!(self.fill(), 0, "refused anew");
        assert_eq!(self.tally(), Tally::all_good(PAGES));
        assert_eq!(self.store.validate(), Ok(()));
    }
}

#[test]
fn a_file_that_was_cut_off_is_errors_and_nothing_wrong() {
    let directory = directory("cut");
    let mut run = Run::filled(open_at(&directory).unwrap());
    assert_eq!(run.tally(), Tally::all_good(PAGES));
    file_of(&directory).set_len(1 << 20).unwrap();
    let tally = run.tally();
    assert_eq!((tally.wrong, tally.missing), (0, 0));
    // What lies in the first MiB and in RAM is untouched.
    assert!(tally.good > 256 && tally.errors > 256, "{tally:?}");
    run.starts_anew();
}

#[test]
fn bytes_that_were_changed_are_errors_and_nothing_wrong() {
    let directory = directory("changed");
    let mut run = Run::filled(open_at(&directory).unwrap());
    let file = file_of(&directory);
    let places = (4096..6 << 20).step_by(300_000);
    for at in places.clone() {
        file.write_all_at(&[0xa5; 64], at).unwrap();
    }
    let tally = run.tally();
    assert_eq!((tally.wrong, tally.missing), (0, 0));
    // A place is within one page, or two where they meet.
    let places = places.count() as u64;
    assert!(
        (1..=2 * places).contains(&tally.errors),
        "{tally:?} with {places} places"
    );
    run.starts_anew();
}

#[test]
fn a_limit_on_files_is_a_tier_that_is_full() {
    if !child::is_child() {
        return child::passes(
            "swapfile::a_limit_on_files_is_a_tier_that_is_full",
            // In units of 512 bytes: 3 MiB.
            "ulimit -f 6144;",
        );
    }
    let mut run = Run::filled(open_at(&directory("limited")).unwrap());
    let taken = run.taken();
    assert!((512..PAGES).contains(&taken), "{taken} pages were taken");
    assert_eq!(run.tally(), Tally::all_good(taken));
    assert!(matches!(
        run.store.swap_trouble(),
        Some(Event::WritebackFailed { .. } | Event::TierFull { .. })
    ));
    run.store.flush_pool(run.pool);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    run.fill();
    let again = run.taken();
    assert!(again * 10 >= taken * 9, "{again} anew, {taken} before");
    assert_eq!(run.tally(), Tally::all_good(again));
}

#[test]
fn a_full_filesystem_is_a_tier_that_is_full() {
    let name = "swapfile::a_full_filesystem_is_a_tier_that_is_full";
    let directory = directory("full");
    if !child::is_child() {
        let mount = format!(
            "exec unshare -m sh -c 'mount -t tmpfs -o size=4m none {} && exec \"$0\" \"$@\"' \"$0\" \"$@\";",
            directory.display()
        );
        return child::passes(name, &mount);
    }
    let mut run = Run::filled(open_at(&directory).unwrap());
    let taken = run.taken();
    assert!((900..PAGES).contains(&taken), "{taken} pages were taken");
    assert_eq!(run.tally(), Tally::all_good(taken));
    // Every second run of blocks is free again, in a filesystem that is still full.
    for index in 0..PAGES {
        if index / 16 % 2 == 0 {
            run.store.flush_page(&key(run.pool, 0, index));
            run.there[index as usize] = false;
        }
    }
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let more = |index: &u64| {
        let put = run.store.put(&key(run.pool, 1, *index), &noise(*index));
        put.is_ok()
    };
    let more = (0..taken / 3).filter(more).count() as u64;
    assert!(more * 10 >= taken / 3 * 9, "{more} of {}", taken / 3);
    assert_eq!(run.tally(), Tally::all_good(run.taken()));
}

#[test]
fn a_store_without_descriptors_to_spare_works() {
    if !child::is_child() {
        return child::passes(
            "swapfile::a_store_without_descriptors_to_spare_works",
            "ulimit -n 24;",
        );
    }
    let store = open_at(&directory("descriptors")).unwrap();
    let held: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert!(!held.is_empty());
    let mut run = Run::filled(store);
    assert_eq!(run.taken(), PAGES);
    assert_eq!(run.tally(), Tally::all_good(PAGES));
    run.starts_anew();
}

#[test]
fn paths_that_are_no_place_for_a_swap_file_are_said() {
    let directory = directory("paths");
    let full = directory.join("has contents");
    std::fs::write(&full, "something").unwrap();
    for refused in [Path::new("/dev/null"), &full] {
        let opened = open_at(refused);
        assert!(matches!(opened, Err(OpenError::SwapRefused { .. })));
    }
    assert_eq!(std::fs::read(&full).unwrap(), b"something");
    let nowhere = directory.join("no such directory").join("file");
    for path in [nowhere.as_path(), Path::new("/proc")] {
        let opened = open_at(path);
        assert!(
            matches!(&opened, Err(OpenError::Swap { path: told, .. }) if told == path),
            "{opened:?}"
        );
    }
    let named = directory.join("a new name");
    std::fs::remove_file(&named).ok();
    let mut run = Run::filled(open_at(&named).unwrap());
    assert!(!named.exists(), "the name does not outlive the opening");
    run.starts_anew();
}

#[test]
fn a_read_only_filesystem_is_said() {
    let name = "swapfile::a_read_only_filesystem_is_said";
    let directory = directory("readonly");
    if !child::is_child() {
        let mount = format!(
            "exec unshare -m sh -c 'mount -t tmpfs -o ro none {} && exec \"$0\" \"$@\"' \"$0\" \"$@\";",
            directory.display()
        );
        return child::passes(name, &mount);
    }
    let opened = open_at(&directory);
    let Err(OpenError::Swap { path, source }) = opened else {
        panic!("{opened:?}");
    };
    assert_eq!(path, directory);
    assert_eq!(source.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
}
