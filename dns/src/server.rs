//! The sockets.

use crate::{
    answer::{Answer, Authority, Transport, encode},
    config::{self, Config},
    forward::{Forwarder, Upstreams},
    records::Records,
};
use hickory_proto::op::{Message, Query};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io, net::SocketAddr, num::NonZeroUsize, sync::Arc, thread::available_parallelism,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// More sockets than this do not answer more queries.
const UDP_SOCKETS: usize = 4;
const MESSAGE: usize = 65_535;
/// Connections at once; further ones wait.
const CONNECTIONS: usize = 512;
/// How long a connection may be idle, or take for one message.
const IDLE: Duration = Duration::from_secs(10);
/// After the system refused something, such as a file descriptor, it is not asked again at once.
const PAUSE: Duration = Duration::from_millis(50);
/// How often another free port is tried, of those whose UDP port is taken.
const PORTS_TRIED: usize = 16;

/// The server cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("dns.listen: cannot listen on {address}")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// Why.
    pub source: io::Error,
}

/// A server whose sockets are open.
#[derive(Debug)]
pub struct Bound {
    /// Where it listens, by UDP and TCP.
    pub address: SocketAddr,
    udp: Vec<UdpSocket>,
    tcp: TcpListener,
    responder: Arc<Responder>,
}

/// Opens the sockets of a server that answers what `records` hold.
pub async fn bind(config: &Config, records: Arc<Records>) -> Result<Bound, BindError> {
    let failed = |source| BindError { address: config.listen, source };
    let (tcp, udp) = sockets(config.listen).await.map_err(failed)?;
    let address = tcp.local_addr().map_err(failed)?;
    let apexes = config.apexes.iter().filter_map(|apex| config::parse_apex(apex)).collect();
    let listed: Vec<_> =
        config.upstreams.iter().filter_map(|upstream| config::parse_upstream(upstream)).collect();
    let upstreams = if listed.is_empty() {
        Upstreams::System { file: "/etc/resolv.conf".into(), except: address }
    } else {
        Upstreams::Listed(listed)
    };
    let forwarder = Forwarder::new(upstreams, config.upstream_timeout);
    let responder = Arc::new(Responder { authority: Authority { apexes, records }, forwarder });
    Ok(Bound { address, udp, tcp, responder })
}

async fn sockets(address: SocketAddr) -> io::Result<(TcpListener, Vec<UdpSocket>)> {
    let mut tried = 0;
    loop {
        // TCP first, whose port nobody can share: UDP ports are shared below, so a second server
        // would take half of the queries of the first one without a word.
        let tcp = TcpListener::bind(address).await?;
        match udp_sockets(tcp.local_addr()?) {
            Err(error)
                if address.port() == 0
                    && error.kind() == io::ErrorKind::AddrInUse
                    && tried < PORTS_TRIED =>
            {
                tried += 1;
            }
            udp => return Ok((tcp, udp?)),
        }
    }
}

/// Several sockets for one port: the kernel spreads the queries over them.
fn udp_sockets(address: SocketAddr) -> io::Result<Vec<UdpSocket>> {
    let open = |_| {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        UdpSocket::from_std(socket.into())
    };
    (0..available_parallelism().map_or(1, NonZeroUsize::get).min(UDP_SOCKETS)).map(open).collect()
}

impl Bound {
    /// Answers until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) -> io::Result<()> {
        let mut loops = JoinSet::new();
        for socket in self.udp {
            loops.spawn(datagrams(socket, self.responder.clone(), shutdown.clone()));
        }
        loops.spawn(connections(self.tcp, self.responder, shutdown.clone()));
        while let Some(ended) = loops.join_next().await {
            ended?;
            if !shutdown.is_cancelled() {
                return Err(io::Error::other("a loop of the server ended early"));
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Responder {
    authority: Authority,
    forwarder: Forwarder,
}

impl Responder {
    async fn forward(
        &self,
        query: Query,
        response: Message,
        transport: Transport,
    ) -> Option<Vec<u8>> {
        encode(&self.forwarder.complete(query, response).await, transport)
    }
}

async fn datagrams(socket: UdpSocket, responder: Arc<Responder>, shutdown: CancellationToken) {
    let socket = Arc::new(socket);
    let mut forwards = JoinSet::new();
    let mut buffer = vec![0; MESSAGE];
    loop {
        let received = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            Some(_) = forwards.join_next() => continue,
            received = socket.recv_from(&mut buffer) => received,
        };
        let Ok((len, client)) = received else {
            pause(&shutdown).await;
            continue;
        };
        match responder.authority.answer(buffer.get(..len).unwrap_or_default()) {
            Answer::Nothing => {}
            Answer::Now(response) => {
                if let Some(bytes) = encode(&response, Transport::Udp) {
                    // Who cannot be reached asks again or not at all.
                    socket.send_to(&bytes, client).await.ok();
                }
            }
            Answer::Forward(query, response) => {
                let (socket, responder) = (socket.clone(), responder.clone());
                forwards.spawn(async move {
                    let answer = responder.forward(query, response, Transport::Udp).await;
                    if let Some(bytes) = answer {
                        socket.send_to(&bytes, client).await.ok();
                    }
                });
            }
        }
    }
}

async fn connections(
    listener: TcpListener,
    responder: Arc<Responder>,
    shutdown: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            Some(_) = open.join_next() => continue,
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok((stream, place)) => {
                let responder = responder.clone();
                open.spawn(async move {
                    // An error of a connection ends it, and concerns nobody else.
                    connection(stream, &responder).await.ok();
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "connection was not accepted");
                pause(&shutdown).await;
            }
        }
    }
}

/// Cancel safe: a place that was taken is given back.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

async fn connection(mut stream: TcpStream, responder: &Responder) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let Ok(message) = timeout(IDLE, read(&mut stream)).await else { return Ok(()) };
        let answer = match responder.authority.answer(&message?) {
            // Who sends what is no query does not speak DNS.
            Answer::Nothing => return Ok(()),
            Answer::Now(response) => encode(&response, Transport::Tcp),
            Answer::Forward(query, response) => {
                responder.forward(query, response, Transport::Tcp).await
            }
        };
        let Some(bytes) = answer else { return Ok(()) };
        let len = u16::try_from(bytes.len()).map_err(io::Error::other)?;
        let framed = [&len.to_be_bytes()[..], &bytes].concat();
        let Ok(written) = timeout(IDLE, stream.write_all(&framed)).await else { return Ok(()) };
        written?;
    }
}

async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let len = stream.read_u16().await?;
    let mut message = vec![0; len.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn pause(shutdown: &CancellationToken) {
    timeout(PAUSE, shutdown.cancelled()).await.ok();
}
