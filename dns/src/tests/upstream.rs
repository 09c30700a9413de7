//! Upstream servers of tests, on loopback.

use hickory_proto::{
    op::{Message, Metadata, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, CNAME, SOA},
    },
};
use parking_lot::Mutex;
use std::{net::SocketAddr, sync::Arc};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UdpSocket},
    task::JoinSet,
};

/// How a server behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// Answers.
    Good,
    /// Says over UDP that the answer does not fit.
    OverTcp,
    /// Answers SERVFAIL.
    Broken,
    /// Never answers.
    Silent,
}

/// A server; it ends with this value.
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    /// The questions, with the transport by which they came.
    pub(super) asked: Arc<Mutex<Vec<String>>>,
    _loops: JoinSet<()>,
}

impl Upstream {
    pub(super) async fn start(manner: Manner) -> Self {
        let (tcp, udp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                break (tcp, udp);
            }
        };
        let (address, asked) = (tcp.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let mut loops = JoinSet::new();
        let seen = asked.clone();
        loops.spawn(async move {
            let mut buffer = [0; 2048];
            while let Ok((len, client)) = udp.recv_from(&mut buffer).await {
                if let Some(answer) = respond(&buffer[..len], manner, "udp", &seen) {
                    udp.send_to(&answer, client).await.unwrap();
                }
            }
        });
        let seen = asked.clone();
        loops.spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                while let Ok(len) = stream.read_u16().await {
                    let mut message = vec![0; len.into()];
                    stream.read_exact(&mut message).await.unwrap();
                    if let Some(answer) = respond(&message, manner, "tcp", &seen) {
                        stream.write_u16(answer.len() as u16).await.unwrap();
                        stream.write_all(&answer).await.unwrap();
                    }
                }
            }
        });
        Self { address, asked, _loops: loops }
    }
}

/// `www.example.` is an alias of `example.`, which has one address; nothing else exists.
fn respond(
    query: &[u8],
    manner: Manner,
    transport: &str,
    asked: &Mutex<Vec<String>>,
) -> Option<Vec<u8>> {
    let request = Message::from_vec(query).unwrap();
    let question = request.queries[0].clone();
    let (name, record_type) = (question.name().clone(), question.query_type());
    asked.lock().push(format!("{transport} {} {record_type}", name.to_lowercase()));
    let mut response = Message::response(request.metadata.id, request.metadata.op_code);
    response.metadata = Metadata::response_from_request(&request.metadata);
    response.add_query(question);
    let parsed = |name| Name::from_ascii(name).unwrap();
    match manner {
        Manner::Silent => return None,
        Manner::Broken => response.metadata.response_code = ResponseCode::ServFail,
        Manner::OverTcp if transport == "udp" => response.metadata.truncation = true,
        Manner::Good | Manner::OverTcp => {
            let exists = ["example.", "www.example."].contains(&&*name.to_lowercase().to_ascii());
            if exists && record_type == RecordType::A {
                if name != parsed("example.") {
                    let alias = RData::CNAME(CNAME(parsed("example.")));
                    response.add_answer(Record::from_rdata(name, 60, alias));
                }
                let address = RData::A(A::new(192, 0, 2, 7));
                response.add_answer(Record::from_rdata(parsed("example."), 60, address));
            } else {
                if !exists {
                    response.metadata.response_code = ResponseCode::NXDomain;
                }
                let soa = SOA::new(parsed("ns.example."), parsed("who.example."), 1, 2, 3, 4, 20);
                response.add_authority(Record::from_rdata(parsed("example."), 20, RData::SOA(soa)));
            }
        }
    }
    Some(response.to_vec().unwrap())
}
