//! The jobs that wait for the worker, within a window of bytes.

use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::{CHORES_WAITING_MAX, HOPS_MAX, Job, Node, Queue, Work, WriteError, lock};
use crate::link::LinkError;

impl Node {
    /// Queues a job. One that may wait does so for room in the window; others
    /// are bounded by whoever sends them.
    ///
    /// # Errors
    /// The job, when there is no room.
    pub(crate) fn submit(&self, job: Job, may_wait: Duration) -> Result<(), Job> {
        let mut queue = lock(&self.queue);
        let max = self.rules.window_bytes_max * 4;
        if !may_wait.is_zero() && queue.bytes > max {
            if !self.rules.clock.is_simulated() {
                let is_full = |queue: &mut Queue| queue.bytes > max;
                let waited = self
                    .queue_changed
                    .wait_timeout_while(queue, may_wait, is_full);
                queue = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            if queue.bytes > max {
                return Err(job);
            }
        }
        if let Work::Chore(_, items) = &job.work {
            if queue.chores + items.len() > CHORES_WAITING_MAX {
                self.chores_left.fetch_add(items.len() as u64, Relaxed);
                return Ok(());
            }
            queue.chores += items.len();
        }
        queue.bytes += job.bytes();
        queue.jobs.push_back(job);
        drop(queue);
        self.queue_changed.notify_all();
        Ok(())
    }

    /// Sends a job after where the cluster said it belongs.
    pub(crate) fn submit_redirected(&self, mut job: Job, asking: bool) {
        job.hops += 1;
        job.asking = asking;
        if job.hops > HOPS_MAX {
            job.fail(WriteError::Refused("redirected too often".to_owned()));
        } else if let Err(job) = self.submit(job, Duration::ZERO) {
            job.fail(WriteError::Link(LinkError::Busy));
        }
    }

    /// Whether jobs wait or are under way at a node that answers, or it is about to be
    /// known whether it does.
    pub(crate) fn is_busy(&self) -> bool {
        let is_asked = lock(&self.breaker).allows(self.rules.clock.now());
        is_asked && (self.is_open() || self.has_jobs()) || self.worker.try_lock().is_err()
    }

    /// Has the worker find out at once whether a node that is not asked answers again.
    pub(crate) fn probe_soon(&self) {
        lock(&self.breaker).probe_soon(self.rules.clock.now());
        self.nudge();
    }

    pub(crate) fn has_jobs(&self) -> bool {
        !lock(&self.queue).jobs.is_empty()
    }

    /// Has the worker look.
    pub(crate) fn nudge(&self) {
        lock(&self.queue).nudged = true;
        self.queue_changed.notify_all();
    }

    /// Waits until there is something to do, or so long.
    pub(crate) fn wait_for_work(&self, most: Duration) {
        let is_idle = |queue: &mut Queue| queue.jobs.is_empty() && !queue.nudged;
        let waited = self
            .queue_changed
            .wait_timeout_while(lock(&self.queue), most, is_idle);
        waited.unwrap_or_else(PoisonError::into_inner).0.nudged = false;
    }

    pub(super) fn pop(&self) -> Option<Job> {
        let mut queue = lock(&self.queue);
        let job = queue.jobs.pop_front()?;
        queue.bytes -= job.bytes();
        if let Work::Chore(_, items) = &job.work {
            queue.chores -= items.len();
        }
        drop(queue);
        self.queue_changed.notify_all();
        Some(job)
    }
}
