//! What lending comes to with many hosts: the real tier over simulated servers, links and a simulated clock.
//!
//! Each host lends and borrows, two copies of each block: from all others, from a few of them, or through one cluster of all.
//! Measured: connections of a server, RAM of a borrower, commands of a server at rest and while leases are renewed,
//! what is lost when hosts die one after another or at once, and how long until each block has two copies again. Then
//! one borrower alone looks at more and more servers.
//!
//! - The same seed gives the same counts; only the time of a read, which is measured, differs.
//! - Every block is read at the end and compared.

mod hosts;
mod network;
mod report;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::host::HostError;
use hosts::{Found, Hosts};

/// Options of `zcache-bench growth`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// Hosts that lend and borrow
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(8..=250))]
    hosts: u64,
    /// Segments that each of them borrows room for
    #[arg(long, default_value_t = 120)]
    segments: u64,
    /// Seed of everything
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Whom a host borrows from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Layout {
    /// From every other.
    All,
    /// From so many others, spread evenly.
    Few(usize),
    /// From one cluster of all.
    Cluster,
}

impl Layout {
    fn name(self) -> String {
        match self {
            Layout::All => "all others, each by itself".to_owned(),
            Layout::Few(count) => format!("{count} others, each by itself"),
            Layout::Cluster => "one cluster of all".to_owned(),
        }
    }
}

/// How large a simulation is.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    hosts: usize,
    segments: u64,
    blocks_each: u64,
    lease: Duration,
    seed: u64,
}

/// What one layout comes to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outcome {
    layout: Layout,
    /// Of each host.
    blocks: u64,
    /// The most that a server has open, and the most that the tiers would open.
    connections: (u64, u64),
    /// Of a borrower: what its index has, and the rest, mostly for what is on its way.
    ram_bytes: (u64, u64),
    /// Commands a second of the busiest server: at rest, and over a third of a lease.
    commands: (f64, f64),
    losses: Vec<Loss>,
    end: Found,
}

/// Hosts that died at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Loss {
    died: usize,
    /// Blocks lost by then, of all that the living have.
    lost: u64,
    of: u64,
    /// Until each block had two copies again, in seconds; `None` if that did not come.
    repaired_s: Option<f64>,
}

/// What one borrower sees of many servers.
#[derive(Clone, Debug)]
pub(crate) struct View {
    servers: usize,
    layout: Layout,
    ram_bytes: (u64, u64),
    /// Of a block's read, measured, the server's part too: not the same each time.
    read_us: f64,
    error: Option<String>,
}

/// Rules of the losses: one after another, two at once, three at once.
const LOSSES: [usize; 5] = [1, 1, 1, 2, 3];

/// How long a repair may take.
const REPAIR_MAX: Duration = Duration::from_secs(120);

/// Servers that one borrower looks at.
const VIEWS: [(usize, Layout); 7] = [
    (10, Layout::All),
    (100, Layout::All),
    (255, Layout::All),
    (300, Layout::All),
    (10, Layout::Cluster),
    (100, Layout::Cluster),
    (1000, Layout::Cluster),
];

/// Simulates; exit code 1 when a byte was wrong, 2 when it could not be done.
pub(crate) fn run(options: &Options) -> ExitCode {
    let plan = Plan {
        hosts: options.hosts as usize,
        segments: options.segments,
        blocks_each: 4,
        lease: Duration::from_secs(300),
        seed: options.seed,
    };
    let outcomes =
        [Layout::All, Layout::Few(8), Layout::Cluster].map(|layout| simulate(&plan, layout));
    let outcomes: Result<Vec<Outcome>, HostError> = outcomes.into_iter().collect();
    match outcomes {
        Ok(outcomes) => {
            let views: Vec<View> = VIEWS.iter().map(|view| look(&plan, *view)).collect();
            print!("{}", report::markdown(&plan, &outcomes, &views));
            let wrong: u64 = outcomes.iter().map(|outcome| outcome.end.wrong).sum();
            ExitCode::from(u8::from(wrong > 0))
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// One layout from its start to its end.
fn simulate(plan: &Plan, layout: Layout) -> Result<Outcome, HostError> {
    let mut hosts = Hosts::start(plan, layout, plan.hosts)?;
    hosts.pass(Duration::from_secs(3));
    // So that each tier has connections for reads too.
    let before = hosts.read_all();
    let servers = 0..plan.hosts;
    let rest = busiest(&hosts, plan, Duration::from_secs(10));
    let lease = busiest(&hosts, plan, plan.lease / 3);
    let nodes = hosts
        .stats()
        .iter()
        .map(|stats| stats.nodes.len() as u64)
        .sum::<u64>();
    let connections = (
        servers
            .clone()
            .map(|server| hosts.load(server).0)
            .max()
            .unwrap_or(0),
        nodes * zcache_remote::LINKS_MAX as u64 / plan.hosts as u64,
    );
    let ram_bytes = hosts.ram_bytes(0);
    let mut losses = Vec::new();
    let mut found = before;
    for died in LOSSES {
        let lost_before = found.lost;
        hosts.lose(died);
        let repaired_s = repair(&hosts);
        found = hosts.read_all();
        losses.push(Loss {
            died,
            lost: found.lost.saturating_sub(lost_before),
            of: found.right + found.lost,
            repaired_s,
        });
    }
    Ok(Outcome {
        layout,
        blocks: plan.segments * plan.blocks_each,
        connections,
        ram_bytes,
        commands: (rest, lease),
        losses,
        end: found,
    })
}

/// Commands a second of the busiest server.
fn busiest(hosts: &Hosts, plan: &Plan, time: Duration) -> f64 {
    let commands = || {
        (0..plan.hosts)
            .map(|server| hosts.load(server).1)
            .collect::<Vec<_>>()
    };
    let before = commands();
    hosts.pass(time);
    let most = commands()
        .into_iter()
        .zip(before)
        .map(|(after, before)| after - before)
        .max();
    most.unwrap_or(0) as f64 / time.as_secs_f64()
}

/// Lets time pass until no tier has a block with one copy less than wanted.
fn repair(hosts: &Hosts) -> Option<f64> {
    let step = Duration::from_secs(1);
    let mut time = Duration::ZERO;
    while time < REPAIR_MAX {
        hosts.pass(step);
        time += step;
        if hosts.short_of_copies() == 0 {
            return Some(time.as_secs_f64());
        }
    }
    None
}

/// One borrower alone.
fn look(plan: &Plan, (servers, layout): (usize, Layout)) -> View {
    let plan = Plan {
        hosts: servers + usize::from(layout == Layout::All),
        segments: 2000,
        ..plan.clone()
    };
    let mut view = View {
        servers,
        layout,
        ram_bytes: (0, 0),
        read_us: 0.0,
        error: None,
    };
    match Hosts::start(&plan, layout, 1) {
        Ok(hosts) => {
            let begun = Instant::now();
            let found = hosts.read_all();
            let reads = found.right + found.lost;
            view.read_us = begun.elapsed().as_secs_f64() * 1e6 / reads.max(1) as f64;
            view.ram_bytes = hosts.ram_bytes(0);
        }
        Err(error) => view.error = Some(error.to_string()),
    }
    view
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A short form of the simulation: a dozen hosts.
    #[test]
    fn hosts_lend_and_borrow_and_one_death_at_a_time_loses_nothing() {
        let plan = Plan {
            hosts: 12,
            segments: 20,
            blocks_each: 3,
            lease: Duration::from_secs(300),
            seed: 3,
        };
        for layout in [Layout::All, Layout::Few(4), Layout::Cluster] {
            let outcome = simulate(&plan, layout).unwrap();
            for loss in outcome.losses.iter().filter(|loss| loss.died == 1) {
                assert_eq!(loss.lost, 0, "{outcome:?}");
                assert!(loss.repaired_s.is_some(), "{outcome:?}");
            }
            assert_eq!(outcome.end.wrong, 0);
            // Not a window for each server: what is on its way is one queue's.
            assert!(outcome.ram_bytes.1 < 4 << 20, "{outcome:?}");
            assert_eq!(outcome, simulate(&plan, layout).unwrap(), "a seed repeats");
        }
    }
}
