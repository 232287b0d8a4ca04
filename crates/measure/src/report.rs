//! What a measurement found. The names of the fields are those of `--json` and
//! are only added to: `docs/measure.md` lists them.

use serde::Serialize;

/// A whole measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Changes when a field changes its meaning.
    pub format: u32,
    /// The choice of pages; the same seed chooses the same pages again.
    pub seed: u64,
    /// The most that was to be sampled; null for everything.
    pub sample_bytes_max: Option<u64>,
    /// Each target by itself, in the order of the command line.
    pub targets: Vec<TargetReport>,
    /// All of them as one program; null with one target.
    pub together: Option<TargetReport>,
}

/// One target, or all of them together.
#[derive(Clone, Debug, Serialize)]
pub struct TargetReport {
    /// `process`, `file` or `together`.
    pub kind: &'static str,
    /// The name for people.
    pub name: String,
    /// The number of a process.
    pub pid: Option<i32>,
    /// Pages that could be sampled: anonymous pages in RAM, or pages of a file.
    pub pages: u64,
    /// Anonymous pages in the kernel's swap, which were not read.
    pub swapped_pages: u64,
    /// Private pages of files, which cannot be paged.
    pub unpageable_pages: u64,
    /// Some pages may be in the store of a `zcache run`, out of sight.
    pub under_zcache: bool,
    /// Pages in the sample.
    pub sampled_pages: u64,
    /// Pages that went away before they were read.
    pub vanished_pages: u64,
    /// How long the reading took.
    pub sampling_ns: u64,
    /// What the sampled pages hold.
    #[serde(flatten)]
    pub contents: Contents,
    /// Pages of the sample that the best codec does not shrink.
    pub incompressible_pages: u64,
    /// By codec.
    pub codecs: Vec<CodecReport>,
    /// By allocator and codec.
    pub packings: Vec<Packing>,
}

/// What pages hold, by count of the sample.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Contents {
    /// Pages of one repeated word.
    pub same_filled_pages: u64,
    /// Of these, pages of zeros.
    pub zero_pages: u64,
    /// Pages of which an earlier one of the sample is a copy, same-filled left
    /// out.
    pub duplicate_pages: u64,
}

/// One codec's result, same-filled pages left out.
#[derive(Clone, Debug, Serialize)]
pub struct CodecReport {
    /// Its name, as `--codec` takes it.
    pub codec: &'static str,
    /// The compression level where it is not the codec's usual one or a
    /// dictionary is used; null otherwise.
    pub level: Option<i32>,
    /// The length of the dictionary; zero without one.
    pub dictionary_bytes: u64,
    /// Pages that it was measured on.
    pub measured_pages: u64,
    /// Original to compressed bytes; zero without pages.
    pub ratio: f64,
    /// The ratio of all pages lies so near with 95% confidence.
    pub ratio_error: f64,
    /// Pages that it does not shrink.
    pub incompressible_pages: u64,
    /// The median time to compress a page here and now.
    pub encode_ns_p50: u64,
    /// The median time to decompress it.
    pub decode_ns_p50: u64,
}

/// What an allocator makes of a codec's output.
#[derive(Clone, Debug, Serialize)]
pub struct Packing {
    /// Its name, as `--allocator` takes it.
    pub allocator: &'static str,
    /// The codec.
    pub codec: &'static str,
    /// The length of the dictionary; zero without one.
    pub dictionary_bytes: u64,
    /// Bytes of pages held by a byte of RAM, frames and tables counted.
    pub density: f64,
    /// The `zcache run --ram` that holds everything with all but the least
    /// compressed; null for a file.
    pub ram_bytes_least: Option<u64>,
    /// The same with half of the pages resident.
    pub ram_bytes_half: Option<u64>,
    /// What the store takes for all pages.
    pub stored_bytes: u64,
}
