//! Accepts TLS connections, for tonic and for axum.

use super::{
    Alpn, Fingerprint, ServerTls,
    strangers::{Beginning, Strangers},
};
use crate::{SpiffeId, not_after};
use futures::Stream;
use jiff::Timestamp;
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_rustls::TlsAcceptor;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

/// A client that has not shown who it is by then is gone.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(5);

/// So many clients may be about to show who they are; further ones wait in the kernel.
const HANDSHAKES: usize = 256;

/// So many connections are open at most.
const CONNECTIONS: usize = 50_000;

/// How long nothing is accepted when the process has no file descriptors left.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Who is at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where it connected from.
    pub address: SocketAddr,
    /// The SPIFFE IDs of its certificate, which was verified.
    pub spiffe_ids: Vec<SpiffeId>,
    /// The DNS names of its certificate, which was verified.
    pub dns_names: Vec<String>,
    /// When its certificate ends, if it has one: the connection may live longer.
    pub expires: Option<Timestamp>,
    /// What its certificate is named by.
    pub fingerprint: Option<Fingerprint>,
}

impl Peer {
    /// Somebody who showed no certificate.
    #[must_use]
    pub const fn unknown(address: SocketAddr) -> Self {
        Self {
            address,
            spiffe_ids: Vec::new(),
            dns_names: Vec::new(),
            expires: None,
            fingerprint: None,
        }
    }
}

/// An open connection. It counts until it is dropped.
#[derive(Debug)]
pub struct TlsStream {
    stream: tokio_rustls::server::TlsStream<TcpStream>,
    peer: Peer,
    beginning: Option<Beginning>,
    strangers: Arc<Strangers>,
    _counted: OwnedSemaphorePermit,
}

impl TlsStream {
    /// Who is at the other end.
    #[must_use]
    pub const fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The address it connected to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.get_ref().0.local_addr()
    }
}

/// Accepts TLS connections.
#[derive(Debug)]
pub struct TlsListener {
    tcp: TcpListener,
    tls: Arc<ServerTls>,
    alpn: Alpn,
    handshakes: JoinSet<Option<TlsStream>>,
    connections: Arc<Semaphore>,
}

impl TlsListener {
    /// Accepts on `tcp`, as `tls` says.
    #[must_use]
    pub fn new(tcp: TcpListener, tls: Arc<ServerTls>, alpn: Alpn) -> Self {
        let connections = Arc::new(Semaphore::new(CONNECTIONS));
        Self { tcp, tls, alpn, handshakes: JoinSet::new(), connections }
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// The next connection whose handshake succeeded. Cancel safe.
    pub async fn accept(&mut self) -> TlsStream {
        loop {
            tokio::select! {
                biased;
                Some(ended) = self.handshakes.join_next() => match ended {
                    Ok(Some(stream)) => return stream,
                    Ok(None) => {}
                    Err(error) => tracing::error!(%error, "TLS handshake ended unexpectedly"),
                },
                accepted = next(&self.tcp, &self.connections), if self.handshakes.len() < HANDSHAKES => {
                    let (tcp, address, counted) = accepted;
                    let acceptor = TlsAcceptor::from(self.tls.current(self.alpn));
                    let (strangers, alpn) = (self.tls.strangers(), self.alpn);
                    self.handshakes.spawn(async move {
                        let stream = handshake(&acceptor, tcp).await;
                        let stream =
                            stream.inspect_err(|error| strangers.handshake(address, error)).ok()?;
                        let peer = peer(address, stream.get_ref().1.peer_certificates());
                        let beginning = Beginning::of(alpn);
                        Some(TlsStream { stream, peer, beginning, strangers, _counted: counted })
                    });
                }
            }
        }
    }

    /// The connections as a stream, for `serve_with_incoming`.
    pub fn incoming(self) -> impl Stream<Item = io::Result<TlsStream>> + Send {
        futures::stream::unfold(self, async |mut listener| {
            let stream = listener.accept().await;
            Some((Ok(stream), listener))
        })
    }
}

async fn next(
    tcp: &TcpListener,
    connections: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    loop {
        let Ok(counted) = Arc::clone(connections).acquire_owned().await else {
            // The semaphore is never closed.
            return std::future::pending().await;
        };
        match tcp.accept().await {
            Ok((tcp, address)) => {
                // Only a hint: a connection without it works, more slowly.
                drop(tcp.set_nodelay(true));
                return (tcp, address, counted);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                sleep_until(Instant::now() + EXHAUSTED).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    [ConnectionAborted, ConnectionRefused, ConnectionReset].contains(&error.kind())
}

pub(super) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    acceptor: &TlsAcceptor,
    stream: S,
) -> io::Result<tokio_rustls::server::TlsStream<S>> {
    match timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(accepted) => accepted,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Only called after the chain was verified.
pub(super) fn peer(
    address: SocketAddr,
    chain: Option<&[rustls_pki_types::CertificateDer<'_>]>,
) -> Peer {
    let mut peer = Peer::unknown(address);
    let Some(own) = chain.and_then(<[_]>::first) else { return peer };
    peer.expires = not_after(own);
    peer.fingerprint = Some(Fingerprint::of(own));
    let Ok((_, parsed)) = X509Certificate::from_der(own) else { return peer };
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return peer };
    for name in &names.value.general_names {
        if let GeneralName::URI(uri) = name {
            peer.spiffe_ids.extend(uri.parse::<SpiffeId>());
        } else if let GeneralName::DNSName(name) = name {
            peer.dns_names.push(name.to_ascii_lowercase());
        }
    }
    peer
}

impl AsyncRead for TlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let Self { stream, peer, beginning, strangers, .. } = &mut *self;
        let read = Pin::new(stream).poll_read(cx, buffer);
        if let Some(begins) = beginning
            && let Some(bytes) = buffer.filled().get(before..)
            && !begins.read(bytes, peer.address, strangers)
        {
            *beginning = None;
        }
        read
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl tonic::transport::server::Connected for TlsStream {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream;
    type Addr = Peer;

    async fn accept(&mut self) -> (TlsStream, Peer) {
        let stream = Self::accept(self).await;
        let peer = stream.peer.clone();
        (stream, peer)
    }

    fn local_addr(&self) -> io::Result<Peer> {
        let address = self.tcp.local_addr()?;
        Ok(Peer::unknown(address))
    }
}

impl axum::extract::connect_info::Connected<axum::serve::IncomingStream<'_, TlsListener>> for Peer {
    fn connect_info(stream: axum::serve::IncomingStream<'_, TlsListener>) -> Self {
        stream.remote_addr().clone()
    }
}
