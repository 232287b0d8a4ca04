//! The processes of a run: those of zcache, and those of the program's tree, which
//! are traced.

mod adopt;
mod attach;
mod births;
pub(crate) mod care_error;
mod dispatch;
mod ends;
pub(crate) mod front;
mod holds;
mod images;
pub(crate) mod inject;
pub(crate) mod run;
pub(crate) mod script;
mod servant;
pub(crate) mod tracer;
pub(crate) mod watch;
mod workers;
