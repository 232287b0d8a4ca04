//! Real connections, by redis-rs.
//!
//! Stage on the data path: under the nodes. The thread that waits for a page
//! writes and reads its own socket. Sends only what [`Command`] has, and AUTH.
//!
//! A time is for each system call on the socket, of which a reply takes a
//! handful.

use std::time::Duration;

use redis::{
    Client, ClientTlsConfig, Connection, ConnectionAddr, ErrorKind, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, TlsCertificates, Value,
};

use crate::config::{Secret, Tls};
use crate::endpoint::Address;
use crate::link::{Command, Link, LinkError, Network, Reply};

/// Connections by TCP, TLS and sockets of this machine.
pub(crate) struct RedisNetwork {
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) tls: Tls,
}

struct RedisLink {
    connection: Connection,
    out: Vec<u8>,
    within: Duration,
}

impl Network for RedisNetwork {
    fn connect(&self, address: &Address, within: Duration) -> Result<Box<dyn Link>, LinkError> {
        let mut settings = RedisConnectionInfo::default().set_skip_set_lib_name();
        if let Some(password) = &self.password {
            settings = settings.set_password(password.reveal());
            if let Some(username) = &self.username {
                settings = settings.set_username(username);
            }
        }
        let client = self.client(address, settings).map_err(link_error)?;
        let connection = client
            .get_connection_with_timeout(within)
            .map_err(link_error)?;
        let set = connection.set_write_timeout(Some(within));
        set.map_err(link_error)?;
        Ok(Box::new(RedisLink {
            connection,
            out: Vec::new(),
            within: Duration::ZERO,
        }))
    }
}

impl RedisNetwork {
    fn client(
        &self,
        address: &Address,
        settings: RedisConnectionInfo,
    ) -> redis::RedisResult<Client> {
        let info = |address: ConnectionAddr| {
            let info = address.into_connection_info()?;
            let tcp = info.tcp_settings().clone().set_nodelay(true);
            Ok::<_, RedisError>(info.set_redis_settings(settings).set_tcp_settings(tcp))
        };
        match address {
            Address::Unix(path) => Client::open(info(ConnectionAddr::Unix(path.clone()))?),
            Address::Tcp {
                host,
                port,
                tls: false,
            } => Client::open(info(ConnectionAddr::Tcp(host.clone(), *port))?),
            Address::Tcp {
                host,
                port,
                tls: true,
            } => {
                let address = ConnectionAddr::TcpTls {
                    host: host.clone(),
                    port: *port,
                    insecure: false,
                    tls_params: None,
                };
                let client_tls = self.tls.client.as_ref().map(|(cert, key)| ClientTlsConfig {
                    client_cert: cert.clone(),
                    client_key: key.reveal().as_bytes().to_vec(),
                });
                let certificates = TlsCertificates {
                    client_tls,
                    root_cert: self.tls.ca.clone(),
                };
                Client::build_with_tls(info(address)?, certificates)
            }
        }
    }
}

impl Link for RedisLink {
    fn send(&mut self, commands: &[Command]) -> Result<(), LinkError> {
        self.out.clear();
        for command in commands {
            command.encode(&mut self.out);
        }
        let sent = self.connection.send_packed_command(&self.out);
        // A burst of segments is no reason to keep its buffer on every link.
        self.out.shrink_to(64 << 10);
        sent.map_err(link_error)
    }

    fn receive(&mut self, within: Duration) -> Result<Reply, LinkError> {
        // A timeout of zero is none at all to the system.
        let within = within.max(Duration::from_micros(100));
        if within != self.within {
            let set = self.connection.set_read_timeout(Some(within));
            set.map_err(link_error)?;
            self.within = within;
        }
        reply(self.connection.recv_response().map_err(link_error)?)
    }
}

fn reply(value: Value) -> Result<Reply, LinkError> {
    Ok(match value {
        Value::Nil => Reply::Nil,
        Value::Int(number) => Reply::Int(number),
        Value::BulkString(bytes) => Reply::Bytes(bytes),
        Value::Okay => Reply::Ok,
        Value::SimpleString(text) if text == "PONG" => Reply::Ok,
        Value::Array(values) => {
            Reply::Array(values.into_iter().map(reply).collect::<Result<_, _>>()?)
        }
        Value::ServerError(error) => Reply::Refused {
            code: error.code().to_owned(),
            text: error.details().unwrap_or_default().to_owned(),
        },
        other => return Err(LinkError::unexpected(&other)),
    })
}

fn link_error(error: RedisError) -> LinkError {
    let text = error.to_string();
    if error.is_timeout() {
        LinkError::Timeout
    } else if error.kind() == ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("WRONGPASS"))
    {
        LinkError::Password
    } else if text.to_lowercase().contains("certificate") {
        LinkError::Certificate(text)
    } else if error.is_io_error() {
        LinkError::Broken(text)
    } else {
        LinkError::Protocol(text)
    }
}
