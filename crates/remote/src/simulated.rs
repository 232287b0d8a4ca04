//! Servers that are simulated, with a clock of their own, for tests and for the
//! growth of a network on paper.
//!
//! The fault model: a connection may break before a command is carried out, or
//! after it and before its reply; a reply may be late, and then nobody gets it;
//! a value may come back with one bit flipped. A server may be down, hang, be
//! full, come back empty or with what it had at some earlier time, and its slots
//! may be another's. Faults are drawn from a seed, so a run repeats.
//!
//! - A key that is stored twice with different values, or again after it was
//!   given back, is a bug of the tier and panics; keys that mark or try are not
//!   segments.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::endpoint::Address;
use crate::link::{Command, Link, LinkError, Network, Reply};
use crate::slots::{SLOTS, slot_of_key};

/// Which faults happen how often, out of 65,536 commands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// The connection breaks before the command is carried out.
    pub break_before_rate: u16,
    /// The connection breaks after it.
    pub break_after_rate: u16,
    /// The reply comes too late.
    pub late_rate: u16,
    /// A value comes back with one wrong bit.
    pub bit_flip_rate: u16,
}

/// Servers and what lies between.
#[derive(Clone)]
pub struct SimulatedNetwork {
    state: Arc<Mutex<State>>,
    now_ns: Arc<AtomicU64>,
    round_trip: Duration,
}

struct State {
    servers: Vec<Server>,
    /// For each slot of a cluster its server; empty without one.
    map: Vec<usize>,
    faults: Faults,
    random: u64,
}

struct Server {
    address: Address,
    keys: BTreeMap<String, Stored>,
    /// Every segment that was ever stored: a checksum of its value, and whether
    /// it was given back.
    ever: HashMap<String, (u32, bool)>,
    snapshot: BTreeMap<String, Stored>,
    bytes: u64,
    bytes_max: u64,
    is_down: bool,
    hangs: bool,
    /// Grows with each restart; connections are of one life.
    life: u64,
    commands: u64,
    connections: u64,
}

#[derive(Clone)]
struct Stored {
    value: Arc<Vec<u8>>,
    expires_ns: u64,
}

struct SimulatedLink {
    network: SimulatedNetwork,
    server: usize,
    life: u64,
    replies: std::collections::VecDeque<Reply>,
    broken: bool,
    asking: bool,
}

impl SimulatedNetwork {
    /// So many servers, at the addresses `server-0:1` and so on.
    #[must_use]
    pub fn new(seed: u64, servers: usize, round_trip: Duration) -> SimulatedNetwork {
        let server = |n| Server {
            address: SimulatedNetwork::address(n),
            keys: BTreeMap::new(),
            ever: HashMap::new(),
            snapshot: BTreeMap::new(),
            bytes: 0,
            bytes_max: u64::MAX,
            is_down: false,
            hangs: false,
            life: 0,
            commands: 0,
            connections: 0,
        };
        SimulatedNetwork {
            state: Arc::new(Mutex::new(State {
                servers: (0..servers).map(server).collect(),
                map: Vec::new(),
                faults: Faults::default(),
                random: seed,
            })),
            now_ns: Arc::default(),
            round_trip,
        }
    }

    /// The address of a server.
    #[must_use]
    pub fn address(server: usize) -> Address {
        Address::Tcp {
            host: format!("server-{server}"),
            port: 1,
            tls: true,
        }
    }

    /// The clock that these servers go by.
    #[must_use]
    pub fn clock(&self) -> Clock {
        Clock::Simulated(Arc::clone(&self.now_ns))
    }

    /// Makes the servers a cluster whose slots are spread evenly.
    pub fn cluster(&self) {
        let mut state = self.state();
        let servers = state.servers.len();
        state.map = (0..SLOTS).map(|slot| slot * servers / SLOTS).collect();
    }

    /// Moves slots with all they hold to a server.
    pub fn move_slots(&self, first: usize, count: usize, to: usize) {
        let mut state = self.state();
        for slot in first..(first + count).min(SLOTS) {
            let from = std::mem::replace(&mut state.map[slot], to);
            if from == to {
                continue;
            }
            let in_slot = |key: &String| usize::from(slot_of_key(key)) == slot;
            let keys: Vec<String> = state.servers[from]
                .keys
                .keys()
                .filter(|k| in_slot(k))
                .cloned()
                .collect();
            for key in keys {
                if let Some(stored) = state.servers[from].keys.remove(&key) {
                    let len = stored.value.len() as u64;
                    state.servers[from].bytes -= len;
                    state.servers[to].bytes += len;
                    state.servers[to].keys.insert(key, stored);
                }
            }
        }
    }

    /// Changes which faults happen from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// Takes a server down or up; connections break.
    pub fn set_down(&self, server: usize, is_down: bool) {
        let server = &mut self.state().servers[server];
        server.is_down = is_down;
        server.life += 1;
    }

    /// Has a server answer nothing, as one that is stopped.
    pub fn set_hangs(&self, server: usize, hangs: bool) {
        self.state().servers[server].hangs = hangs;
    }

    /// The most bytes of values that a server takes.
    pub fn set_bytes_max(&self, server: usize, bytes_max: u64) {
        self.state().servers[server].bytes_max = bytes_max;
    }

    /// Keeps what a server has now for a later [`restart`](Self::restart).
    pub fn snapshot(&self, server: usize) {
        let server = &mut self.state().servers[server];
        server.snapshot = server.keys.clone();
    }

    /// Restarts a server: empty, or with what its last snapshot has.
    pub fn restart(&self, server: usize, with_snapshot: bool) {
        let server = &mut self.state().servers[server];
        server.keys = match with_snapshot {
            true => server.snapshot.clone(),
            false => BTreeMap::new(),
        };
        server.bytes = server
            .keys
            .values()
            .map(|stored| stored.value.len() as u64)
            .sum();
        server.life += 1;
    }

    /// Lets time pass.
    pub fn pass(&self, time: Duration) {
        self.now_ns.fetch_add(time.as_nanos() as u64, Relaxed);
    }

    /// Keys of a server that have not expired.
    #[must_use]
    pub fn keys(&self, server: usize) -> usize {
        let now = self.now_ns.load(Relaxed);
        let keys = &self.state().servers[server].keys;
        keys.values()
            .filter(|stored| stored.expires_ns > now)
            .count()
    }

    /// Bytes of a server's values.
    #[must_use]
    pub fn bytes(&self, server: usize) -> u64 {
        self.state().servers[server].bytes
    }

    /// Commands that a server carried out, and connections it was asked for.
    #[must_use]
    pub fn load(&self, server: usize) -> (u64, u64) {
        let server = &self.state().servers[server];
        (server.commands, server.connections)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Network for SimulatedNetwork {
    fn connect(&self, address: &Address, within: Duration) -> Result<Box<dyn Link>, LinkError> {
        self.pass(self.round_trip);
        let mut state = self.state();
        let found = state
            .servers
            .iter()
            .position(|server| server.address == *address);
        let Some(at) = found else {
            return Err(LinkError::Broken("no such host".to_owned()));
        };
        let server = &mut state.servers[at];
        server.connections += 1;
        if server.is_down {
            return Err(LinkError::Broken("connection refused".to_owned()));
        }
        if server.hangs {
            drop(state);
            self.pass(within);
            return Err(LinkError::Timeout);
        }
        Ok(Box::new(SimulatedLink {
            network: self.clone(),
            server: at,
            life: server.life,
            replies: std::collections::VecDeque::new(),
            broken: false,
            asking: false,
        }))
    }
}

impl SimulatedLink {
    fn broken(&mut self) -> LinkError {
        self.broken = true;
        LinkError::Broken("connection reset".to_owned())
    }
}

impl Link for SimulatedLink {
    fn send(&mut self, commands: &[Command]) -> Result<(), LinkError> {
        let network = self.network.clone();
        let state = &mut *network.state();
        let now = network.now_ns.load(Relaxed);
        for command in commands {
            let server = &state.servers[self.server];
            if self.broken || server.is_down || server.life != self.life {
                return Err(self.broken());
            }
            if state.happens(state.faults.break_before_rate) {
                return Err(self.broken());
            }
            let asking = std::mem::replace(&mut self.asking, matches!(command, Command::Asking));
            let reply = state.carry_out(self.server, command, now, asking);
            let breaks = state.happens(state.faults.break_after_rate);
            self.replies.push_back(reply);
            if breaks {
                return Err(self.broken());
            }
        }
        Ok(())
    }

    fn receive(&mut self, within: Duration) -> Result<Reply, LinkError> {
        let network = self.network.clone();
        let mut guard = network.state();
        let state = &mut *guard;
        let server = &state.servers[self.server];
        if self.broken || server.is_down || server.life != self.life {
            return Err(self.broken());
        }
        let hangs = server.hangs;
        let reply = self.replies.pop_front();
        if hangs || state.happens(state.faults.late_rate) || reply.is_none() {
            drop(guard);
            network.pass(within);
            return Err(LinkError::Timeout);
        }
        let mut reply = reply.unwrap_or(Reply::Nil);
        if let Reply::Bytes(bytes) = &mut reply
            && !bytes.is_empty()
            && state.happens(state.faults.bit_flip_rate)
        {
            let bit = state.draw() as usize % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        drop(guard);
        network.pass(network.round_trip);
        Ok(reply)
    }
}

fn refused(code: &str, text: String) -> Reply {
    Reply::Refused {
        code: code.to_owned(),
        text,
    }
}

impl State {
    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn happens(&mut self, rate: u16) -> bool {
        rate > 0 && (self.draw() & 0xffff) < u64::from(rate)
    }

    /// Where a key is, if not here.
    fn elsewhere(&self, server: usize, key: &str) -> Option<Reply> {
        let slot = slot_of_key(key);
        let at = *self.map.get(usize::from(slot))?;
        if at == server {
            return None;
        }
        let address = &self.servers[at].address;
        Some(refused("MOVED", format!("{slot} {address}")))
    }

    fn carry_out(&mut self, at: usize, command: &Command, now: u64, asking: bool) -> Reply {
        self.servers[at].commands += 1;
        let keys: &[String] = match command {
            Command::Set(key, ..)
            | Command::GetRange(key, ..)
            | Command::Get(key)
            | Command::Expire(key, _) => std::slice::from_ref(key),
            Command::Unlink(keys) => keys,
            _ => &[],
        };
        if let Some(first) = keys.first()
            && !asking
            && let Some(moved) = self.elsewhere(at, first)
        {
            return moved;
        }
        match command {
            Command::Ping | Command::Asking => Reply::Ok,
            Command::Wait(..) => Reply::Int(1),
            Command::Info(section) => Reply::Bytes(self.info(section).into_bytes()),
            Command::ClusterSlots => self.slots(),
            Command::Set(key, value, lease_s) => {
                let expires_ns = now.saturating_add(lease_s.saturating_mul(1_000_000_000));
                self.servers[at].set(key, value, expires_ns)
            }
            Command::Get(key) => match self.servers[at].get(key, now) {
                Some(stored) => Reply::Bytes(stored.value.to_vec()),
                None => Reply::Nil,
            },
            Command::GetRange(key, first, end) => {
                let stored = self.servers[at].get(key, now);
                let value = stored.map(|stored| &stored.value[..]).unwrap_or_default();
                let end = (*end as usize).min(value.len());
                Reply::Bytes(value.get(*first as usize..end).unwrap_or_default().to_vec())
            }
            Command::Expire(key, lease_s) => {
                let expires_ns = now.saturating_add(lease_s.saturating_mul(1_000_000_000));
                let is_there = self.servers[at].get(key, now).is_some();
                if let (true, Some(stored)) = (is_there, self.servers[at].keys.get_mut(key)) {
                    stored.expires_ns = expires_ns;
                }
                Reply::Int(i64::from(is_there))
            }
            Command::Unlink(keys) => {
                let gone = keys
                    .iter()
                    .filter(|key| self.servers[at].unlink(key))
                    .count();
                Reply::Int(gone as i64)
            }
        }
    }

    fn info(&self, section: &str) -> String {
        let mode = if self.map.is_empty() {
            "standalone"
        } else {
            "cluster"
        };
        match section {
            "server" => format!("redis_version:7.2.0\r\nredis_mode:{mode}\r\n"),
            "memory" => "maxmemory_policy:noeviction\r\n".to_owned(),
            "persistence" => "aof_enabled:1\r\n".to_owned(),
            "replication" => "min_slaves_good_slaves:1\r\n".to_owned(),
            _ => String::new(),
        }
    }

    fn slots(&self) -> Reply {
        let mut runs = Vec::new();
        let mut first = 0;
        while first < self.map.len() {
            let at = self.map[first];
            let run = self.map[first..]
                .iter()
                .take_while(|server| **server == at)
                .count();
            let Address::Tcp { host, port, .. } = &self.servers[at].address else {
                break;
            };
            let master = vec![
                Reply::Bytes(host.clone().into_bytes()),
                Reply::Int(i64::from(*port)),
            ];
            let last = first + run - 1;
            let bounds = [first, last].map(|slot| Reply::Int(slot as i64));
            let [from, to] = bounds;
            runs.push(Reply::Array(vec![from, to, Reply::Array(master)]));
            first += run;
        }
        Reply::Array(runs)
    }
}

impl Server {
    fn get(&self, key: &str, now: u64) -> Option<&Stored> {
        self.keys.get(key).filter(|stored| stored.expires_ns > now)
    }

    fn set(&mut self, key: &str, value: &Arc<Vec<u8>>, expires_ns: u64) -> Reply {
        let is_segment = !key.ends_with(":mark") && !key.ends_with(":trial");
        if is_segment {
            let sum = crc32c::crc32c(value);
            let before = *self.ever.entry(key.to_owned()).or_insert((sum, false));
            assert_eq!(before, (sum, false), "{key} is stored again");
        }
        if self.bytes + value.len() as u64 > self.bytes_max {
            return refused("OOM", "command not allowed".to_owned());
        }
        self.unlink_quietly(key);
        self.bytes += value.len() as u64;
        let value = Arc::clone(value);
        self.keys
            .insert(key.to_owned(), Stored { value, expires_ns });
        Reply::Ok
    }

    fn unlink(&mut self, key: &str) -> bool {
        if let Some((_, given_back)) = self.ever.get_mut(key) {
            *given_back = true;
        }
        self.unlink_quietly(key)
    }

    fn unlink_quietly(&mut self, key: &str) -> bool {
        let stored = self.keys.remove(key);
        self.bytes -= stored
            .as_ref()
            .map_or(0, |stored| stored.value.len() as u64);
        stored.is_some()
    }
}
