//! The data path: pages that come by faults and leave by eviction.

mod compress;
pub(crate) mod evict;
pub(crate) mod fault;
mod move_out;
mod pen;
pub(crate) mod servant_lost;
