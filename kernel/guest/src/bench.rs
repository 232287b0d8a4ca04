//! Measurements in one boot: the same work with each store in front of the same disk.
//!
//! Software emulation makes everything slower, but not the disk: figures of time are to be compared with each other only.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::pages::{self, Mix, Random};
use crate::sys::{self, Region};
use crate::{Outcome, module};

/// What stands in front of the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Contender {
    Disk,
    Zswap(&'static str),
    Zram(&'static str),
    Zcache(&'static str),
}

const CONTENDERS: [Contender; 7] = [
    Contender::Disk,
    Contender::Zswap("lz4"),
    Contender::Zswap("zstd"),
    Contender::Zram("lz4"),
    Contender::Zram("zstd"),
    Contender::Zcache("lz4"),
    Contender::Zcache("zstd"),
];

const ZSWAP: &str = "/sys/module/zswap/parameters";
const ZRAM: &str = "/dev/zram0";
const ZRAM_SYS: &str = "/sys/block/zram0";

fn read_number(path: &str, field: usize) -> u64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let field = text.split_whitespace().nth(field);
    field.and_then(|word| word.parse().ok()).unwrap_or(0)
}

impl Contender {
    fn name(self) -> String {
        match self {
            Contender::Disk => "disk".into(),
            Contender::Zswap(codec) => format!("zswap {codec}"),
            Contender::Zram(codec) => format!("zram {codec}"),
            Contender::Zcache(codec) => format!("zcache {codec}"),
        }
    }

    fn begin(self) -> Outcome {
        match self {
            Contender::Disk => Ok(()),
            Contender::Zswap(codec) => {
                sys::write(&format!("{ZSWAP}/zpool"), "zsmalloc")?;
                sys::write(&format!("{ZSWAP}/compressor"), codec)?;
                sys::write(&format!("{ZSWAP}/enabled"), "1")
            }
            Contender::Zram(codec) => {
                sys::write(&format!("{ZRAM_SYS}/comp_algorithm"), codec)?;
                let bytes = sys::meminfo_pages("MemTotal") * 4096 * 2;
                sys::write(&format!("{ZRAM_SYS}/disksize"), &bytes.to_string())?;
                // A signature as mkswap writes it: version 1, and the last page.
                let mut header = vec![0; 4096];
                header[1024..1028].copy_from_slice(&1u32.to_le_bytes());
                header[1028..1032].copy_from_slice(&(bytes as u32 / 4096 - 1).to_le_bytes());
                header[4086..].copy_from_slice(b"SWAPSPACE2");
                std::fs::OpenOptions::new()
                    .write(true)
                    .open(ZRAM)
                    .and_then(|file| file.write_all_at(&header, 0))
                    .map_err(|error| format!("{ZRAM}: {error}"))?;
                sys::swapon_first(ZRAM)
            }
            Contender::Zcache(codec) => module::load(&format!("compressor={codec}")),
        }
    }

    fn end(self) -> Outcome {
        match self {
            Contender::Disk => Ok(()),
            Contender::Zswap(_) => {
                sys::write(&format!("{ZSWAP}/enabled"), "0")?;
                sys::swapoff(sys::SWAP)?;
                sys::swapon(sys::SWAP)
            }
            Contender::Zram(_) => {
                sys::swapoff(ZRAM)?;
                sys::write(&format!("{ZRAM_SYS}/reset"), "1")
            }
            Contender::Zcache(_) => module::unload(),
        }
    }

    /// Pages in the store, and bytes of RAM that it takes for them.
    fn held(self) -> Result<(u64, u64), String> {
        Ok(match self {
            Contender::Disk => (0, 0),
            Contender::Zswap(_) => (
                read_number("/sys/kernel/debug/zswap/stored_pages", 0),
                read_number("/sys/kernel/debug/zswap/pool_total_size", 0),
            ),
            Contender::Zram(_) => {
                let stat = format!("{ZRAM_SYS}/mm_stat");
                (read_number(&stat, 0) / 4096, read_number(&stat, 2))
            }
            Contender::Zcache(_) => {
                let counters = module::counters()?;
                (counters["entries"], counters["frames_in_use"] * 4096)
            }
        })
    }
}

/// Pages that the swap disk read and wrote.
fn disk() -> (u64, u64) {
    let stat = "/sys/block/vda/stat";
    (read_number(stat, 2) / 8, read_number(stat, 6) / 8)
}

/// Runs one of the measurements.
pub(crate) fn run(words: &[&str]) -> Outcome {
    match words {
        ["loads"] => loads(),
        ["instructions", names @ ..] => instructions(names),
        ["stream"] => stream(),
        _ => Err("loads|instructions|stream".into()),
    }
}

/// What a process of a measurement does.
pub(crate) fn work(words: &[&str]) -> Outcome {
    match words {
        ["touch", mix, share, touches] => touch(
            mix_named(mix)?,
            crate::scenarios::number(share)?,
            crate::scenarios::number(touches)?,
        ),
        _ => Err("no such work".into()),
    }
}

fn mix_named(name: &str) -> Result<Mix, String> {
    match name {
        "quarter" => Ok(Mix::Quarter),
        "half" => Ok(Mix::Half),
        _ => Err(format!("no mix is called {name:?}")),
    }
}

/// Fills memory, touches it here and there, tells how fast, and holds it until its input ends.
fn touch(mix: Mix, share: u64, touches: u64) -> Outcome {
    let region = Region::new(sys::meminfo_pages("MemTotal") * share as usize / 100)?;
    for page in 0..region.pages() {
        pages::fill(region.page(page), page as u64, mix);
    }
    let mut random = Random::new(1);
    let faults = sys::vmstat("pgmajfault");
    let begun = Instant::now();
    for _ in 0..touches {
        // Four of five touches go to a third of the pages.
        let reach = if random.below(5) > 0 {
            region.pages() / 3
        } else {
            region.pages()
        };
        let page = random.below(reach);
        pages::check(region.page(page), page as u64, mix, "a touch")?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{:.1} {}",
        touches as f64 / seconds,
        sys::vmstat("pgmajfault") - faults
    );
    std::io::stdout()
        .flush()
        .map_err(|error| error.to_string())?;
    let mut rest = Vec::new();
    std::io::stdin()
        .read_to_end(&mut rest)
        .map(|_| ())
        .map_err(|error| error.to_string())
}

/// A process that has measured and still holds its memory.
struct Holder {
    child: Child,
    said: Vec<f64>,
}

impl Holder {
    fn start(words: &[&str]) -> Result<Holder, String> {
        let mut child = Command::new("/init")
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut line = String::new();
        if let Some(output) = child.stdout.as_mut() {
            let mut output = BufReader::new(output);
            output
                .read_line(&mut line)
                .map_err(|error| error.to_string())?;
        }
        let said = line
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        Ok(Holder { child, said })
    }

    fn end(mut self) -> Outcome {
        drop(self.child.stdin.take());
        match self.child.wait().map_err(|error| error.to_string())?.code() {
            Some(0) => Ok(()),
            Some(99) => Err("wrong bytes".into()),
            code => Err(format!("a measured process ended with {code:?}")),
        }
    }
}

/// Rounds of each measurement; the median counts.
const ROUNDS: usize = 3;

fn median(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (
        values[values.len() / 2],
        values[0],
        values[values.len() - 1],
    )
}

/// Anonymous memory of one and a half times the RAM, filled and touched.
fn loads() -> Outcome {
    println!(
        "@@ row | load | store | touches/s | spread | pages read | pages written | pages a MiB |"
    );
    println!("@@ row |---|---|--:|--:|--:|--:|--:|");
    for mix in ["quarter", "half"] {
        let mut results: BTreeMap<String, Vec<[f64; 4]>> = BTreeMap::new();
        for round in 0..ROUNDS {
            for turn in 0..CONTENDERS.len() {
                let contender = CONTENDERS[(turn + round) % CONTENDERS.len()];
                results
                    .entry(contender.name())
                    .or_default()
                    .push(load(contender, mix)?);
            }
        }
        for contender in CONTENDERS {
            let runs = &results[&contender.name()];
            let figure = |at: usize| median(runs.iter().map(|run| run[at]).collect());
            let (speed, least, most) = figure(0);
            println!(
                "@@ row | {mix} | {} | {speed:.0} | {least:.0}–{most:.0} | {:.0} | {:.0} | {:.0} |",
                contender.name(),
                figure(1).0,
                figure(2).0,
                figure(3).0,
            );
        }
    }
    Ok(())
}

fn load(contender: Contender, mix: &str) -> Result<[f64; 4], String> {
    contender.begin()?;
    let before = disk();
    let holder = Holder::start(&["bench", "touch", mix, "150", "60000"])?;
    let after = disk();
    let (pages, bytes) = contender.held()?;
    let speed = holder.said.first().copied();
    holder.end()?;
    contender.end()?;
    let speed = speed.ok_or("a measured process said nothing")?;
    let density = if bytes == 0 {
        0.0
    } else {
        pages as f64 * f64::from(1 << 20) / bytes as f64
    };
    Ok([
        speed,
        (after.0 - before.0) as f64,
        (after.1 - before.1) as f64,
        density,
    ])
}

/// Pages that are paged out and in again, and pages of a file that are read from the disk, while the clock counts
/// instructions. A device is in the way of every page of `disk`, and its driver's instructions are in these figures.
fn instructions(names: &[&str]) -> Outcome {
    println!("@@ row | store | instructions a page out | a page in | a file page read |");
    println!("@@ row |---|--:|--:|--:|");
    for contender in CONTENDERS {
        let name = contender.name();
        if !names.is_empty() && !names.contains(&name.as_str()) {
            continue;
        }
        contender.begin()?;
        if matches!(contender, Contender::Zcache(_)) {
            module::set("admit", "all")?;
        }
        let (out, back) = anonymous_instructions()?;
        let file = file_instructions()?;
        contender.end()?;
        println!("@@ row | {name} | {out} | {back} | {file} |");
    }
    Ok(())
}

/// Pages in one measurement of instructions.
const COUNTED_PAGES: usize = 4000;

fn anonymous_instructions() -> Result<(u64, u64), String> {
    let region = Region::new(COUNTED_PAGES)?;
    let mut least = (u64::MAX, u64::MAX);
    for _ in 0..ROUNDS {
        for page in 0..COUNTED_PAGES {
            pages::fill(region.page(page), page as u64, Mix::Half);
        }
        let begun = Instant::now();
        region.advise(0, COUNTED_PAGES, libc::MADV_PAGEOUT)?;
        let out = begun.elapsed().as_nanos() as u64;
        let begun = Instant::now();
        let sum: u64 = (0..COUNTED_PAGES)
            .map(|page| region.page(page)[7])
            .fold(0, u64::wrapping_add);
        std::hint::black_box(sum);
        let back = begun.elapsed().as_nanos() as u64;
        for page in 0..COUNTED_PAGES {
            pages::check(region.page(page), page as u64, Mix::Half, "a page")?;
        }
        least = (least.0.min(out), least.1.min(back));
    }
    let pages = COUNTED_PAGES as u64;
    Ok((least.0 / pages, least.1 / pages))
}

/// Reads a file whose pages are on the disk alone.
fn file_instructions() -> Result<u64, String> {
    let path = format!("{}/counted", sys::TREE);
    let region = Region::new(1)?;
    let mut bytes = Vec::new();
    for page in 0..COUNTED_PAGES {
        pages::fill(region.page(0), page as u64, Mix::Half);
        bytes.extend(region.page(0).iter().flat_map(|word| word.to_ne_bytes()));
    }
    std::fs::write(&path, &bytes).map_err(|error| format!("{path}: {error}"))?;
    let file = std::fs::File::open(&path).map_err(|error| format!("{path}: {error}"))?;
    file.sync_all()
        .map_err(|error| format!("{path}: {error}"))?;
    let mut page = [0; 4096];
    let mut least = u64::MAX;
    for _ in 0..ROUNDS {
        // Dropped on advice and not by reclaim: no cache has them, and each is asked for in vain.
        sys::advise_file(&file, libc::POSIX_FADV_DONTNEED);
        let begun = Instant::now();
        for number in 0..COUNTED_PAGES {
            file.read_exact_at(&mut page, number as u64 * 4096)
                .map_err(|error| format!("{path}: {error}"))?;
        }
        least = least.min(begun.elapsed().as_nanos() as u64);
    }
    std::fs::remove_file(&path).map_err(|error| format!("{path}: {error}"))?;
    Ok(least / COUNTED_PAGES as u64)
}

/// Files that are read again and again, while a stream of ten times the store passes by.
fn stream() -> Outcome {
    println!(
        "@@ row | file cache | re-reads from disk, no stream | of the cache | re-reads from disk, with the stream | of the cache | more of disk |"
    );
    println!("@@ row |---|--:|--:|--:|--:|--:|");
    let total = sys::meminfo_pages("MemTotal");
    let set = Set::make(total * 90 / 100, total * 2)?;
    for admit in ["", "admit=was_active", "admit=all"] {
        // The rest of the RAM is somebody else's, who does not give it back.
        let hog = Region::new(total * 35 / 100)?;
        sys::lock_all_memory()?;
        for page in 0..hog.pages() {
            hog.page(page)[0] = 1;
        }
        set.forget()?;
        if !admit.is_empty() {
            module::load(admit)?;
        }
        let mut random = Random::new(7);
        // Until the store has what it would have.
        set.read(150_000, 0, &mut random)?;
        let quiet = set.read(40_000, 0, &mut random)?;
        let passing = set.read(40_000, set.stream_pages, &mut random)?;
        if !admit.is_empty() {
            module::check()?;
            module::unload()?;
        }
        sys::unlock_all_memory()?;
        drop(hog);
        let name = if admit.is_empty() { "none" } else { admit };
        println!(
            "@@ row | {name} | {} | {} | {} | {} | {} |",
            quiet.from_disk,
            quiet.hits,
            passing.from_disk,
            passing.hits,
            passing.from_disk.saturating_sub(quiet.from_disk)
        );
    }
    Ok(())
}

/// What one phase of reads took.
struct Reads {
    from_disk: u64,
    hits: u64,
}

/// Files: those that are wanted again, and one that passes by.
struct Set {
    working: std::fs::File,
    working_pages: usize,
    stream: std::fs::File,
    stream_pages: usize,
}

impl Set {
    fn make(working_pages: usize, stream_pages: usize) -> Result<Set, String> {
        let make = |name: &str, pages: usize| {
            let path = format!("{}/{name}", sys::TREE);
            let file = std::fs::File::options()
                .create(true)
                .truncate(true)
                .read(true)
                .write(true)
                .open(&path)
                .map_err(|error| format!("{path}: {error}"))?;
            let region = Region::new(1)?;
            for page in 0..pages {
                pages::fill(region.page(0), page as u64, Mix::Half);
                let bytes: Vec<u8> = region
                    .page(0)
                    .iter()
                    .flat_map(|word| word.to_ne_bytes())
                    .collect();
                file.write_all_at(&bytes, page as u64 * 4096)
                    .map_err(|error| format!("{path}: {error}"))?;
            }
            file.sync_all()
                .map_err(|error| format!("{path}: {error}"))?;
            sys::advise_file(&file, libc::POSIX_FADV_RANDOM);
            Ok::<_, String>(file)
        };
        Ok(Set {
            working: make("working", working_pages)?,
            working_pages,
            stream: make("stream", stream_pages)?,
            stream_pages,
        })
    }

    fn forget(&self) -> Outcome {
        sys::write("/proc/sys/vm/drop_caches", "3")
    }

    /// Reads single pages of the working set, a half of it more often, with `passing` pages of the stream between them.
    fn read(&self, reads: usize, passing: usize, random: &mut Random) -> Result<Reads, String> {
        let mut page = [0u8; 4096];
        let mut streamed = 0;
        let disk_before = read_number("/sys/block/vdb/stat", 2) / 8;
        let hits_before = hits();
        let mut from_stream = 0;
        for number in 0..reads {
            let reach = if random.below(4) > 0 {
                self.working_pages / 2
            } else {
                self.working_pages
            };
            let at = random.below(reach) as u64 * 4096;
            self.working
                .read_exact_at(&mut page, at)
                .map_err(|error| error.to_string())?;
            while streamed < passing * (number + 1) / reads {
                self.stream
                    .read_exact_at(&mut page, streamed as u64 * 4096)
                    .map_err(|error| error.to_string())?;
                streamed += 1;
                from_stream += 1;
            }
        }
        let from_disk =
            (read_number("/sys/block/vdb/stat", 2) / 8 - disk_before).saturating_sub(from_stream);
        Ok(Reads {
            from_disk,
            hits: hits() - hits_before,
        })
    }
}

fn hits() -> u64 {
    module::counters().map_or(0, |counters| counters["clean_gets"])
}
