//! What zcache would make of a process's memory or of a file: the library of
//! `zcache measure`, and the sampler of the bench's corpus.
//!
//! Not on the data path. In order: [`Source`] names the pages of a target,
//! [`sample`] copies some of them, `contents` and `codecs` look at the copies,
//! `density` stores them, the pager says what budget would hold the target, and
//! [`Report`] says it all.
//!
//! - A target is only read. A process is never stopped, and no page of it is
//!   faulted in: what is not in RAM is not read.
//! - What is estimated from a sample carries its sampling error; with all pages
//!   read the error is zero.
//! - `read + vanished == chosen`: pages that went away while they were read are
//!   counted, never replaced by zeros.
//!
//! It starts no threads and keeps no state.

mod codecs;
mod contents;
mod density;
mod dictionary;
mod error;
mod measure;
mod process;
mod random;
mod report;
mod sample;
mod source;
mod table;

pub use error::MeasureError;
pub use measure::{Options, Progress, measure};
pub use report::{CodecReport, Contents, Packing, Report, TargetReport};
pub use sample::{Sample, sample};
pub use source::{Kind, Source, Target};
