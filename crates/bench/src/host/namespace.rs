//! A network namespace behind a pair of virtual interfaces: another machine as far as the network goes.

use super::undo::Entry;
use super::{HostError, Undo, files};

/// What the namespace and our end of the pair are called.
const NAME: &str = "zcache-bench";
const OUTSIDE: &str = "zcbench0";
const INSIDE: &str = "zcbench1";

/// The two ends of the link, in a block kept for measurements (RFC 2544).
const OUTSIDE_ADDRESS: &str = "198.18.77.1/30";
const INSIDE_ADDRESS: &str = "198.18.77.2/30";

/// A namespace with one address.
pub(crate) struct Namespace(());

impl Namespace {
    /// Makes the namespace and the link to it.
    ///
    /// # Errors
    /// [`HostError::Command`] when `ip` is not there or refuses.
    pub(crate) fn create(undo: &mut Undo) -> Result<Namespace, HostError> {
        undo.note(Entry::Namespace(NAME.to_owned()))?;
        let ip = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            files::command("ip", &words).map(drop)
        };
        ip(&format!("netns add {NAME}"))?;
        ip(&format!(
            "link add {OUTSIDE} type veth peer name {INSIDE} netns {NAME}"
        ))?;
        ip(&format!("address add {OUTSIDE_ADDRESS} dev {OUTSIDE}"))?;
        ip(&format!("link set {OUTSIDE} up"))?;
        ip(&format!(
            "-n {NAME} address add {INSIDE_ADDRESS} dev {INSIDE}"
        ))?;
        ip(&format!("-n {NAME} link set {INSIDE} up"))?;
        ip(&format!("-n {NAME} link set lo up"))?;
        Ok(Namespace(()))
    }

    /// The address of who is inside.
    pub(crate) fn address(&self) -> &'static str {
        INSIDE_ADDRESS
            .split_once('/')
            .map_or(INSIDE_ADDRESS, |(address, _)| address)
    }

    /// The words before a command that runs inside.
    pub(crate) fn enter(&self) -> impl Iterator<Item = &'static str> {
        ["ip", "netns", "exec", NAME].into_iter()
    }
}

/// Removes a namespace; its end of the link goes with it, and so does ours.
pub(super) fn remove(name: &str) -> Result<(), HostError> {
    let listed = files::command("ip", &["netns", "list"])?;
    let is_there = listed
        .lines()
        .any(|line| line.split(' ').next() == Some(name));
    match is_there {
        true => files::command("ip", &["netns", "delete", name]).map(drop),
        false => Ok(()),
    }
}
