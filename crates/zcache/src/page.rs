//! The unit that clients hand in and get back: one page of 4 KiB, and the
//! handle that names a stored one.
//!
//! Does not compress, place or own pages.

/// The size of a client's page in bytes. Pages of other sizes are not stored.
pub const PAGE_SIZE: usize = 4096;

/// One page of a client, by value. The engine never refers to client memory;
/// callers copy a page in and out.
pub type Page = [u8; PAGE_SIZE];

/// Names one page that [`Store::insert`](crate::Store::insert) accepted.
///
/// A handle is valid until the last reference to it is released; after that
/// the same bits may name another page. It has at most 28 bits so that clients
/// can keep it in a machine word beside their own flags.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle(u32);

impl Handle {
    /// How many bits of [`Handle::to_bits`] can be set.
    pub const BITS: u32 = 28;

    /// The handle as a number below 2^28.
    #[must_use]
    pub fn to_bits(self) -> u32 {
        self.0
    }

    /// The handle that [`Handle::to_bits`] gave. Bits above the 28th are
    /// ignored; bits that name no stored page make every load answer
    /// [`LoadError::Gone`](crate::LoadError::Gone).
    #[must_use]
    pub fn from_bits(bits: u32) -> Self {
        Self(bits & ((1 << Self::BITS) - 1))
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "H{:#x}", self.0)
    }
}
