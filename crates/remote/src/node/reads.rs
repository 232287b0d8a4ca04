//! Reads: each on a link of its own, in the thread of whoever waits.
//!
//! - A link with an answer outstanding is never lent: it is late, and comes back when the worker has heard from it.

use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::{IDLE_MAX, Node, READERS_MAX, Readers, lock};
use crate::link::{Command, Link, LinkError, Reply};

/// Commands that were sent and whose answers come.
pub(crate) struct Exchange<'a> {
    node: &'a Node,
    link: Option<Box<dyn Link>>,
    outstanding: usize,
    generation: u64,
}

impl Node {
    /// Sends commands on a link of the caller's own.
    pub(crate) fn begin(
        &self,
        commands: &[Command],
        within: Duration,
    ) -> Result<Exchange<'_>, LinkError> {
        if self.is_open() {
            return Err(LinkError::Down);
        }
        let (link, generation) = self.borrow(within)?;
        let mut exchange = Exchange {
            node: self,
            link: None,
            outstanding: 0,
            generation,
        };
        let mut link = match link {
            Some(link) => link,
            None => self.connect(within.max(self.rules.timeouts.hedge_min * 20))?,
        };
        if let Err(error) = link.send(commands) {
            self.broken(&error);
            return Err(error);
        }
        exchange.link = Some(link);
        exchange.outstanding = commands.len();
        Ok(exchange)
    }

    /// A link that is idle, or leave to make one.
    fn borrow(&self, within: Duration) -> Result<(Option<Box<dyn Link>>, u64), LinkError> {
        let mut readers = lock(&self.readers);
        if readers.idle.is_empty()
            && readers.lent + readers.late.len() >= READERS_MAX
            && !self.rules.clock.is_simulated()
        {
            let is_full =
                |r: &mut Readers| r.idle.is_empty() && r.lent + r.late.len() >= READERS_MAX;
            readers.waiting += 1;
            let waited = self
                .readers_changed
                .wait_timeout_while(readers, within, is_full);
            readers = waited.unwrap_or_else(PoisonError::into_inner).0;
            readers.waiting -= 1;
        }
        let link = readers.idle.pop();
        if link.is_none() && readers.lent + readers.late.len() >= READERS_MAX {
            return Err(LinkError::Busy);
        }
        readers.lent += 1;
        Ok((link, readers.generation))
    }

    fn connect(&self, within: Duration) -> Result<Box<dyn Link>, LinkError> {
        let within = within.min(self.rules.timeouts.connect);
        let link = self.network.connect(&self.address, within);
        if let Err(error) = &link {
            self.give_back();
            self.failed(error);
        }
        link
    }

    fn give_back(&self) {
        lock(&self.readers).lent -= 1;
        self.readers_changed.notify_one();
    }

    /// A lent link broke: the idle ones are as old.
    fn broken(&self, error: &LinkError) {
        {
            let mut readers = lock(&self.readers);
            readers.lent -= 1;
            readers.idle.clear();
            readers.generation += 1;
        }
        self.readers_changed.notify_one();
        self.failed(error);
    }

    pub(super) fn failed(&self, _error: &LinkError) {
        let opened = lock(&self.breaker).failed(self.rules.clock.now());
        if opened {
            self.give_up_links();
        }
    }

    pub(super) fn give_up_links(&self) {
        let (idle, late) = {
            let mut readers = lock(&self.readers);
            readers.generation += 1;
            (
                std::mem::take(&mut readers.idle),
                std::mem::take(&mut readers.late),
            )
        };
        drop((idle, late));
        self.nudge();
    }
}

impl Exchange<'_> {
    /// The answer to the oldest command that has none.
    pub(crate) fn next(&mut self, within: Duration) -> Result<Reply, LinkError> {
        let Some(mut link) = self.link.take() else {
            return Err(LinkError::Broken("the connection is gone".to_owned()));
        };
        match link.receive(within) {
            Ok(reply) => {
                self.outstanding -= 1;
                if self.outstanding == 0 {
                    lock(&self.node.breaker).answered();
                }
                self.link = Some(link);
                Ok(reply)
            }
            Err(LinkError::Timeout) => {
                self.node.late(link, self.outstanding, self.generation);
                Err(LinkError::Timeout)
            }
            Err(error) => {
                self.node.broken(&error);
                Err(error)
            }
        }
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        let Some(link) = self.link.take() else {
            return;
        };
        let mut readers = lock(&self.node.readers);
        readers.lent -= 1;
        // With an answer outstanding it would be given to the next reader.
        if self.outstanding == 0
            && readers.generation == self.generation
            && readers.idle.len() < IDLE_MAX
        {
            readers.idle.push(link);
        }
        let is_waited_for = readers.waiting > 0;
        drop(readers);
        // Each page comes by here, and to wake nobody is a system call too.
        if is_waited_for {
            self.node.readers_changed.notify_one();
        }
    }
}

impl Node {
    fn late(&self, link: Box<dyn Link>, outstanding: usize, generation: u64) {
        self.reads_late.fetch_add(1, Relaxed);
        {
            let mut readers = lock(&self.readers);
            readers.lent -= 1;
            if outstanding == 1 && readers.generation == generation {
                readers.late.push(link);
            }
        }
        self.readers_changed.notify_one();
        if lock(&self.breaker).was_late(self.rules.clock.now()) {
            self.give_up_links();
        } else {
            self.nudge();
        }
    }
}
