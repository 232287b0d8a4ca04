//! Where blocks go that leave RAM, behind one seam.
//!
//! Stage on the data path: last on the way out. The store chooses what goes and
//! where; a tier moves whole blocks verbatim and says what became of them.
//!
//! - A write whose result is `Ok` is acknowledged: until the place is written
//!   again, reads of it give these bytes or fail. The store drops its copy in
//!   RAM only then.
//! - A tier may fail any transfer. It need not notice wrong bytes; the store
//!   verifies every page by its checksum.
//!
//! Does not choose places, does not retry over time, does not know
//! what the bytes mean.

mod buffers;
mod disk;
pub mod memory;
mod place;
mod slots;

pub(crate) use buffers::{Buffers, IDLE_MAX};
pub use disk::DiskTier;
pub(crate) use place::open as open_disk;
pub(crate) use slots::Slots;

/// The unit of transfers: offsets, lengths and addresses are multiples of it.
pub const SECTOR_SIZE: usize = zcache_sys::swapfile::SECTOR_SIZE;

/// The system's error number for a failed transfer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TierError {
    /// As in errno(3), for instance 28 for no space.
    pub errno: i32,
}

impl TierError {
    /// No space is left on the tier.
    pub const NO_SPACE: TierError = TierError { errno: 28 };
    /// The medium failed.
    pub const IO: TierError = TierError { errno: 5 };
    /// The tier ends before what was to be read. No error of the system's.
    pub const CUT_OFF: TierError = TierError { errno: 0 };
}

impl From<&std::io::Error> for TierError {
    fn from(error: &std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => TierError { errno },
            None if error.kind() == std::io::ErrorKind::UnexpectedEof => TierError::CUT_OFF,
            None => TierError::IO,
        }
    }
}

impl std::fmt::Display for TierError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            TierError::CUT_OFF => f.write_str("the tier ends before"),
            TierError { errno } => write!(f, "{}", std::io::Error::from_raw_os_error(errno)),
        }
    }
}

impl std::error::Error for TierError {}

/// Bytes to be written.
#[derive(Debug)]
pub struct TierWrite<'a> {
    /// Where, in bytes from the start of the tier.
    pub offset_bytes: u64,
    /// What; aligned to [`SECTOR_SIZE`] in address, offset and length.
    pub bytes: &'a [u8],
    /// What became of it, set by the tier.
    pub result: Result<(), TierError>,
}

/// Bytes to be read.
#[derive(Debug)]
pub struct TierRead<'a> {
    /// From where, in bytes from the start of the tier.
    pub offset_bytes: u64,
    /// To where; aligned to [`SECTOR_SIZE`] in address, offset and length.
    pub bytes: &'a mut [u8],
    /// What became of it, set by the tier.
    pub result: Result<(), TierError>,
}

/// A place for blocks outside our RAM. Calls come from many threads at once,
/// never with a lock of the store held, and end when all transfers have.
///
/// A tier may use other stores: nothing that the calling operation borrowed is in
/// their way.
pub trait Tier: Send + Sync {
    /// Writes all; each outcome is in its request.
    fn write(&self, writes: &mut [TierWrite<'_>]);

    /// Reads all; each outcome is in its request. A part that was never written
    /// is an error or any bytes.
    fn read(&self, reads: &mut [TierRead<'_>]);
}

impl<T: Tier + ?Sized> Tier for crate::sync::Arc<T> {
    fn write(&self, writes: &mut [TierWrite<'_>]) {
        (**self).write(writes);
    }

    fn read(&self, reads: &mut [TierRead<'_>]) {
        (**self).read(reads);
    }
}
