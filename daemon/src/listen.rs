//! Opens ports, and says which setting is wrong if one cannot be opened.

use std::{io, net::SocketAddr};
use tokio::net::{TcpListener, UdpSocket};

/// A port that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: cannot listen on {address}")]
pub struct ListenError {
    setting: &'static str,
    address: SocketAddr,
    source: io::Error,
}

/// Listens on `address`, which stands in `setting`. Port 0 picks a free one.
pub async fn listen(
    address: SocketAddr,
    setting: &'static str,
) -> Result<TcpListener, ListenError> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|source| ListenError { setting, address, source })
}

/// Receives datagrams on `address`, which stands in `setting`. Port 0 picks a free one.
pub async fn listen_udp(
    address: SocketAddr,
    setting: &'static str,
) -> Result<UdpSocket, ListenError> {
    let socket = UdpSocket::bind(address).await;
    socket.map_err(|source| ListenError { setting, address, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_named_with_its_setting() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let first = listen(any, "api.http").await.unwrap();
        let address = first.local_addr().unwrap();
        let error = listen(address, "api.http").await.unwrap_err();
        assert_eq!(error.to_string(), format!("api.http: cannot listen on {address}"));
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);

        let first = listen_udp(any, "dns.listen").await.unwrap();
        let address = first.local_addr().unwrap();
        let error = listen_udp(address, "dns.listen").await.unwrap_err();
        assert_eq!(error.to_string(), format!("dns.listen: cannot listen on {address}"));
    }
}
