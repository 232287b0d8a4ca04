//! What is asked of a server before it is trusted with blocks.
//!
//! Off the data path, at the start.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{Durability, RemoteConfig};
use crate::endpoint::Address;
use crate::error::OpenError;
use crate::link::{Command, Link, LinkError, Network, Reply};

/// The oldest version of either server.
const MAJOR_MIN: u32 = 7;

/// Who was checked, so that one server is not taken for two.
#[derive(Default)]
pub(crate) struct Identities(Vec<(String, Address)>);

impl Identities {
    /// Adds a server, if it said who it is.
    pub(crate) fn add(
        &mut self,
        address: &Address,
        identity: Option<String>,
    ) -> Result<(), OpenError> {
        let Some(identity) = identity else {
            return Ok(());
        };
        if let Some((_, other)) = self.0.iter().find(|(known, _)| *known == identity) {
            return Err(OpenError::Same(other.clone(), address.clone()));
        }
        self.0.push((identity, address.clone()));
        Ok(())
    }
}

/// Checks one server, and gives what it calls itself since its start; `trial` is a key
/// that it keeps, if one is known.
pub(crate) fn check(
    network: &dyn Network,
    config: &RemoteConfig,
    address: &Address,
    is_cluster: bool,
    trial: Option<String>,
) -> Result<Option<String>, OpenError> {
    let within = config.timeouts.connect;
    let failed = |error| OpenError::of_link(address, error);
    let mut server = Server {
        link: network.connect(address, within).map_err(failed)?,
        address,
        within,
    };
    server.ask(Command::Ping)?;
    let about = server.info("server")?;
    let version = field(&about, "valkey_version").or_else(|| field(&about, "redis_version"));
    if let Some(version) = version {
        let major = version.split('.').next().and_then(|text| text.parse().ok());
        if major.is_some_and(|major: u32| major < MAJOR_MIN) {
            return Err(OpenError::Old(address.clone(), version.to_owned()));
        }
    }
    let mode = field(&about, "server_mode").or_else(|| field(&about, "redis_mode"));
    if mode.is_some_and(|mode| (mode == "cluster") != is_cluster) {
        return Err(OpenError::Mode(address.clone(), !is_cluster));
    }
    let memory = server.info("memory")?;
    let policy = field(&memory, "maxmemory_policy").unwrap_or("unknown");
    if policy != "noeviction" {
        return Err(OpenError::Evicts(address.clone(), policy.to_owned()));
    }
    if config.durability == Durability::Wait {
        let persistence = server.info("persistence")?;
        if field(&persistence, "aof_enabled") != Some("1") {
            let what = "'appendonly yes' there, or a server that restarts comes back empty";
            return Err(OpenError::Wait(address.clone(), what));
        }
        let replication = server.info("replication")?;
        let good = field(&replication, "min_slaves_good_slaves");
        match good.and_then(|count| count.parse::<u32>().ok()) {
            None => {
                let what = "'min-replicas-to-write 1' there, or a master cut off goes on alone";
                return Err(OpenError::Wait(address.clone(), what));
            }
            Some(0) => {
                let what = "a replica that follows it, and there is none at the moment";
                return Err(OpenError::Wait(address.clone(), what));
            }
            Some(_) => {}
        }
    }
    if let Some(key) = trial {
        server.try_rights(key)?;
    }
    Ok(field(&about, "run_id").map(str::to_owned))
}

struct Server<'a> {
    link: Box<dyn Link>,
    address: &'a Address,
    within: Duration,
}

impl Server<'_> {
    fn ask(&mut self, command: Command) -> Result<Reply, OpenError> {
        let sent = self.link.send(&[command]);
        let reply = sent.and_then(|()| self.link.receive(self.within));
        let reply = reply.map_err(|error| OpenError::of_link(self.address, error))?;
        let Reply::Refused { code, text } = &reply else {
            return Ok(reply);
        };
        let address = self.address.clone();
        Err(match code.as_str() {
            "NOAUTH" => OpenError::NoPassword(address),
            "WRONGPASS" => OpenError::Password(address),
            "NOPERM" => OpenError::Rights(address, text.clone()),
            _ => {
                let text = format!("{code} {text}");
                OpenError::Unreachable(address, LinkError::Protocol(text))
            }
        })
    }

    fn info(&mut self, section: &'static str) -> Result<String, OpenError> {
        match self.ask(Command::Info(section))? {
            Reply::Bytes(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            other => {
                let error = LinkError::unexpected(&other);
                Err(OpenError::Unreachable(self.address.clone(), error))
            }
        }
    }

    /// Does once each thing that will be done, so that a lack of rights shows
    /// now. A full server is as good as any for this.
    fn try_rights(&mut self, key: String) -> Result<(), OpenError> {
        let value = Arc::new(b"trial".to_vec());
        let commands = [
            Command::Set(key.clone(), value, 10),
            Command::Get(key.clone()),
            Command::GetRange(key.clone(), 0, 2),
            Command::Expire(key.clone(), 10),
            Command::Wait(0, 1),
            Command::Unlink(vec![key]),
        ];
        for command in commands {
            match self.ask(command) {
                Err(OpenError::Unreachable(_, LinkError::Protocol(text)))
                    if ["OOM ", "MOVED ", "NOREPLICAS "]
                        .iter()
                        .any(|code| text.starts_with(code)) => {}
                other => drop(other?),
            }
        }
        Ok(())
    }
}

/// A line `name:value` of what INFO says.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}
