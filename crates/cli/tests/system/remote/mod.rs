//! `zcache run --remote`: other machines' RAM before the swap file, on servers that the tests start and break; and `zcache mount --remote`.
//!
//! Each test of a run runs a program (`tests/programs/scatter.c`) that has four times the memory that it may have, visits its pages in a random
//! order and checks all of their bytes, while something happens to the servers in the middle of it. Whatever happens, no byte is wrong,
//! and with `disk` and `two-copies` no page is lost.
//!
//! - `server`, `cluster`, `client`, `certificates`, `network`, `proxy`: what the tests start, ask and break
//! - `scattered`: the program under zcache, and what zcache says that it did
//! - `disk`: one server and the swap file; `copies`: two servers; `slots`: a cluster; `waits`: a server, its replica and their files
//! - `mounts`: a tree that is shown a second time
//! - `bytes`: servers that answer other bytes; `cut`: a network that is cut
//! - `refusals`, `secrets`, `ends`: what is refused at the start, what nobody may read, what is left

mod bytes;
mod certificates;
mod client;
mod cluster;
mod copies;
mod cut;
mod disk;
mod ends;
mod mounts;
mod network;
mod proxy;
mod refusals;
mod scattered;
mod secrets;
mod server;
mod slots;
mod waits;
