//! A DNS question to a zone, as the system's resolver cannot be pointed to another port.

use anyhow::{Context, Result, bail};
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};
use tokio::{net::UdpSocket, time::timeout};

/// The address of `name`, as `server` says.
pub(crate) async fn resolve(server: SocketAddr, name: &str) -> Result<Ipv4Addr> {
    let mut question = Message::new(0xa701, MessageType::Query, OpCode::Query);
    question.add_query(Query::query(Name::from_ascii(name)?, RecordType::A));
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    socket.send_to(&question.to_vec()?, server).await?;
    let mut bytes = [0; 1500];
    let read = timeout(Duration::from_secs(2), socket.recv(&mut bytes)).await;
    let read = read.with_context(|| format!("no answer from {server}"))??;
    let answer = Message::from_vec(bytes.get(..read).unwrap_or_default())?;
    if answer.metadata.response_code != ResponseCode::NoError {
        bail!("{name}: {}", answer.metadata.response_code);
    }
    let address = answer.answers.iter().find_map(|record| {
        if let RData::A(address) = &record.data { Some(address.0) } else { None }
    });
    address.with_context(|| format!("{name} has no address"))
}
