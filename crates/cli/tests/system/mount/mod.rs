//! System tests of `zcache mount`: real trees on a real disk, used by programs that know nothing of it, judged beside the same
//! tree without it.
//!
//! What: the same random operations here and on the source's own filesystem (`alike`); what changes beside the mount
//! (`beside`), noticed at once (`watch`), or on both sides at a time (`sides`); whose room it takes (`rights`); a network
//! filesystem (`network`); what is appended (`appends`), where files end (`ends`), what is stored through mappings (`stores`), and
//! changes whose time comes before their bytes (`silent`); seeded schedules of all this beside a model
//! (`model`); sources that fail, fill up or vanish, and a zcache that is killed (`failures`); a POSIX test suite (`posix`); real programs (`programs`); mounting,
//! unmounting, options and refusals (`lifecycle`).
//! Invariant, for every test: what is read is what was written last, through whichever path.

mod alike;
mod appends;
mod beside;
mod bounds;
mod damage;
mod disk;
mod ends;
mod failures;
mod hangs;
mod lifecycle;
mod manners;
mod model;
mod mounts;
mod network;
mod path_handles;
mod posix;
mod programs;
mod rights;
mod set_ids;
mod sides;
mod silent;
mod sources;
mod stores;
pub(crate) mod support;
mod users;
mod watch;
