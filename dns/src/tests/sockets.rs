//! The server on real sockets of loopback, at ports that the system picks.

use super::upstream::{Manner, Upstream};
use crate::{Bound, Change, Config, Records, bind, forward::nameservers};
use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query},
    rr::{Name, RecordType},
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Longer than anything takes; a test that waits this long has failed.
const LIMIT: Duration = Duration::from_secs(20);

struct Server {
    address: SocketAddr,
    records: Arc<Records>,
    shutdown: CancellationToken,
    running: JoinHandle<std::io::Result<()>>,
}

fn config(upstreams: &[&Upstream]) -> Config {
    Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        upstreams: upstreams.iter().map(|upstream| upstream.address.to_string()).collect(),
        upstream_timeout: Duration::from_millis(500),
        ..Config::default()
    }
}

impl Server {
    async fn start(upstreams: &[&Upstream]) -> Self {
        let records = Arc::new(Records::default());
        let upserts = vec![("cart.mesh.local".into(), ["240.0.0.1".parse().unwrap()].into())];
        records.apply(Change { upserts, removals: Vec::new() });
        records.complete();
        let bound: Bound = bind(&config(upstreams), records.clone()).await.unwrap();
        let (address, shutdown) = (bound.address, CancellationToken::new());
        #[expect(clippy::disallowed_methods, reason = "a test joins it")]
        let running = tokio::spawn(bound.run(shutdown.clone()));
        Self { address, records, shutdown, running }
    }

    async fn udp(&self, bytes: &[u8]) -> Vec<u8> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(bytes, self.address).await.unwrap();
        let mut buffer = [0; 4096];
        let len = timeout(LIMIT, socket.recv(&mut buffer)).await.unwrap().unwrap();
        buffer[..len].into()
    }

    async fn tcp(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        send(&mut stream, bytes).await;
        receive(&mut stream).await
    }

    /// Response code and answers, which must be the same by UDP and TCP.
    async fn ask(&self, name: &str, record_type: RecordType) -> String {
        let query = query(name, record_type);
        let by_udp = said(&self.udp(&query).await);
        assert_eq!(said(&self.tcp(&query).await), by_udp, "by TCP and by UDP");
        by_udp
    }
}

async fn send(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_u16(bytes.len() as u16).await.unwrap();
    stream.write_all(bytes).await.unwrap();
}

async fn receive(stream: &mut TcpStream) -> Vec<u8> {
    let len = timeout(LIMIT, stream.read_u16()).await.unwrap().unwrap();
    let mut message = vec![0; len.into()];
    stream.read_exact(&mut message).await.unwrap();
    message
}

fn query(name: &str, record_type: RecordType) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), record_type));
    message.set_edns(Edns::new());
    message.to_vec().unwrap()
}

fn said(response: &[u8]) -> String {
    let response = Message::from_vec(response).unwrap();
    assert_eq!((response.metadata.id, response.metadata.message_type), (7, MessageType::Response));
    let records = |records: &[hickory_proto::rr::Record]| {
        records.iter().map(|r| format!(", {} {} {}", r.name, r.record_type(), r.data)).collect()
    };
    let (answers, authorities): (String, String) =
        (records(&response.answers), records(&response.authorities));
    let ours = if response.metadata.authoritative { " ours" } else { "" };
    format!("{:?}{ours}{answers} /{authorities}", response.metadata.response_code)
}

#[tokio::test]
async fn own_names_are_answered_by_udp_and_tcp_and_follow_the_records() {
    let server = Server::start(&[]).await;
    assert_eq!(
        server.ask("Cart.mesh.local.", RecordType::A).await,
        "NoError ours, Cart.mesh.local. A 240.0.0.1 /"
    );
    let removals = vec!["cart.mesh.local".into()];
    server.records.apply(Change { upserts: Vec::new(), removals });
    assert_eq!(
        server.ask("cart.mesh.local.", RecordType::A).await,
        "NXDomain ours /, mesh.local. SOA ns.mesh.local. hostmaster.mesh.local. 2 3600 600 86400 5"
    );
}

#[tokio::test]
async fn other_names_are_answered_by_an_upstream_server_and_remembered() {
    let upstream = Upstream::start(Manner::Good).await;
    let server = Server::start(&[&upstream]).await;
    let found = server.ask("www.example.", RecordType::A).await;
    assert_eq!(found, "NoError, www.example. CNAME example., example. A 192.0.2.7 /");
    let soa = "example. SOA ns.example. who.example. 1 2 3 4 20";
    let no_data = server.ask("example.", RecordType::AAAA).await;
    assert_eq!(no_data, format!("NoError /, {soa}"));
    let absent = server.ask("absent.example.", RecordType::A).await;
    assert_eq!(absent, format!("NXDomain /, {soa}"));
    // Asked twice each, by UDP and by TCP.
    assert_eq!(
        *upstream.asked.lock(),
        ["udp www.example. A", "udp example. AAAA", "udp absent.example. A"]
    );
}

#[tokio::test]
async fn a_mesh_name_is_never_asked_elsewhere() {
    let upstream = Upstream::start(Manner::Good).await;
    let server = Server::start(&[&upstream]).await;
    for record_type in [RecordType::ANY, RecordType::MX, RecordType::AAAA] {
        server.ask("cart.mesh.local.", record_type).await;
        server.ask("absent.mesh.local.", record_type).await;
    }
    assert_eq!(*upstream.asked.lock(), [""; 0]);
}

#[tokio::test]
async fn what_does_not_fit_into_a_datagram_upstream_is_asked_by_tcp() {
    let upstream = Upstream::start(Manner::OverTcp).await;
    let server = Server::start(&[&upstream]).await;
    let found = server.ask("example.", RecordType::A).await;
    assert_eq!(found, "NoError, example. A 192.0.2.7 /");
    assert_eq!(*upstream.asked.lock(), ["udp example. A", "tcp example. A"]);
}

#[tokio::test]
async fn servers_that_are_silent_or_broken_do_not_matter_while_one_is_good() {
    for manner in [Manner::Silent, Manner::Broken] {
        let (bad, worse) = (Upstream::start(manner).await, Upstream::start(manner).await);
        let good = Upstream::start(Manner::Good).await;
        let server = Server::start(&[&bad, &worse, &good]).await;
        let found = server.ask("example.", RecordType::A).await;
        assert_eq!(found, "NoError, example. A 192.0.2.7 /", "{manner:?}");
    }
}

#[tokio::test]
async fn when_all_servers_fail_the_answer_is_servfail_and_own_names_are_answered() {
    for manner in [Manner::Silent, Manner::Broken] {
        let upstream = Upstream::start(manner).await;
        let server = Server::start(&[&upstream]).await;
        assert_eq!(server.ask("example.", RecordType::A).await, "ServFail /", "{manner:?}");
        let own = server.ask("cart.mesh.local.", RecordType::A).await;
        assert_eq!(own, "NoError ours, cart.mesh.local. A 240.0.0.1 /");
    }
}

#[tokio::test]
async fn own_names_are_answered_while_others_wait() {
    let upstream = Upstream::start(Manner::Silent).await;
    let server = Server::start(&[&upstream]).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for i in 0..200 {
        let query = query(&format!("n{i}.example."), RecordType::A);
        socket.send_to(&query, server.address).await.unwrap();
    }
    socket.send_to(&query("cart.mesh.local.", RecordType::A), server.address).await.unwrap();
    let mut buffer = [0; 4096];
    let len = timeout(LIMIT, socket.recv(&mut buffer)).await.unwrap().unwrap();
    assert_eq!(said(&buffer[..len]), "NoError ours, cart.mesh.local. A 240.0.0.1 /");
}

#[tokio::test]
async fn a_connection_serves_many_queries_and_ends_with_nonsense() {
    let server = Server::start(&[]).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    for _ in 0..3 {
        send(&mut stream, &query("cart.mesh.local.", RecordType::A)).await;
    }
    for _ in 0..3 {
        let answer = said(&receive(&mut stream).await);
        assert_eq!(answer, "NoError ours, cart.mesh.local. A 240.0.0.1 /");
    }
    send(&mut stream, b"GET / HTTP").await;
    assert_eq!(timeout(LIMIT, stream.read(&mut [0; 8])).await.unwrap().unwrap(), 0);
    let own = server.ask("cart.mesh.local.", RecordType::A).await;
    assert_eq!(own, "NoError ours, cart.mesh.local. A 240.0.0.1 /");
}

#[tokio::test]
async fn it_ends_when_it_is_told_to_and_frees_its_port() {
    let server = Server::start(&[]).await;
    let _open = TcpStream::connect(server.address).await.unwrap();
    server.shutdown.cancel();
    timeout(LIMIT, server.running).await.unwrap().unwrap().unwrap();
    bind(&Config { listen: server.address, ..config(&[]) }, server.records).await.unwrap();
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let first = bind(&config(&[]), Arc::default()).await.unwrap();
    let listen = first.address;
    let error = bind(&Config { listen, ..config(&[]) }, Arc::default()).await.unwrap_err();
    assert_eq!(error.to_string(), format!("dns.listen: cannot listen on {listen}"));
    drop(first);

    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let listen = udp.local_addr().unwrap();
    let error = bind(&Config { listen, ..config(&[]) }, Arc::default()).await.unwrap_err();
    assert_eq!(error.to_string(), format!("dns.listen: cannot listen on {listen}"));
}

#[test]
fn servers_of_the_system_are_read_from_its_file() {
    let file =
        "# a comment\nsearch x.example\nnameserver 10.0.0.2\nnameserver fd00::1\noptions ndots:5\n";
    let servers: Vec<_> = nameservers(file.as_bytes()).iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["10.0.0.2:53", "[fd00::1]:53"]);
    assert_eq!(nameservers(b"\xff nonsense"), []);
    assert_eq!(nameservers(b""), []);
}
