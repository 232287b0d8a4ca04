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
mod cost;
mod disk;
mod list;
pub mod memory;
mod place;
mod seam;
mod slots;

pub(crate) use buffers::{Buffers, IDLE_MAX};
pub use cost::{Costs, Side};
pub use disk::DiskTier;
pub(crate) use list::{Folded, fold};
pub use list::{Keeps, ListedTier, TierSource};
pub use seam::{SECTOR_SIZE, Tier, TierError, TierRead, TierReport, TierWrite};
pub(crate) use slots::{Places, Slots};
