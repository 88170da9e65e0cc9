//! Listening: connections, TLS, and the end of the service.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures_util::future::join_all;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower_service::Service as _;
use zeroize::Zeroizing;

use crate::owners::Owners;
use crate::routes::{self, Peer};
use crate::{Options, ServeError, schedule};

/// How many connections are served at a time.
const CONNECTIONS_MAX: usize = 512;
/// How long the head of a request, and the beginning of TLS, are waited for.
const HEAD_TIME_MAX: Duration = Duration::from_secs(30);
/// How often it is looked whether the service is to end.
const TICK: Duration = Duration::from_millis(100);
/// How long answers are waited for that are under way at the end.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// What is told once the service listens.
#[derive(Debug)]
pub struct Ready {
    /// Where it listens, with the port that it got.
    pub address: SocketAddr,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// The first tokens, where there was none: one that opens everything, and one for portable backups. Nobody can tell them
    /// again.
    pub tokens: Option<[Zeroizing<String>; 2]>,
}

/// Serves until `stop` is set.
///
/// # Errors
/// What keeps it from listening.
pub async fn run(
    options: Options,
    stop: Arc<AtomicBool>,
    ready: impl FnOnce(&Ready),
) -> Result<(), ServeError> {
    let (address, patience) = (options.listen, options.patience);
    if !address.ip().is_loopback() && options.tls.is_none() && !options.allow_plain_http {
        return Err(ServeError::PlainHttp(address));
    }
    let tls = options.tls.as_ref();
    let tls = tls.map(|(cert, key)| acceptor(cert, key)).transpose()?;
    let owners = Arc::new(Owners::open(options, Arc::clone(&stop))?);
    let failed = |source| ServeError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let tokens = owners.administrator().first_tokens();
    let tokens = tokens.map_err(|problem| ServeError::Start(problem.detail))?;
    ready(&Ready {
        address: listener.local_addr().map_err(failed)?,
        tls: tls.is_some(),
        tokens,
    });
    let scheduler = tokio::spawn(schedule::run(Arc::clone(&owners)));
    let (ending, ended) = watch::channel(false);
    let mut connections = JoinSet::new();
    accept(&listener, &owners, tls, &ended, &mut connections).await;
    // Nobody new gets in while runs come to their end.
    drop(listener);
    scheduler.abort();
    let all = owners.all();
    join_all(all.iter().map(|owner| owner.runs.stop(patience))).await;
    let _ = ending.send(true);
    let last = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(LAST_ANSWERS, last).await;
    Ok(())
}

/// Takes connections until the service is to end.
async fn accept(
    listener: &TcpListener,
    owners: &Arc<Owners>,
    tls: Option<TlsAcceptor>,
    ended: &watch::Receiver<bool>,
    connections: &mut JoinSet<()>,
) {
    let router = routes::router(owners);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while !owners.administrator().is_stopping() {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = tokio::time::sleep(TICK) => continue,
        };
        // What has come to its end is let go of.
        while connections.try_join_next().is_some() {}
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Too many open files pass, as does a client that is gone already.
                tracing::warn!("cannot take a connection: {error}");
                tokio::time::sleep(TICK).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            continue;
        };
        let (router, tls, ended) = (router.clone(), tls.clone(), ended.clone());
        connections.spawn(async move {
            let _place = place;
            let _ = stream.set_nodelay(true);
            let Some(tls) = tls else {
                return talk(stream, peer, router, ended).await;
            };
            let agreed = tokio::time::timeout(HEAD_TIME_MAX, tls.accept(stream)).await;
            if let Ok(Ok(stream)) = agreed {
                talk(stream, peer, router, ended).await;
            }
        });
    }
}

/// Answers what comes over one connection.
async fn talk(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    router: Router,
    mut ended: watch::Receiver<bool>,
) {
    let answer = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        // A router is always ready.
        router.clone().call(request.map(Body::new))
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX);
    let connection = builder.serve_connection(TokioIo::new(stream), answer);
    let mut connection = std::pin::pin!(connection);
    let mut is_ending = false;
    loop {
        tokio::select! {
            // A client that goes away in the middle is nothing to tell of.
            _ = connection.as_mut() => return,
            changed = ended.changed(), if !is_ending => {
                is_ending = changed.is_err() || *ended.borrow();
                if is_ending {
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// Reads the certificate chain and its key.
fn acceptor(cert: &Path, key: &Path) -> Result<TlsAcceptor, ServeError> {
    let failed = |what: &'static str, path: &Path, why: String| ServeError::Tls {
        what,
        path: path.to_owned(),
        why,
    };
    let of_cert = |why: String| failed("the certificate", cert, why);
    let of_key = |why: String| failed("the key", key, why);
    let chain = CertificateDer::pem_file_iter(cert).map_err(|error| of_cert(error.to_string()))?;
    let chain = chain.collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| of_cert(error.to_string()))?;
    if chain.is_empty() {
        return Err(of_cert("there is no certificate in it".to_owned()));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| of_key(error.to_string()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| of_cert(error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, private);
    let mut config = config.map_err(|error| of_key(error.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
