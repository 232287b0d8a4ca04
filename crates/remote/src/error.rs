//! Why a remote tier was not opened, and what to do about it.

use std::fmt;

use crate::endpoint::Address;
use crate::lender::COMMANDS;
use crate::link::LinkError;

/// Why a tier was not opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OpenError {
    /// No endpoint was given.
    NoEndpoint,
    /// Plaintext would leave the machine.
    Plaintext(Address),
    /// Two addresses are one server.
    Same(Address, Address),
    /// A server is not reached.
    Unreachable(Address, LinkError),
    /// A server wants a password.
    NoPassword(Address),
    /// A server refuses user or password.
    Password(Address),
    /// A certificate is not accepted.
    Certificate(Address, String),
    /// A server drops keys when its memory is full.
    Evicts(Address, String),
    /// The user lacks rights.
    Rights(Address, String),
    /// A server is older than what this works with.
    Old(Address, String),
    /// A server is part of a cluster, or is none.
    Mode(Address, bool),
    /// Two copies need two masters; there are so many.
    Masters(usize),
    /// A server is not set up for writes that wait.
    Wait(Address, &'static str),
    /// A prefix or host has characters that keys are made of.
    Name(String),
    /// The system has no random bytes.
    NoRandom,
    /// A thread could not be started.
    Thread(String),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::NoEndpoint => f.write_str("no remote is named"),
            OpenError::Plaintext(address) => write!(
                f,
                "{address} is another machine, and redis:// would send in plaintext: use rediss:// (TLS), or allow it with --remote-plaintext"
            ),
            OpenError::Same(one, other) => write!(
                f,
                "{one} and {other} are one server: name it once, and another one for another copy"
            ),
            OpenError::Unreachable(address, error) => write!(
                f,
                "{address}: {error}; start valkey-server or redis-server there, or name another remote"
            ),
            OpenError::NoPassword(address) => write!(
                f,
                "{address} wants a password: put it into a file (--remote-password-file) or into ZCACHE_REMOTE_PASSWORD"
            ),
            OpenError::Password(address) => write!(
                f,
                "{address} refuses the user or the password: check ZCACHE_REMOTE_USER and ZCACHE_REMOTE_PASSWORD \
                 or --remote-password-file against its ACL"
            ),
            OpenError::Certificate(address, what) => write!(
                f,
                "{address}: {what}; renew the certificate, or name who signed it with --remote-ca"
            ),
            OpenError::Evicts(address, policy) => write!(
                f,
                "{address} drops keys when its memory is full (maxmemory-policy {policy}): set 'maxmemory-policy noeviction' there"
            ),
            OpenError::Rights(address, what) => write!(
                f,
                "{address}: the user lacks rights: {what}; give it '~PREFIX:* {COMMANDS}'"
            ),
            OpenError::Old(address, version) => write!(
                f,
                "{address} is version {version}: Redis 7 or Valkey 7.2, or a later one, is needed"
            ),
            OpenError::Mode(address, true) => write!(
                f,
                "{address} is part of a cluster: name it as redis-cluster:// or rediss-cluster://"
            ),
            OpenError::Mode(address, false) => write!(
                f,
                "{address} is no cluster: name it as redis:// or rediss://"
            ),
            OpenError::Masters(found) => write!(
                f,
                "two copies need two masters, and there are {found}: name another remote, or use --remote-durability disk"
            ),
            OpenError::Wait(address, what) => {
                write!(f, "{address}: --remote-durability wait needs {what}")
            }
            OpenError::Name(text) => write!(
                f,
                "'{text}' is no part of a key: give letters, digits, '-', '_' and '.'"
            ),
            OpenError::NoRandom => f.write_str("the system has no random bytes for a key"),
            OpenError::Thread(what) => write!(f, "no thread for the remote tier: {what}"),
        }
    }
}

impl std::error::Error for OpenError {}

impl OpenError {
    /// What a failed link means at the start.
    pub(crate) fn of_link(address: &Address, error: LinkError) -> OpenError {
        let address = address.clone();
        match error {
            LinkError::Password => OpenError::Password(address),
            LinkError::Certificate(what) => OpenError::Certificate(address, what),
            other => OpenError::Unreachable(address, other),
        }
    }
}
