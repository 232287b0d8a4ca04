//! Scripts: what the tracer does with a thread over several of its stops, written
//! in one piece.
//!
//! A script is a future that one thread, the tracer's, polls: when a task that it
//! has claimed stops or ends, and, if it waits for something else, after every
//! event. So nobody waits for one task while others stop: a thread that waits
//! for room, or is frozen, holds up itself.
//!
//! Invariant: a task's stops go to one script, or to none.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use zcache_sys::ptrace::Stop;

type Script = Pin<Box<dyn Future<Output = ()>>>;

/// See the module's description.
#[derive(Default)]
pub(crate) struct Scripts {
    next: Cell<u64>,
    current: Cell<u64>,
    sleeping: RefCell<HashMap<u64, Script>>,
    fresh: RefCell<VecDeque<u64>>,
    /// The claim on each task that is claimed.
    claims: RefCell<HashMap<i32, ClaimId>>,
    claimed: RefCell<HashMap<ClaimId, Claimed>>,
    /// Scripts that wait for something that is no stop.
    waiting: RefCell<BTreeSet<u64>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct ClaimId(u64);

/// What has come for a claim.
struct Claimed {
    script: u64,
    /// Stops that the script has not looked at yet.
    stops: VecDeque<Stop>,
    /// Its task has ended: its number may be another's now.
    ended: bool,
}

/// A task whose stops come to this script, until it is dropped or the task ends.
pub(crate) struct Claim {
    scripts: Rc<Scripts>,
    id: ClaimId,
    pub(crate) task: i32,
}

impl Claim {
    /// Whether its task has ended. Nothing may be done to it then, by its number.
    pub(crate) fn has_ended(&self) -> bool {
        let claimed = self.scripts.claimed.borrow();
        claimed.get(&self.id).is_none_or(|claimed| claimed.ended)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.scripts.claimed.borrow_mut().remove(&self.id);
        let mut claims = self.scripts.claims.borrow_mut();
        if claims.get(&self.task) == Some(&self.id) {
            claims.remove(&self.task);
        }
    }
}

impl Scripts {
    /// Starts a script; it runs at the next [`Scripts::run`].
    pub(crate) fn start(&self, script: impl Future<Output = ()> + 'static) -> u64 {
        let id = self.next.get() + 1;
        self.next.set(id);
        self.sleeping.borrow_mut().insert(id, Box::pin(script));
        self.fresh.borrow_mut().push_back(id);
        id
    }

    /// Has the stops of `task` come to the script that runs now.
    pub(crate) fn claim(self: &Rc<Self>, task: i32) -> Claim {
        let id = ClaimId(self.next.get() + 1);
        self.next.set(id.0);
        let claimed = Claimed {
            script: self.current.get(),
            stops: VecDeque::new(),
            ended: false,
        };
        self.claimed.borrow_mut().insert(id, claimed);
        self.claims.borrow_mut().insert(task, id);
        Claim {
            scripts: Rc::clone(self),
            id,
            task,
        }
    }

    /// Gives a stop to the script that has claimed the task; false when none has.
    /// An end is the last thing that comes for a claim: whoever has the number then
    /// is another.
    pub(crate) fn deliver(&self, task: i32, stop: Stop) -> bool {
        let Some(id) = self.claims.borrow().get(&task).copied() else {
            return false;
        };
        let ended = matches!(stop, Stop::Exited(_) | Stop::Signaled(_));
        if ended {
            self.claims.borrow_mut().remove(&task);
        }
        let script = {
            let mut claimed = self.claimed.borrow_mut();
            let Some(claimed) = claimed.get_mut(&id) else {
                return false;
            };
            claimed.ended |= ended;
            claimed.stops.push_back(stop);
            claimed.script
        };
        self.poll(script);
        true
    }

    /// Runs what has begun and what may go on although nothing stopped.
    pub(crate) fn run(&self) {
        loop {
            let next = self.fresh.borrow_mut().pop_front();
            let Some(id) = next else { break };
            self.poll(id);
        }
        let waiting: Vec<u64> = self.waiting.borrow().iter().copied().collect();
        for id in waiting {
            self.waiting.borrow_mut().remove(&id);
            self.poll(id);
        }
    }

    /// Whether a script waits for something that is no stop.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.borrow().is_empty() || !self.fresh.borrow().is_empty()
    }

    fn poll(&self, id: u64) {
        let Some(mut script) = self.sleeping.borrow_mut().remove(&id) else {
            return;
        };
        let before = self.current.replace(id);
        let mut context = Context::from_waker(Waker::noop());
        if script.as_mut().poll(&mut context).is_pending() {
            self.sleeping.borrow_mut().insert(id, script);
        } else {
            self.waiting.borrow_mut().remove(&id);
        }
        self.current.set(before);
    }

    /// The next stop of a task that was claimed.
    pub(crate) async fn stop_of(&self, claim: &Claim) -> Stop {
        poll_fn(|_| match self.take_stop(claim) {
            Some(stop) => Poll::Ready(stop),
            None => Poll::Pending,
        })
        .await
    }

    /// A stop of a task that was claimed, if it has made one.
    pub(crate) fn take_stop(&self, claim: &Claim) -> Option<Stop> {
        let mut claimed = self.claimed.borrow_mut();
        claimed.get_mut(&claim.id)?.stops.pop_front()
    }

    /// Waits until `look` finds something; it is asked after every event.
    pub(crate) async fn until<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        poll_fn(|_| {
            if let Some(found) = look() {
                return Poll::Ready(found);
            }
            self.waiting.borrow_mut().insert(self.current.get());
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_gets_the_stops_of_its_task_in_order_and_no_others() {
        let scripts = Rc::new(Scripts::default());
        let seen = Rc::new(RefCell::new(Vec::new()));
        let (inner, log) = (Rc::clone(&scripts), Rc::clone(&seen));
        scripts.start(async move {
            let claim = inner.claim(7);
            for _ in 0..2 {
                let stop = inner.stop_of(&claim).await;
                log.borrow_mut().push(stop);
            }
        });
        assert!(!scripts.deliver(7, Stop::Trap));
        scripts.run();
        assert!(!scripts.deliver(8, Stop::Trap));
        assert!(scripts.deliver(7, Stop::Syscall));
        assert!(scripts.deliver(7, Stop::Exited(3)));
        assert!(!scripts.deliver(7, Stop::Trap));
        assert_eq!(*seen.borrow(), [Stop::Syscall, Stop::Exited(3)]);
    }

    #[test]
    fn a_number_that_comes_again_is_another_task() {
        let scripts = Rc::new(Scripts::default());
        let seen = Rc::new(RefCell::new(Vec::new()));
        for who in ["first", "second"] {
            let (inner, log) = (Rc::clone(&scripts), Rc::clone(&seen));
            scripts.start(async move {
                let claim = inner.claim(7);
                let stop = inner.stop_of(&claim).await;
                log.borrow_mut().push((who, stop, claim.has_ended()));
                // The first is still at it when the second has come.
                inner
                    .until(|| (log.borrow().len() == 2).then_some(()))
                    .await;
            });
            scripts.run();
            let stop = match who {
                "first" => Stop::Exited(0),
                _ => Stop::Trap,
            };
            assert!(scripts.deliver(7, stop));
        }
        let wanted = [
            ("first", Stop::Exited(0), true),
            ("second", Stop::Trap, false),
        ];
        assert_eq!(*seen.borrow(), wanted);
        scripts.run();
        assert!(scripts.claims.borrow().is_empty() && scripts.claimed.borrow().is_empty());
    }

    #[test]
    fn a_script_that_waits_is_asked_after_each_event() {
        let scripts = Rc::new(Scripts::default());
        let ready = Rc::new(Cell::new(false));
        let done = Rc::new(Cell::new(false));
        let (inner, look, end) = (Rc::clone(&scripts), Rc::clone(&ready), Rc::clone(&done));
        scripts.start(async move {
            inner.until(|| look.get().then_some(())).await;
            end.set(true);
        });
        scripts.run();
        assert!(scripts.is_waiting() && !done.get());
        ready.set(true);
        scripts.run();
        assert!(!scripts.is_waiting() && done.get());
    }
}
