//! `zcache lend`: a server that lends this machine's RAM, real borrowers, a machine that gets short, and two machines as two
//! network namespaces.
//!
//! Contents are checked by the borrower's own program, page by page; wrong bytes end it with status 1.

mod access;
mod lender;
mod moving;
mod shortage;
mod two_machines;
