//! Several tiers as one, in the order in which blocks leave RAM for them.
//!
//! Stage on the data path: between the store and the tiers, which know nothing of each other.
//!
//! - `cached`: a tier that may lose what it has, before one that keeps it
//! - `ranked`: two tiers that keep what they have; the first one's oldest blocks go to the second
//!
//! A list is folded from its end, so each tier sees the rest of the list as one tier behind it.
//!
//! - What the list acknowledged, a tier that [keeps it surely](Keeps::Surely) has.

mod cached;
mod ranked;

use std::fmt;

use crate::config::SwapConfig;
use crate::error::OpenError;
use crate::sync::Arc;
use crate::tier::{Tier, place};

use cached::Cached;
use ranked::Ranked;

/// What becomes of a block that a tier has acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keeps {
    /// It is kept as safely as the client wants; the tier may be the only one that has
    /// the block.
    Surely,
    /// It may be lost at any time, so another tier behind this one has it too. The tier
    /// takes blocks without waiting, and drops the oldest when it has no more room.
    Perhaps,
}

/// A tier of a list.
pub struct ListedTier {
    /// What messages call it.
    pub name: String,
    /// The tier.
    pub tier: Box<dyn Tier>,
    /// The most bytes of blocks that it is given. One that keeps blocks perhaps counts
    /// for itself.
    pub bytes_max: Option<u64>,
    /// What becomes of its blocks.
    pub keeps: Keeps,
}

impl fmt::Debug for ListedTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListedTier")
            .field("name", &self.name)
            .field("bytes_max", &self.bytes_max)
            .field("keeps", &self.keeps)
            .finish_non_exhaustive()
    }
}

/// A tier that is opened where the store is, since descriptors and threads of the one
/// who asks for it may not be there.
#[derive(Clone)]
pub struct TierSource {
    name: String,
    open: Arc<Opener>,
}

type Opener = dyn Fn() -> Result<ListedTier, OpenError> + Send + Sync;

impl TierSource {
    /// A tier that is opened so.
    pub fn new(
        name: impl Into<String>,
        open: impl Fn() -> Result<ListedTier, OpenError> + Send + Sync + 'static,
    ) -> TierSource {
        TierSource {
            name: name.into(),
            open: Arc::new(open),
        }
    }

    /// The tier in a swap file.
    #[must_use]
    pub fn disk(config: SwapConfig) -> TierSource {
        TierSource::new("swap file", move || {
            let (tier, name) = place::open(&config)?;
            Ok(ListedTier {
                name,
                tier: Box::new(tier),
                bytes_max: config.bytes_max,
                keeps: Keeps::Surely,
            })
        })
    }

    /// Opens the tier.
    ///
    /// # Errors
    /// Whatever stands in the way of this tier.
    pub fn open(&self) -> Result<ListedTier, OpenError> {
        (self.open)()
    }
}

impl fmt::Debug for TierSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TierSource").field(&self.name).finish()
    }
}

/// A list as one tier, the most bytes that it takes, and what messages call it.
pub(crate) struct Folded {
    pub(crate) tier: Box<dyn Tier>,
    pub(crate) bytes_max: Option<u64>,
    pub(crate) name: String,
}

/// Makes one tier of a list; `None` of an empty one.
///
/// # Errors
/// [`OpenError::LastTierLoses`] when nothing behind the last tier keeps what that loses.
pub(crate) fn fold(list: Vec<ListedTier>) -> Result<Option<Folded>, OpenError> {
    let mut list = list.into_iter().rev();
    let Some(last) = list.next() else {
        return Ok(None);
    };
    if last.keeps == Keeps::Perhaps {
        return Err(OpenError::LastTierLoses { name: last.name });
    }
    let last = Folded {
        tier: last.tier,
        bytes_max: last.bytes_max,
        name: last.name,
    };
    Ok(Some(list.fold(last, |behind, tier| {
        Folded {
            name: format!("{}, then {}", tier.name, behind.name),
            bytes_max: match tier.keeps {
                Keeps::Perhaps => behind.bytes_max,
                Keeps::Surely => tier
                    .bytes_max
                    .zip(behind.bytes_max)
                    .map(|(first, second)| first.saturating_add(second)),
            },
            tier: match tier.keeps {
                Keeps::Perhaps => Box::new(Cached::new(tier.tier, behind.tier)),
                Keeps::Surely => Box::new(Ranked::new(
                    tier.tier,
                    tier.bytes_max,
                    behind.tier,
                    behind.bytes_max,
                )),
            },
        }
    })))
}

#[cfg(test)]
mod tests;
