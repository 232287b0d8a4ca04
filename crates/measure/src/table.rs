//! A report for people: one section a target, each with a line on what was
//! sampled, what the pages hold, a table of codecs and one of allocators.

use std::fmt::{self, Display, Formatter};

use crate::report::{CodecReport, Packing, Report, TargetReport};

const PAGE_BYTES: u64 = 4096;
const MIB: u64 = 1 << 20;

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let all = self.targets.iter().chain(&self.together);
        for (number, target) in all.enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            write!(f, "{target}")?;
        }
        Ok(())
    }
}

impl Display for TargetReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            "process" => "anonymous pages in RAM",
            "file" => "pages",
            _ => "pages in all",
        };
        let pages = mib(self.pages * PAGE_BYTES);
        writeln!(f, "{}: {} {what} ({pages})", self.name, self.pages)?;
        self.sampling(f)?;
        self.notes(f)?;
        self.contents(f)?;
        writeln!(f)?;
        self.codec_table(f)?;
        writeln!(f)?;
        self.packing_table(f)?;
        self.verdict(f)
    }
}

impl TargetReport {
    fn is_whole(&self) -> bool {
        self.sampled_pages == self.pages
    }

    fn sampling(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let millis = self.sampling_ns as f64 / 1e6;
        let size = mib(self.sampled_pages * PAGE_BYTES);
        match self.is_whole() {
            true => writeln!(f, "  read: all of them, in {millis:.0} ms"),
            false => writeln!(
                f,
                "  read: {} pages ({size}) drawn evenly, in {millis:.0} ms; ± is the sampling error at 95%",
                self.sampled_pages
            ),
        }
    }

    fn notes(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.vanished_pages > 0 {
            writeln!(
                f,
                "  note: {} chosen pages went away before they were read",
                self.vanished_pages
            )?;
        }
        if self.swapped_pages > 0 {
            writeln!(
                f,
                "  note: {} pages are in the kernel's swap; they were not read and are taken to be like the others",
                self.swapped_pages
            )?;
        }
        if self.under_zcache {
            writeln!(
                f,
                "  note: runs under zcache run; the pages that are in its store were not seen"
            )?;
        }
        if self.unpageable_pages > 0 {
            writeln!(
                f,
                "  note: {} private pages of files cannot be paged; they are part of --ram",
                self.unpageable_pages
            )?;
        }
        Ok(())
    }

    fn contents(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let of = |pages: u64| {
            let percent = 100.0 * pages as f64 / self.sampled_pages.max(1) as f64;
            format!("{pages} ({percent:.1}%)")
        };
        writeln!(
            f,
            "  same-filled {}, of these zero {}",
            of(self.contents.same_filled_pages),
            of(self.contents.zero_pages)
        )?;
        // A copy is noticed only where the other one was drawn too.
        let least = if self.is_whole() { "" } else { "at least " };
        writeln!(
            f,
            "  duplicates {least}{} (zcache keeps each)",
            of(self.contents.duplicate_pages)
        )?;
        writeln!(f, "  incompressible {}", of(self.incompressible_pages))
    }

    fn codec_table(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  codec            ratio          incompressible  µs to compress  to decompress"
        )?;
        for codec in &self.codecs {
            writeln!(
                f,
                "  {:<15}  {:<13}  {:>14}  {:>14.1}  {:>13.1}",
                leveled(codec),
                ratio(codec),
                codec.incompressible_pages,
                codec.encode_ns_p50 as f64 / 1e3,
                codec.decode_ns_p50 as f64 / 1e3,
            )?;
        }
        Ok(())
    }

    fn packing_table(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let runs = self.kind != "file";
        let budgets = match runs {
            true => "  --ram, least  --ram, half resident",
            false => "",
        };
        writeln!(
            f,
            "  allocator  codec            density     all stored{budgets}"
        )?;
        for packing in &self.packings {
            write!(
                f,
                "  {:<9}  {:<15}  {:>7.2}  {:>13}",
                packing.allocator,
                name(packing.codec, packing.dictionary_bytes),
                packing.density,
                mib(packing.stored_bytes),
            )?;
            if let (Some(least), Some(half)) = (packing.ram_bytes_least, packing.ram_bytes_half) {
                write!(f, "  {:>12}  {:>20}", megabytes(least), megabytes(half))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }

    /// The best that the allocators make of it.
    fn verdict(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let least = |ram: fn(&Packing) -> Option<u64>| self.packings.iter().filter_map(ram).min();
        let all = (self.pages + self.swapped_pages + self.unpageable_pages) * PAGE_BYTES;
        let budgets = (least(|p| p.ram_bytes_least), least(|p| p.ram_bytes_half));
        let (Some(compressed), Some(half)) = budgets else {
            return Ok(());
        };
        writeln!(
            f,
            "  holds without a swap file at --ram {} and more, with half of it resident at {}; it has {} now",
            megabytes(compressed),
            megabytes(half),
            mib(all)
        )
    }
}

fn name(codec: &str, dictionary_bytes: u64) -> String {
    match dictionary_bytes {
        0 => codec.to_owned(),
        bytes => format!("{codec} dict {}K", bytes.div_ceil(1024)),
    }
}

fn leveled(codec: &CodecReport) -> String {
    let plain = match codec.level {
        Some(level) => format!("{} {level}", codec.codec),
        None => codec.codec.to_owned(),
    };
    name(&plain, codec.dictionary_bytes)
}

fn ratio(codec: &CodecReport) -> String {
    match (codec.measured_pages, codec.ratio_error) {
        (0, _) => "–".to_owned(),
        (_, error) if error < 0.005 => format!("{:.2}", codec.ratio),
        (_, error) => format!("{:.2} ± {error:.2}", codec.ratio),
    }
}

/// For people.
fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / MIB as f64)
}

/// As `--ram` takes it.
fn megabytes(bytes: u64) -> String {
    format!("{}M", bytes / MIB)
}
