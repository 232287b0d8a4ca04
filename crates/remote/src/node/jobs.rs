//! What a server is asked to do, and what is said when it is done.
//!
//! - Every job is reported once, done or failed.

use std::sync::Arc;

use crate::index::Home;
use crate::link::LinkError;
use crate::segment::SegmentId;

/// How a write ended that did not succeed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum WriteError {
    /// The server's memory is full.
    Full,
    /// No replica acknowledged in time.
    Unreplicated,
    /// The link failed; the server may have the segment.
    Link(LinkError),
    /// The server said no otherwise.
    Refused(String),
}

/// What became of one copy of a segment.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub(crate) id: SegmentId,
    pub(crate) result: Result<(), WriteError>,
}

/// Whom a write reports to.
pub(crate) type Report = Arc<dyn Fn(Done) + Send + Sync>;

/// A segment to be stored.
#[derive(Clone)]
pub(crate) struct Put {
    pub(crate) id: SegmentId,
    pub(crate) home: Home,
    pub(crate) value: Arc<Vec<u8>>,
    pub(crate) report: Report,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Chore {
    Unlink,
    Expire,
}

pub(crate) enum Work {
    Put(Put),
    Chore(Chore, Vec<(SegmentId, Home)>),
}

pub(crate) struct Job {
    pub(crate) work: Work,
    /// Redirects that it followed.
    pub(super) hops: u8,
    /// Whether the slot is on its way to this node.
    pub(super) asking: bool,
}

impl Job {
    pub(crate) fn new(work: Work) -> Job {
        Job {
            work,
            hops: 0,
            asking: false,
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        match &self.work {
            Work::Put(put) => put.value.len() as u64,
            Work::Chore(_, items) => items.len() as u64 * 64,
        }
    }

    pub(super) fn fail(self, error: WriteError) {
        if let Work::Put(put) = self.work {
            (put.report)(Done {
                id: put.id,
                result: Err(error),
            });
        }
    }
}

/// What a turn of the worker found out that others must know.
pub(crate) enum Aftermath {
    /// A job belongs to another node.
    Redirected {
        job: Job,
        home: Home,
        asking: bool,
        host: String,
        port: u16,
    },
    /// A server does not have this copy any more.
    Missing(SegmentId, Home),
    /// A server would not do a chore now.
    Undone(Chore, SegmentId, Home),
    /// A server came back without what it had.
    Emptied,
    /// What a server has must go elsewhere, for its lender wants its RAM back.
    Leaves,
    /// The cluster's map may have changed.
    Unsure,
}
