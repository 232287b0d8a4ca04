//! The tier on real servers that the tests start: whichever of valkey-server
//! and redis-server the machine has. Each dies with its test.

mod cluster;
mod fake;
mod faults;
mod load;
mod refused;
mod server;
mod tls;
