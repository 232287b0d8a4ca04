//! The processes of a run: those of zcache, and those of the program's tree, which
//! are traced.

pub(crate) mod attach;
pub(crate) mod front;
pub(crate) mod inject;
pub(crate) mod run;
pub(crate) mod script;
pub(crate) mod tracer;
pub(crate) mod watch;
