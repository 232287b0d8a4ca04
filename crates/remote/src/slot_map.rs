//! Which slots of a cluster are on which nodes, as a node tells it.
//!
//! Off the data path: read when a cluster is first asked, and when anything was
//! unexpected. Source: the command `CLUSTER SLOTS` of Valkey and Redis.

use crate::endpoint::Address;
use crate::link::Reply;
use crate::slots::SLOTS;

/// An address that a node named, spoken to as the node is.
pub(crate) fn beside(from: &Address, host: String, port: u16) -> Option<Address> {
    let Address::Tcp {
        host: from, tls, ..
    } = from
    else {
        return None;
    };
    let is_unnamed = host.is_empty() || host == "?";
    Some(Address::Tcp {
        host: if is_unnamed { from.clone() } else { host },
        port,
        tls: *tls,
    })
}

/// Reads the answer to `CLUSTER SLOTS`: first and last slot, and the master.
pub(crate) fn slot_runs(reply: &Reply, asked: &Address) -> Option<Vec<(u16, u16, Address)>> {
    let Reply::Array(runs) = reply else {
        return None;
    };
    let slot = |reply: &Reply| match reply {
        Reply::Int(slot) => u16::try_from(*slot)
            .ok()
            .filter(|slot| usize::from(*slot) < SLOTS),
        _ => None,
    };
    let read = |run: &Reply| {
        let Reply::Array(parts) = run else {
            return None;
        };
        let [first, last, Reply::Array(master), ..] = parts.as_slice() else {
            return None;
        };
        let host = match master.first()? {
            Reply::Bytes(host) => String::from_utf8(host.clone()).ok()?,
            _ => String::new(),
        };
        let Reply::Int(port) = master.get(1)? else {
            return None;
        };
        let (first, last) = (slot(first)?, slot(last)?);
        let address = beside(asked, host, u16::try_from(*port).ok()?)?;
        (first <= last).then_some((first, last, address))
    };
    runs.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_of_a_cluster_is_read_and_bad_ones_refused() {
        let asked = Address::Tcp {
            host: "seed".to_owned(),
            port: 1,
            tls: true,
        };
        let run = |first, last, host: Reply, port| {
            let master = Reply::Array(vec![host, Reply::Int(port), Reply::Bytes(b"id".to_vec())]);
            Reply::Array(vec![Reply::Int(first), Reply::Int(last), master])
        };
        let host = |name: &str| Reply::Bytes(name.as_bytes().to_vec());
        let map = Reply::Array(vec![run(0, 9, host("a"), 7), run(10, 16383, Reply::Nil, 8)]);
        let tcp = |host: &str, port| Address::Tcp {
            host: host.to_owned(),
            port,
            tls: true,
        };
        let runs = slot_runs(&map, &asked).unwrap();
        assert_eq!(runs, [(0, 9, tcp("a", 7)), (10, 16383, tcp("seed", 8))]);
        for bad in [
            Reply::Ok,
            Reply::Array(vec![Reply::Nil]),
            Reply::Array(vec![run(0, 16384, host("a"), 7)]),
            Reply::Array(vec![run(9, 0, host("a"), 7)]),
            Reply::Array(vec![run(0, 9, host("a"), 70_000)]),
        ] {
            assert_eq!(slot_runs(&bad, &asked), None, "{bad:?}");
        }
    }
}
