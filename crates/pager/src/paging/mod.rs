//! The data path: pages that come by faults and leave by eviction.

pub(crate) mod evict;
pub(crate) mod fault;
pub(crate) mod servant_lost;
