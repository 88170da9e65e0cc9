//! SSH connections and the SFTP channels on them.
//!
//! Every call has a channel of its own, and with it a process of its own on the server: one that
//! waits for its disk holds up no other. Four channels share a connection, because servers count
//! connections and logins (OpenSSH refuses some beyond ten that are being made) and each costs several
//! round trips, while on a channel a server allows ten (`MaxSessions`) and one connection alone
//! is bound by one core and one window of TCP.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use russh::ChannelMsg;
use russh::client::{self, Handle, Handler};
use russh::keys::PublicKeyOrCertificate;
use russh_sftp::client::{Config as SftpConfig, RawSftpSession};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::auth::{self, Credentials};
use super::channel::{Channel, Failure};
use super::hosts::Hosts;
use crate::error::{ErrorKind, Reason};
use crate::network::Contact;

/// Channels on one connection.
const CHANNELS: usize = 4;
/// The largest packet of SFTP that is taken, as in OpenSSH.
const PACKET_BYTES_MAX: u32 = 256 << 10;
/// Silence is watched by [`Channel`], which knows about pipelines; the library's clock does not.
const NO_TIMEOUT_SECONDS: u64 = 7 * 24 * 3600;

/// Everything that a connection needs.
pub(super) struct Dial {
    pub host: String,
    pub port: u16,
    pub hosts: Arc<Hosts>,
    pub credentials: Credentials,
    pub connect_timeout: Duration,
    pub read_timeout: Duration,
    pub contact: Contact,
    /// The connections that are there.
    pub connections: Mutex<Vec<Arc<Connection>>>,
}

/// An SSH connection that is logged in.
pub(super) struct Connection {
    handle: Handle<Gate>,
    channels: AtomicUsize,
    /// Fewer where the server allows fewer.
    channels_max: AtomicUsize,
}

impl Connection {
    pub(super) fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// Counts one channel more, unless it has as many as it may.
    fn reserve(&self) -> bool {
        let max = self.channels_max.load(Ordering::SeqCst);
        let grow = |count| (count < max).then_some(count + 1);
        let (set, fetch) = (Ordering::SeqCst, Ordering::SeqCst);
        !self.is_closed() && self.channels.fetch_update(set, fetch, grow).is_ok()
    }

    /// Counts one channel less.
    pub(super) fn release(&self) {
        self.channels.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Lets in only servers that are known.
pub(super) struct Gate {
    host: String,
    port: u16,
    hosts: Arc<Hosts>,
}

impl Handler for Gate {
    type Error = Failure;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Failure> {
        match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                self.hosts.check(&self.host, self.port, key)?;
                Ok(true)
            }
            // None was asked for.
            PublicKeyOrCertificate::Certificate(_) => Ok(false),
        }
    }
}

impl Dial {
    /// Opens a channel, on a connection that has room for it or on a new one.
    pub(super) async fn channel(&self) -> Result<Channel, Failure> {
        let mut connections = self.connections.lock().await;
        connections.retain(|connection| !connection.is_closed());
        for connection in connections.iter() {
            if !connection.reserve() {
                continue;
            }
            match self.open(connection).await {
                Ok(channel) => return Ok(channel),
                Err(failure) => {
                    connection.release();
                    // The server takes fewer channels than others do, or the connection is broken:
                    // both are settled by another connection.
                    let count = connection.channels.load(Ordering::SeqCst);
                    connection.channels_max.store(count, Ordering::SeqCst);
                    tracing::debug!("no further channel on a connection: {failure:?}");
                }
            }
        }
        let connection = Arc::new(self.connect().await?);
        connection.channels.store(1, Ordering::SeqCst);
        let channel = self.open(&connection).await?;
        connections.push(connection);
        Ok(channel)
    }

    /// Opens a channel on a connection.
    async fn open(&self, connection: &Arc<Connection>) -> Result<Channel, Failure> {
        let within = |what: &str| Failure::Lost(format!("the server did not {what} in time"));
        let opened = timeout(self.read_timeout, connection.handle.channel_open_session()).await;
        let mut channel = opened.map_err(|_| within("open a channel"))??;
        channel.request_subsystem(true, "sftp").await?;
        let answer = async {
            loop {
                match channel.wait().await {
                    Some(ChannelMsg::Success) => return Ok(()),
                    Some(ChannelMsg::Failure) => {
                        return Err(Failure::Known(
                            ErrorKind::Permanent,
                            Reason::Protocol,
                            "the server does not offer SFTP to this user".to_owned(),
                        ));
                    }
                    Some(_) => {}
                    None => return Err(Failure::Lost("the server closed the channel".to_owned())),
                }
            }
        };
        timeout(self.read_timeout, answer)
            .await
            .map_err(|_| within("start SFTP"))??;
        let config = SftpConfig {
            max_packet_len: PACKET_BYTES_MAX,
            request_timeout_secs: NO_TIMEOUT_SECONDS,
            ..SftpConfig::default()
        };
        let raw = RawSftpSession::new_with_config(channel.into_stream(), config);
        Channel::start(raw, Arc::clone(connection), self.read_timeout).await
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let stream = self.reach().await?;
        let mut preferred = russh::Preferred::DEFAULT;
        let kinds = self.hosts.prefer(&self.host, self.port, &preferred.key);
        preferred.key = kinds.into();
        let config = client::Config {
            preferred,
            nodelay: true,
            keepalive_interval: Some(self.read_timeout / 3),
            keepalive_max: 3,
            ..client::Config::default()
        };
        let gate = Gate {
            host: self.host.clone(),
            port: self.port,
            hosts: Arc::clone(&self.hosts),
        };
        let handshake = client::connect_stream(Arc::new(config), stream, gate);
        let greeted = timeout(self.connect_timeout, handshake).await;
        let mut handle = greeted.map_err(|_| {
            Failure::Known(
                self.contact.kind_of_failure(),
                Reason::Unreachable,
                "the server does not answer in SSH; is the port right?".to_owned(),
            )
        })??;
        self.contact.made();
        let login = auth::log_in(&mut handle, &self.credentials);
        let logged_in = timeout(self.read_timeout, login).await;
        logged_in.map_err(|_| Failure::Lost("the login took too long".to_owned()))??;
        Ok(Connection {
            handle,
            channels: AtomicUsize::new(0),
            channels_max: AtomicUsize::new(CHANNELS),
        })
    }

    /// Connects to the first of the host's addresses that answers.
    async fn reach(&self) -> Result<TcpStream, Failure> {
        let kind = self.contact.kind_of_failure();
        let failed = |reason, cause| Failure::Known(kind, reason, cause);
        let no_address = |why: String| {
            let cause = format!("no address is known for the host {}{why}", self.host);
            failed(Reason::HostNotFound, cause)
        };
        let asked = tokio::net::lookup_host((self.host.as_str(), self.port));
        let addresses = timeout(self.connect_timeout, asked)
            .await
            .map_err(|_| no_address(": the name servers do not answer".to_owned()))?
            .map_err(|error| no_address(format!(": {error}")))?;
        let mut last = no_address(String::new());
        for address in addresses {
            last = match timeout(self.connect_timeout, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // Small requests do not wait for company.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                    failed(Reason::Refused, format!("nothing listens on {address}"))
                }
                Ok(Err(error)) => failed(Reason::Unreachable, format!("{address}: {error}")),
                Err(_) => failed(Reason::Unreachable, format!("{address} does not answer")),
            };
        }
        Err(last)
    }
}
