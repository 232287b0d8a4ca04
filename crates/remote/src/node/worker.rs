//! The worker: writes, chores, probes, and what it finds out of the server.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::{
    Aftermath, Chore, Done, FULL_WAIT, IDLE_MAX, IDLE_PING, Job, NOTICE_PERIOD, Node, Work, Worker,
    WriteError, lock,
};
use crate::index::Home;
use crate::link::{Command, LinkError, Reply};
use crate::segment::SegmentId;

/// A command on its way, and whose it is.
enum Flown {
    Put(Job),
    Item(Chore, SegmentId, Home, u8),
    Items(Vec<(SegmentId, Home)>),
    Asking,
    Wait,
    Mark,
    Notice,
}

impl Node {
    /// Does what there is to do. `marker` gives a tag of this node's.
    pub(crate) fn turn(&self, marker: &dyn Fn() -> Option<u16>) -> Vec<Aftermath> {
        let mut worker = lock(&self.worker);
        let mut after = Vec::new();
        let now = self.rules.clock.now();
        if !lock(&self.breaker).allows(now) {
            worker.link = None;
            self.fail_all(&LinkError::Down, &mut after);
            return after;
        }
        let is_open = self.is_open();
        if (worker.link.is_none() || is_open)
            && let Err(error) = self.greet(&mut worker, marker, &mut after)
        {
            worker.link = None;
            self.failed(&error);
            self.fail_all(&error, &mut after);
            after.push(Aftermath::Unsure);
            return after;
        }
        if is_open {
            lock(&self.breaker).close();
        }
        self.hear_late_ones();
        if let Err(error) = self.work(&mut worker, &mut after) {
            worker.link = None;
            self.failed(&error);
            after.push(Aftermath::Unsure);
        }
        after
    }

    fn fail_all(&self, error: &LinkError, after: &mut Vec<Aftermath>) {
        while let Some(job) = self.pop() {
            match job.work {
                Work::Chore(chore, items) => {
                    let undone = |(id, home)| Aftermath::Undone(chore, id, home);
                    after.extend(items.into_iter().map(undone));
                }
                Work::Put(_) => job.fail(WriteError::Link(error.clone())),
            }
        }
    }

    /// Connects, and finds out whether the server still has what it was given.
    fn greet(
        &self,
        worker: &mut Worker,
        marker: &dyn Fn() -> Option<u16>,
        after: &mut Vec<Aftermath>,
    ) -> Result<(), LinkError> {
        let timeouts = &self.rules.timeouts;
        worker.link = None;
        let mut link = self.network.connect(&self.address, timeouts.connect)?;
        link.send(&[Command::Ping])?;
        match link.receive(timeouts.connect)? {
            Reply::Ok => {}
            // The server is there but not yet, or not for us.
            other => return Err(LinkError::unexpected(&other)),
        }
        if let Some(tag) = worker.marker {
            link.send(&[Command::Get(self.rules.keys.marker(tag))])?;
            if link.receive(timeouts.write)? == Reply::Nil {
                after.push(Aftermath::Emptied);
            }
        }
        if let Some(tag) = marker() {
            link.send(&[self.mark(tag)])?;
            worker.marker = (link.receive(timeouts.write)? == Reply::Ok).then_some(tag);
        }
        worker.link = Some(link);
        worker.heard_at = self.rules.clock.now();
        worker.marked_at = worker.heard_at;
        Ok(())
    }

    fn mark(&self, tag: u16) -> Command {
        let key = self.rules.keys.marker(tag);
        Command::Set(key, Arc::new(b"1".to_vec()), self.rules.lease_s)
    }

    /// Links whose answer came too late are idle again once they answered.
    fn hear_late_ones(&self) {
        let late = std::mem::take(&mut lock(&self.readers).late);
        for mut link in late {
            let heard = link.send(&[Command::Ping]);
            let heard = heard.and_then(|()| link.receive(self.rules.timeouts.read));
            if heard == Ok(Reply::Ok) {
                lock(&self.breaker).answered();
                let mut readers = lock(&self.readers);
                if readers.idle.len() < IDLE_MAX {
                    readers.idle.push(link);
                }
            } else if lock(&self.breaker).failed(self.rules.clock.now()) {
                self.give_up_links();
                return;
            }
            self.readers_changed.notify_one();
        }
    }

    fn work(&self, worker: &mut Worker, after: &mut Vec<Aftermath>) -> Result<(), LinkError> {
        let mut flight: VecDeque<Flown> = VecDeque::new();
        let mut unconfirmed: Vec<Job> = Vec::new();
        let worked = self.exchange(worker, &mut flight, &mut unconfirmed, after);
        if let Err(error) = &worked {
            for flown in flight {
                match flown {
                    Flown::Put(job) => job.fail(WriteError::Link(error.clone())),
                    Flown::Item(chore, id, home, _) => {
                        after.push(Aftermath::Undone(chore, id, home));
                    }
                    Flown::Items(items) => {
                        let undone = |(id, home)| Aftermath::Undone(Chore::Unlink, id, home);
                        after.extend(items.into_iter().map(undone));
                    }
                    Flown::Asking | Flown::Wait | Flown::Mark | Flown::Notice => {}
                }
            }
            for job in unconfirmed {
                job.fail(WriteError::Link(error.clone()));
            }
        }
        worked
    }

    fn exchange(
        &self,
        worker: &mut Worker,
        flight: &mut VecDeque<Flown>,
        unconfirmed: &mut Vec<Job>,
        after: &mut Vec<Aftermath>,
    ) -> Result<(), LinkError> {
        let timeouts = &self.rules.timeouts;
        let mut bytes = 0;
        loop {
            let mut batch = Vec::new();
            // With replicas to wait for, one batch at a time is confirmed.
            while bytes < self.rules.window_bytes_max
                && (!self.rules.waits || flight.is_empty() || !batch.is_empty())
            {
                let Some(job) = self.pop() else { break };
                bytes += job.bytes();
                self.encode(job, &mut batch, flight);
            }
            self.add_mark(worker, &mut batch, flight);
            if !batch.is_empty() && self.notice_is_due(worker) {
                batch.push(self.ask_for_notice());
                flight.push_back(Flown::Notice);
            }
            if self.rules.waits
                && flight.iter().any(|flown| matches!(flown, Flown::Put(_)))
                && !batch.is_empty()
            {
                let millis = timeouts.write.as_millis() as u64 / 2;
                batch.push(Command::Wait(1, millis.max(1)));
                flight.push_back(Flown::Wait);
            }
            let Some(link) = worker.link.as_mut() else {
                return Err(LinkError::Down);
            };
            if !batch.is_empty() {
                link.send(&batch)?;
            }
            if flight.is_empty() {
                return self.ask_whether_there(worker, after);
            }
            let reply = link.receive(timeouts.write)?;
            worker.heard_at = self.rules.clock.now();
            let Some(flown) = flight.pop_front() else {
                return Ok(());
            };
            bytes -= match &flown {
                Flown::Put(job) => job.bytes(),
                Flown::Item(..) => 64,
                Flown::Items(items) => items.len() as u64 * 64,
                Flown::Asking | Flown::Wait | Flown::Mark | Flown::Notice => 0,
            };
            self.landed(flown, reply, unconfirmed, worker, after);
        }
    }

    fn notice_is_due(&self, worker: &mut Worker) -> bool {
        let now = self.rules.clock.now();
        let is_due = now >= worker.noticed_at + NOTICE_PERIOD;
        if is_due {
            worker.noticed_at = now;
        }
        is_due
    }

    fn ask_for_notice(&self) -> Command {
        Command::Get(self.rules.keys.notice())
    }

    /// Only a notice is one: a cluster has none, and may say that the key is elsewhere.
    fn noticed(&self, reply: &Reply, after: &mut Vec<Aftermath>) {
        let leaves = matches!(reply, Reply::Bytes(_));
        self.leaves.store(leaves, Relaxed);
        if leaves {
            after.push(Aftermath::Leaves);
        }
    }

    fn ask_whether_there(
        &self,
        worker: &mut Worker,
        after: &mut Vec<Aftermath>,
    ) -> Result<(), LinkError> {
        let now = self.rules.clock.now();
        let Some(link) = worker.link.as_mut() else {
            return Ok(());
        };
        if now < worker.heard_at + IDLE_PING {
            return Ok(());
        }
        link.send(&[Command::Ping, self.ask_for_notice()])?;
        let there = link.receive(self.rules.timeouts.read)?;
        if there != Reply::Ok {
            return Err(LinkError::unexpected(&there));
        }
        let notice = link.receive(self.rules.timeouts.read)?;
        worker.heard_at = self.rules.clock.now();
        worker.noticed_at = worker.heard_at;
        lock(&self.breaker).answered();
        self.noticed(&notice, after);
        Ok(())
    }

    fn add_mark(
        &self,
        worker: &mut Worker,
        batch: &mut Vec<Command>,
        flight: &mut VecDeque<Flown>,
    ) {
        let now = self.rules.clock.now();
        let third = Duration::from_secs(self.rules.lease_s) / 3;
        if let Some(tag) = worker.marker
            && now >= worker.marked_at + third
        {
            batch.push(self.mark(tag));
            flight.push_back(Flown::Mark);
            worker.marked_at = now;
        }
    }

    fn encode(&self, job: Job, batch: &mut Vec<Command>, flight: &mut VecDeque<Flown>) {
        let keys = &self.rules.keys;
        if let Work::Put(put) = &job.work {
            if job.asking {
                batch.push(Command::Asking);
                flight.push_back(Flown::Asking);
            }
            let key = keys.segment(put.home.tag, put.id);
            batch.push(Command::Set(
                key,
                Arc::clone(&put.value),
                self.rules.lease_s,
            ));
            flight.push_back(Flown::Put(job));
            return;
        }
        let Work::Chore(chore, items) = job.work else {
            return;
        };
        // Keys of one tag are in one slot, and of a server by itself all are of one tag.
        let one_tag = items.windows(2).all(|pair| pair[0].1 == pair[1].1);
        if chore == Chore::Unlink && one_tag && !job.asking {
            let names = items.iter().map(|(id, home)| keys.segment(home.tag, *id));
            batch.push(Command::Unlink(names.collect()));
            flight.push_back(match items.as_slice() {
                [(id, home)] => Flown::Item(chore, *id, *home, job.hops),
                _ => Flown::Items(items),
            });
            return;
        }
        for (id, home) in items {
            if job.asking {
                batch.push(Command::Asking);
                flight.push_back(Flown::Asking);
            }
            let key = keys.segment(home.tag, id);
            batch.push(match chore {
                Chore::Unlink => Command::Unlink(vec![key]),
                Chore::Expire => Command::Expire(key, self.rules.lease_s),
            });
            flight.push_back(Flown::Item(chore, id, home, job.hops));
        }
    }

    fn landed(
        &self,
        flown: Flown,
        reply: Reply,
        unconfirmed: &mut Vec<Job>,
        worker: &mut Worker,
        after: &mut Vec<Aftermath>,
    ) {
        let redirect = reply.redirect();
        match flown {
            Flown::Put(job) => {
                let Work::Put(put) = &job.work else { return };
                let home = put.home;
                match (reply, redirect) {
                    (_, Some((asking, host, port))) => after.push(Aftermath::Redirected {
                        job,
                        home,
                        asking,
                        host,
                        port,
                    }),
                    (Reply::Ok, _) if self.rules.waits => unconfirmed.push(job),
                    (Reply::Ok, _) => (put.report)(Done {
                        id: put.id,
                        result: Ok(()),
                    }),
                    (Reply::Refused { code, .. }, _) if code == "OOM" => {
                        *lock(&self.full_until) = self.rules.clock.now() + FULL_WAIT;
                        job.fail(WriteError::Full);
                    }
                    (reply, _) => {
                        after.push(Aftermath::Unsure);
                        job.fail(WriteError::Refused(
                            LinkError::unexpected(&reply).to_string(),
                        ));
                    }
                }
            }
            Flown::Wait => {
                let replicated = matches!(reply, Reply::Int(replicas) if replicas >= 1);
                for job in std::mem::take(unconfirmed) {
                    let Work::Put(put) = &job.work else { continue };
                    let result = match replicated {
                        true => Ok(()),
                        false => Err(WriteError::Unreplicated),
                    };
                    (put.report)(Done { id: put.id, result });
                }
            }
            Flown::Item(chore, id, home, hops) => match (chore, reply, redirect) {
                (_, _, Some((asking, host, port))) => after.push(Aftermath::Redirected {
                    job: Job {
                        work: Work::Chore(chore, vec![(id, home)]),
                        hops,
                        asking: false,
                    },
                    home,
                    asking,
                    host,
                    port,
                }),
                (Chore::Expire, Reply::Int(0), _) => after.push(Aftermath::Missing(id, home)),
                (_, Reply::Refused { .. }, _) => after.push(Aftermath::Undone(chore, id, home)),
                _ => {}
            },
            Flown::Notice => self.noticed(&reply, after),
            Flown::Mark if reply != Reply::Ok => worker.marker = None,
            // Of one slot: each is followed by itself where that has moved.
            Flown::Items(items) if matches!(reply, Reply::Refused { .. }) => {
                let undone = |(id, home)| Aftermath::Undone(Chore::Unlink, id, home);
                after.extend(items.into_iter().map(undone));
            }
            Flown::Items(_) | Flown::Asking | Flown::Mark => {}
        }
    }
}
