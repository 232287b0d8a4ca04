//! What goes on beside the data path, in threads of its own.

pub(crate) mod codec;
mod idle;
pub(crate) mod out_of_memory;
pub(crate) mod tick;
mod train;
