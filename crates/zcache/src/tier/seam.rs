//! What a tier is to the store: its transfers, and how each can end.
//!
//! Stage on the data path: between a batch or a load and whatever tier there is.

/// The unit of transfers: offsets, lengths and addresses are multiples of it.
pub const SECTOR_SIZE: usize = zcache_sys::swapfile::SECTOR_SIZE;

/// Why a transfer failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TierError {
    /// The system refused, or the medium failed.
    System {
        /// As in errno(3), for instance 5 for a failed medium.
        errno: i32,
    },
    /// The tier ends before what was to be read.
    CutOff,
    /// The tier had the bytes and has them no more.
    Lost,
    /// This process was forked from the one that opened the tier, and only that
    /// one writes to it.
    Forked,
    /// The transfer was asked for from within one of the same store, too deep to
    /// be anything but a circle.
    Nested,
}

impl TierError {
    /// No space is left on the tier.
    pub const NO_SPACE: TierError = TierError::of_errno(28);
    /// The medium failed.
    pub const IO: TierError = TierError::of_errno(5);
    /// A file may not become as long (`EFBIG`), by its filesystem or by a limit
    /// that the process is under.
    pub const TOO_LONG: TierError = TierError::of_errno(27);
    /// The tier ends before what was to be read.
    pub const CUT_OFF: TierError = TierError::CutOff;

    /// An error of the system, by its number.
    #[must_use]
    pub const fn of_errno(errno: i32) -> TierError {
        TierError::System { errno }
    }

    /// The system's error number, if it was the system that refused.
    #[must_use]
    pub const fn errno(self) -> Option<i32> {
        match self {
            TierError::System { errno } => Some(errno),
            TierError::CutOff | TierError::Lost | TierError::Forked | TierError::Nested => None,
        }
    }

    /// Whether there was no room for what was written: ENOSPC, EFBIG or EDQUOT.
    /// Places that were written before may still be written.
    #[must_use]
    pub const fn is_no_room(self) -> bool {
        matches!(
            self,
            TierError::System {
                errno: 28 | 27 | 122
            }
        )
    }
}

impl From<&std::io::Error> for TierError {
    fn from(error: &std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => TierError::of_errno(errno),
            None if error.kind() == std::io::ErrorKind::UnexpectedEof => TierError::CutOff,
            None => TierError::IO,
        }
    }
}

impl std::fmt::Display for TierError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            TierError::System { errno } => {
                write!(f, "{}", std::io::Error::from_raw_os_error(errno))
            }
            TierError::CutOff => f.write_str("the tier ends before"),
            TierError::Lost => f.write_str("the tier has lost it"),
            TierError::Forked => {
                f.write_str("this process was forked from the one that writes to the tier")
            }
            TierError::Nested => f.write_str("the tier waits for itself"),
        }
    }
}

impl std::error::Error for TierError {}

/// A block to be written.
#[derive(Debug)]
pub struct TierWrite<'a> {
    /// Its place, by which it is read and freed: bytes from the start of the tier.
    pub offset_bytes: u64,
    /// The whole block; aligned to [`SECTOR_SIZE`] in address, offset and length.
    pub bytes: &'a [u8],
    /// What became of it, set by the tier.
    pub result: Result<(), TierError>,
}

/// Bytes to be read.
#[derive(Debug)]
pub struct TierRead<'a> {
    /// From where, in bytes from the start of the tier. It may begin within a block
    /// and reach over several, and over places of which nothing is wanted.
    pub offset_bytes: u64,
    /// To where; aligned to [`SECTOR_SIZE`] in address, offset and length.
    pub bytes: &'a mut [u8],
    /// What became of it, set by the tier.
    pub result: Result<(), TierError>,
}

/// What a tier says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TierReport {
    /// What it is, for instance "remote".
    pub tier: &'static str,
    /// A line for people.
    pub summary: String,
    /// Its counts by their names, which say the unit where it is not one.
    pub counts: Vec<(&'static str, u64)>,
}

/// A keeper of blocks outside our RAM.
///
/// The store names blocks by their places, which are numbers of bytes as if the tier
/// were one long file, and gives a place to another block only after it
/// [freed](Tier::free) it. Where the bytes of a place really are is the tier's affair:
/// in a file at that very offset, or in something that is written once and never again.
///
/// What a tier may count on, and may do:
///
/// - **Threads.** Calls come from many threads at once, the client's, and with
///   no lock of the store held. A call ends when all of its transfers have; a
///   tier may use threads of its own for them.
/// - **Order.** None is kept between calls. No place is written while a write of
///   it is under way. A place may be freed, and written again, while it is read; the
///   store finds out by checksum. Blocks of one call leave together, in the order of
///   their places as far as these are neighbours.
/// - **Failures.** Any transfer may fail, with [`Err`] in its request. Blocks
///   that were not written stay in RAM, and the tier is tried again, at growing
///   intervals up to a second. After an error of [no room](TierError::is_no_room)
///   only places that were written before are, and now and then one more.
/// - **Panics.** A tier may panic. Its transfers have failed then: blocks are
///   back in RAM, their places are free, and the panic goes on to whoever called
///   the store.
/// - **Stores.** A tier may use other stores, and their tiers others, a dozen deep. From within a transfer
///   it may also use the store that it belongs to: lookups and flushes work. A
///   put is refused where it would need a transfer to make room, and a reclaim
///   only drops and merges, so that no transfer waits for itself. It must not
///   wait for another thread that puts into that store: such puts wait in their
///   turn for the transfer, for some seconds.
/// - **Forks.** In a process forked from the one that opened the store, a tier is
///   only read.
pub trait Tier: Send + Sync {
    /// Writes all; each outcome is in its request.
    fn write(&self, writes: &mut [TierWrite<'_>]);

    /// Reads all; each outcome is in its request. A part that was never written
    /// is an error or any bytes; one that was written and is lost is an error.
    fn read(&self, reads: &mut [TierRead<'_>]);

    /// The same for what was read before and was not what was written: from another copy,
    /// where there is one.
    fn read_again(&self, reads: &mut [TierRead<'_>]) {
        self.read(reads);
    }

    /// Nothing will read the block that was written to this place any more, nor the
    /// place where a write failed. The tier only notes it: locks of the store are held.
    fn free(&self, offset_bytes: u64, len_bytes: u64) {
        let _ = (offset_bytes, len_bytes);
    }

    /// RAM in bytes that the tier holds for its own, which counts against the limit
    /// of the store.
    fn ram_bytes(&self) -> u64 {
        0
    }

    /// Nothing will be asked of the tier any more: it gives back what it holds elsewhere,
    /// in bounded time.
    fn end(&self) {}

    /// What the tier says of itself, beside what the store counts; of a list, each tier
    /// that says anything.
    fn reports(&self) -> Vec<TierReport> {
        Vec::new()
    }
}

impl<T: Tier + ?Sized> Tier for crate::sync::Arc<T> {
    fn write(&self, writes: &mut [TierWrite<'_>]) {
        (**self).write(writes);
    }

    fn read(&self, reads: &mut [TierRead<'_>]) {
        (**self).read(reads);
    }

    fn read_again(&self, reads: &mut [TierRead<'_>]) {
        (**self).read_again(reads);
    }

    fn free(&self, offset_bytes: u64, len_bytes: u64) {
        (**self).free(offset_bytes, len_bytes);
    }

    fn ram_bytes(&self) -> u64 {
        (**self).ram_bytes()
    }

    fn reports(&self) -> Vec<TierReport> {
        (**self).reports()
    }

    fn end(&self) {
        (**self).end();
    }
}
