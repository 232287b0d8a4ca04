//! What a reclaim came to, and why it did no more.

use crate::error::Rejected;

/// What a reclaim did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reclaimed {
    /// RAM given back to the system, in bytes. Of blocks that other threads wrote
    /// only what became free while this one had to wait for them.
    pub bytes: u64,
    /// Pages that are now only in the tier.
    pub pages: u64,
    /// Ephemeral pages dropped.
    pub dropped_pages: u64,
    /// Blocks that the tier refused and that stay in RAM.
    pub failures: u64,
    /// Blocks were kept in RAM because the tier had failed, or had had no room to
    /// grow, and it is not yet time to try again.
    pub held_back: bool,
    /// The tier holds as many blocks as it may.
    pub tier_full: bool,
    /// Nothing was written because this process was forked from the one that
    /// opened the store.
    pub forked: bool,
}

/// Why no more was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::store) enum Stop {
    /// What was wanted is free.
    Enough,
    /// A batch of another thread ended, so there may be room now.
    Changed,
    /// No block is there that could leave.
    Nothing,
    /// The tier holds all it may.
    Full,
    /// The tier has no room to grow.
    NoRoom,
    /// The tier failed, and fails still for all that is known.
    Failing,
    /// The tier has not answered for [`ANSWER_WAIT_MAX`](super::under_way::ANSWER_WAIT_MAX).
    Unanswered,
    /// The system gave no memory for a transfer.
    NoMemory,
    /// This process was forked.
    Forked,
}

impl Stop {
    /// Why a page is refused that found no room after this.
    pub(in crate::store) fn refusal(self) -> Rejected {
        match self {
            Stop::Enough | Stop::Changed | Stop::Nothing => Rejected::PoolFull,
            Stop::Full | Stop::NoRoom => Rejected::TierFull,
            Stop::Failing | Stop::Unanswered => Rejected::TierFailing,
            Stop::NoMemory => Rejected::NoMemory,
            Stop::Forked => Rejected::Forked,
        }
    }
}
