//! 

pub mod arena;
pub mod ring;
pub mod swapfile;
