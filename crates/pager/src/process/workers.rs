//! Threads that do for the tracer what takes time. A job may wait long (for a page
//! that waits for room, say), so no job waits for another's end: where all are at
//! work another thread begins, up to a bound.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::sync::{Condvar, Mutex, lock, wait};

/// Work for another thread.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// How long a thread without work stays.
const IDLE: Duration = Duration::from_secs(2);
const STACK_BYTES: usize = 256 << 10;

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    idle: usize,
    threads: usize,
}

/// See the module's description.
pub(crate) struct Workers {
    state: Arc<(Mutex<State>, Condvar)>,
    name: &'static str,
    most: usize,
}

impl Workers {
    /// Workers of which there are at most `most` at a time.
    pub(crate) fn new(name: &'static str, most: usize) -> Workers {
        Workers {
            state: Arc::default(),
            name,
            most,
        }
    }

    /// Has a job done by one of them.
    pub(crate) fn send(&self, job: Job) {
        let (mutex, work) = &*self.state;
        let mut state = lock(mutex);
        state.jobs.push_back(job);
        if state.idle >= state.jobs.len() || state.threads >= self.most {
            work.notify_one();
            return;
        }
        state.threads += 1;
        drop(state);
        let shared = Arc::clone(&self.state);
        let started = thread::Builder::new()
            .name(self.name.to_string())
            .stack_size(STACK_BYTES)
            .spawn(move || serve(&shared));
        if started.is_err() {
            let mut state = lock(mutex);
            state.threads -= 1;
            // Somebody must do it, if it takes ever so long.
            if state.threads == 0
                && let Some(job) = state.jobs.pop_back()
            {
                drop(state);
                job();
            }
        }
    }
}

fn serve((mutex, work): &(Mutex<State>, Condvar)) {
    let mut state = lock(mutex);
    loop {
        if let Some(job) = state.jobs.pop_front() {
            drop(state);
            job();
            state = lock(mutex);
            continue;
        }
        state.idle += 1;
        let start = Instant::now();
        state = wait(work, mutex, state, IDLE);
        state.idle -= 1;
        if start.elapsed() >= IDLE && state.jobs.is_empty() {
            state.threads -= 1;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_job_that_waits_holds_up_no_other() {
        let workers = Workers::new("test", 8);
        let (answer, wait) = mpsc::channel::<()>();
        let wait = Arc::new(Mutex::new(wait));
        let (done, ends) = mpsc::channel();
        for _ in 0..4 {
            let (wait, done) = (Arc::clone(&wait), done.clone());
            workers.send(Box::new(move || {
                let got = lock(&wait).recv_timeout(Duration::from_secs(20));
                let _ = done.send(got.is_ok());
            }));
        }
        workers.send(Box::new(move || {
            let answers = (0..4).map(|_| answer.send(()));
            assert!(answers.into_iter().all(|sent| sent.is_ok()));
        }));
        for _ in 0..4 {
            assert_eq!(ends.recv_timeout(Duration::from_secs(30)), Ok(true));
        }
    }
}
