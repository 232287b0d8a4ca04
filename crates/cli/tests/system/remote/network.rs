//! Two network namespaces with a line between them that can be cut: the tests' own, and one where a server is.

use crate::support::{tool, tree};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

/// The other namespace and its line.
pub(super) struct Line {
    namespace: String,
    /// This side's end.
    end: String,
    number: u8,
}

fn ip(words: &[&str]) {
    tool("iproute2", Command::new("ip").args(words));
}

impl Line {
    pub(super) fn new() -> Line {
        tree::need_root();
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = std::process::id();
        let line = Line {
            namespace: format!("zcache-test-{id}-{number}"),
            end: format!("zt{id}n{number}"),
            number,
        };
        let (namespace, end) = (line.namespace.as_str(), line.end.as_str());
        ip(&["netns", "add", namespace]);
        ip(&[
            "link", "add", end, "type", "veth", "peer", "name", "lender", "netns", namespace,
        ]);
        ip(&[
            "addr",
            "add",
            &format!("{}/30", line.address(1)),
            "dev",
            end,
        ]);
        ip(&["link", "set", end, "up"]);
        let there = format!("{}/30", line.there());
        ip(&["-n", namespace, "addr", "add", &there, "dev", "lender"]);
        ip(&["-n", namespace, "link", "set", "lender", "up"]);
        line
    }

    fn address(&self, host: u8) -> String {
        // 198.18.0.0/15 is kept free for tests of networks (RFC 2544).
        format!("198.19.{}.{host}", self.number)
    }

    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The other side's address.
    pub(super) fn there(&self) -> String {
        self.address(2)
    }

    /// What is sent arrives nowhere, and nobody is told.
    pub(super) fn cut(&self) {
        ip(&["-n", &self.namespace, "link", "set", "lender", "down"]);
    }

    pub(super) fn heal(&self) {
        ip(&["-n", &self.namespace, "link", "set", "lender", "up"]);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let mut delete = Command::new("ip");
        let _ = delete.args(["link", "del", &self.end]).output();
        let mut delete = Command::new("ip");
        let _ = delete.args(["netns", "del", &self.namespace]).output();
    }
}
