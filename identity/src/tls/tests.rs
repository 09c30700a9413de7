use super::{accept::HANDSHAKE, files::SelfMade, *};
use crate::{Authority, SpiffeId, TrustDomain, certificates};
use daemon::{Clock, config::Problems};
use jiff::Timestamp;
use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn authority() -> Authority {
    let domain = TrustDomain::new("global.mesh.local").unwrap();
    Authority::generate(&domain, Timestamp::now()).unwrap()
}

fn id(path: &str) -> SpiffeId {
    format!("spiffe://global.mesh.local{path}").parse().unwrap()
}

/// Writes a certificate and its key into files that a configuration names.
fn given(folder: &Path, authority: &Authority) -> TlsConfig {
    let names = vec![rcgen::SanType::DnsName("global".try_into().unwrap())];
    let (chain, key) = authority.issue_server(names, Timestamp::now(), DAY).unwrap();
    fs::write(folder.join("cert.pem"), chain).unwrap();
    fs::write(folder.join("key.pem"), &*key).unwrap();
    let path = |name| folder.join(name).to_str().unwrap().to_owned();
    TlsConfig { cert_file: path("cert.pem"), key_file: path("key.pem"), ..TlsConfig::default() }
}

fn open(config: &TlsConfig, data: &Path) -> Result<ServerTls, String> {
    ServerTls::open("kds.tls", config, data, Clock::system())
        .map_err(|error| format!("{:#}", anyhow::Error::new(error)))
}

fn names(path: &Path) -> Vec<String> {
    let der = certificates(&fs::read_to_string(path).unwrap()).unwrap().remove(0);
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    names.value.general_names.iter().map(GeneralName::to_string).collect()
}

/// The certificate with which a server answers.
async fn shown(tls: &ServerTls, ca: &str, host: &'static str) -> Result<Vec<u8>, String> {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let acceptor = TlsAcceptor::from(tls.current(Alpn::Grpc));
    let connector = TlsConnector::from(client_config(ca, None, Alpn::Grpc).unwrap());
    let (_, client) =
        tokio::join!(acceptor.accept(ours), connector.connect(host.try_into().unwrap(), theirs));
    let client = client.map_err(|error| error.to_string())?;
    let (_, session) = client.get_ref();
    assert_eq!(session.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]));
    Ok(session.peer_certificates().unwrap()[0].to_vec())
}

#[tokio::test]
async fn a_server_makes_a_certificate_for_itself_and_keeps_it() {
    let data = folder();
    let tls = open(&TlsConfig::default(), data.path()).unwrap();
    let file = |name| data.path().join("tls").join(name);
    assert_eq!(tls.ca_file(), Some(file("ca.crt")));
    let ca = tls.ca_pem().unwrap().unwrap();
    let certificate = shown(&tls, &ca, "localhost").await.unwrap();
    for address in ["127.0.0.1", "::1"] {
        assert_eq!(shown(&tls, &ca, address).await.as_ref(), Ok(&certificate));
    }
    assert!(shown(&tls, &ca, "elsewhere").await.is_err());
    assert!(shown(&tls, authority().certificate_pem(), "localhost").await.is_err());
    for (name, mode) in [("ca.key", 0o600), ("server.key", 0o600)] {
        assert_eq!(fs::metadata(file(name)).unwrap().permissions().mode() & 0o777, mode, "{name}");
    }

    let again = open(&TlsConfig::default(), data.path()).unwrap();
    assert_eq!(shown(&again, &ca, "localhost").await, Ok(certificate.clone()));
    let names_too = TlsConfig { names: vec!["Global.example".into()], ..TlsConfig::default() };
    let more = open(&names_too, data.path()).unwrap();
    assert_ne!(shown(&more, &ca, "global.example").await, Ok(certificate));
    let third = open(&TlsConfig::default(), data.path()).unwrap();
    let kept = shown(&third, &ca, "global.example").await;
    assert!(kept.is_ok(), "{kept:?}: servers of a process share the certificate");
}

#[test]
fn a_certificate_of_our_own_is_renewed_before_it_ends() {
    let data = folder();
    let made = SelfMade::new(data.path(), &[]);
    let start: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
    let read = || fs::read_to_string(&made.certificate.path).unwrap();
    let renew_at = made.ensure(start).unwrap();
    assert_eq!(renew_at.to_string(), "2030-10-20T00:00:00Z");
    let first = read();
    let ca = fs::read_to_string(&made.authority.path).unwrap();
    assert_eq!(made.ensure(renew_at - jiff::SignedDuration::from_secs(1)).unwrap(), renew_at);
    assert_eq!(read(), first);
    assert!(made.ensure(renew_at).unwrap() > renew_at);
    assert_ne!(read(), first);
    assert_eq!(fs::read_to_string(&made.authority.path).unwrap(), ca);
    assert!(names(&made.certificate.path).contains(&"DNSName(localhost)".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn files_that_change_are_loaded_and_bad_ones_are_not() {
    let (data, authority) = (folder(), authority());
    let tls = open(&given(data.path(), &authority), data.path()).unwrap();
    let ca = authority.certificate_pem();
    let first = shown(&tls, ca, "global").await.unwrap();

    fs::write(data.path().join("cert.pem"), "half").unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(shown(&tls, ca, "global").await.unwrap(), first, "what was good last stays");

    given(data.path(), &authority);
    assert_eq!(shown(&tls, ca, "global").await.unwrap(), first, "once a second");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_ne!(shown(&tls, ca, "global").await.unwrap(), first);
}

/// What a client of ours reads, and what it finds there at first.
fn client_files(folder: &Path, authority: &Authority) -> ClientFiles {
    let file = |name| folder.join(name);
    fs::write(file("ca.pem"), authority.certificate_pem()).unwrap();
    let svid = authority.issue(&id("/zone/east"), Timestamp::now(), DAY).unwrap();
    fs::write(file("own.pem"), &svid.chain_pem).unwrap();
    fs::write(file("own.key"), &*svid.key_pem).unwrap();
    ClientFiles { ca: file("ca.pem"), identity: Some((file("own.pem"), file("own.key"))) }
}

#[tokio::test]
async fn a_client_reads_changed_files_for_its_next_connection() {
    let folder = folder();
    let [old, new] = [authority(), authority()];
    let client = ClientTls::open("global", &client_files(folder.path(), &old), Alpn::Grpc).unwrap();
    let server = async |authority: &Authority| {
        let data = self::folder();
        let mut config = given(data.path(), authority);
        fs::write(data.path().join("clients.pem"), authority.certificate_pem()).unwrap();
        config.client_ca_file = data.path().join("clients.pem").to_str().unwrap().to_owned();
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let acceptor = TlsAcceptor::from(open(&config, data.path()).unwrap().current(Alpn::Grpc));
        let connector = TlsConnector::from(client.current());
        let name = "global".try_into().unwrap();
        let (accepted, connected) =
            tokio::join!(acceptor.accept(ours), connector.connect(name, theirs));
        connected.map_err(|error| error.to_string())?;
        let accepted = accepted.map_err(|error| error.to_string())?;
        let peer = accept::peer(
            SocketAddr::from(([127, 0, 0, 1], 1)),
            accepted.get_ref().1.peer_certificates(),
        );
        Ok::<_, String>(peer.spiffe_ids)
    };
    assert_eq!(server(&old).await, Ok(vec![id("/zone/east")]));
    assert!(server(&new).await.is_err(), "another authority is believed");

    fs::write(folder.path().join("ca.pem"), "half").unwrap();
    assert_eq!(server(&old).await, Ok(vec![id("/zone/east")]), "what was good last stays");
    let both = format!("{}{}", old.certificate_pem(), new.certificate_pem());
    fs::write(folder.path().join("ca.pem"), both).unwrap();
    assert_eq!(server(&old).await, Ok(vec![id("/zone/east")]));
    // The key alone is another one's: both stay as they were.
    let svid = new.issue(&id("/zone/west"), Timestamp::now(), DAY).unwrap();
    fs::write(folder.path().join("own.key"), &*svid.key_pem).unwrap();
    assert_eq!(server(&old).await, Ok(vec![id("/zone/east")]));
    fs::write(folder.path().join("own.pem"), &svid.chain_pem).unwrap();
    assert_eq!(server(&new).await, Ok(vec![id("/zone/west")]));
}

#[test]
fn a_client_names_the_file_that_it_cannot_use() {
    let folder = folder();
    let files = client_files(folder.path(), &authority());
    let reason = |files: &ClientFiles| {
        let error = ClientTls::open("global", files, Alpn::Grpc).unwrap_err();
        format!("{:#}", anyhow::Error::new(error))
    };
    let path = |name: &str| folder.path().join(name).display().to_string();
    let missing = ClientFiles { ca: folder.path().join("none"), ..files.clone() };
    let expected = format!("global.caFile: cannot read {}: No such file", path("none"));
    assert!(reason(&missing).starts_with(&expected), "{}", reason(&missing));
    let empty = ClientFiles { ca: folder.path().join("own.key"), ..files.clone() };
    let expected =
        format!("global.caFile: {} holds no certificate as PEM, or a damaged one", path("own.key"));
    assert_eq!(reason(&empty), expected);
    let swapped =
        ClientFiles { identity: Some((files.ca.clone(), folder.path().join("own.key"))), ..files };
    let expected = format!(
        "global.keyFile: the key in {} does not belong to the certificate in {}",
        path("own.key"),
        path("ca.pem")
    );
    assert_eq!(reason(&swapped), expected);
}

#[tokio::test]
async fn each_mistake_names_the_setting_and_the_file() {
    let (data, authority) = (folder(), authority());
    let config = given(data.path(), &authority);
    let file = |name: &str| data.path().join(name).display().to_string();
    let reason = |config: &TlsConfig| open(config, data.path()).unwrap_err();

    let missing = TlsConfig { cert_file: file("none.pem"), ..config.clone() };
    let expected = format!("kds.tls.certFile: cannot read {}: No such file", file("none.pem"));
    assert!(reason(&missing).starts_with(&expected), "{}", reason(&missing));
    let swapped = TlsConfig { cert_file: file("key.pem"), ..config.clone() };
    assert_eq!(
        reason(&swapped),
        format!(
            "kds.tls.certFile: {} holds no certificate as PEM, or a damaged one",
            file("key.pem")
        )
    );
    let swapped = TlsConfig { key_file: file("cert.pem"), ..config.clone() };
    assert_eq!(
        reason(&swapped),
        format!("kds.tls.keyFile: {} holds no private key as PEM", file("cert.pem"))
    );
    fs::write(data.path().join("other.pem"), authority.key_pem()).unwrap();
    let other = TlsConfig { key_file: file("other.pem"), ..config.clone() };
    assert_eq!(
        reason(&other),
        format!(
            "kds.tls.keyFile: the key in {} does not belong to the certificate in {}",
            file("other.pem"),
            file("cert.pem")
        )
    );
    let clients = TlsConfig { client_ca_file: file("key.pem"), ..config };
    assert!(reason(&clients).starts_with("kds.tls.clientCaFile: "), "{}", reason(&clients));

    fs::write(data.path().join("tls"), "a file where a folder should be").unwrap();
    let expected = format!("dataDir: cannot write {}: ", file("tls"));
    let unwritable = reason(&TlsConfig::default());
    assert!(unwritable.starts_with(&expected), "{unwritable}");
}

#[tokio::test]
async fn an_authority_without_its_key_is_not_replaced() {
    let data = folder();
    open(&TlsConfig::default(), data.path()).unwrap();
    fs::remove_file(data.path().join("tls/server.crt")).unwrap();
    fs::remove_file(data.path().join("tls/ca.key")).unwrap();
    let error = open(&TlsConfig::default(), data.path()).unwrap_err();
    assert!(error.starts_with("dataDir: cannot read "), "{error}");
    let other = authority();
    fs::write(data.path().join("tls/ca.key"), other.key_pem()).unwrap();
    let error = open(&TlsConfig::default(), data.path()).unwrap_err();
    let reason = "cannot be used: the private key does not belong to the certificate";
    assert!(error.ends_with(reason), "{error}");
}

/// Waits for both ends, which real sockets connect, but not for ever.
async fn both<A, B>(one: impl Future<Output = A>, other: impl Future<Output = B>) -> (A, B) {
    let both = async { tokio::join!(one, other) };
    tokio::time::timeout(Duration::from_secs(20), both).await.expect("an end waits for ever")
}

#[tokio::test]
async fn a_listener_says_who_the_peer_is() {
    let (data, authority) = (folder(), authority());
    let mut config = given(data.path(), &authority);
    let ca = data.path().join("ca.pem");
    fs::write(&ca, authority.certificate_pem()).unwrap();
    config.client_ca_file = ca.to_str().unwrap().to_owned();
    let tls = Arc::new(open(&config, data.path()).unwrap());
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut listener = TlsListener::new(tcp, tls, Alpn::Grpc);
    let server = listener.local_addr().unwrap();

    let svid = authority.issue(&id("/zone/east"), Timestamp::now(), DAY).unwrap();
    let stranger = self::authority();
    let strange = stranger.issue(&id("/zone/east"), Timestamp::now(), DAY).unwrap();
    let pem = authority.certificate_pem();
    let client = |identity| client_config(pem, identity, Alpn::Grpc).unwrap();
    let connect = async |identity| {
        let tcp = TcpStream::connect(server).await?;
        let address = tcp.local_addr()?;
        let connector = TlsConnector::from(client(identity));
        let mut stream = connector.connect("global".try_into().unwrap(), tcp).await?;
        stream.read_u8().await?;
        io::Result::Ok(address)
    };
    let mut accept = async || {
        let mut stream = listener.accept().await;
        stream.write_u8(1).await.unwrap();
        stream.peer().clone()
    };
    let nobody = Peer::unknown;

    let (address, peer) = both(connect(None), accept()).await;
    assert_eq!(peer, nobody(address.unwrap()));

    let (address, peer) = both(connect(Some((&svid.chain_pem, &svid.key_pem))), accept()).await;
    let chain = certificates(&svid.chain_pem).unwrap();
    let (expires, fingerprint) = (crate::not_after(&chain[0]), Some(Fingerprint::of(&chain[0])));
    let spiffe_ids = vec![id("/zone/east")];
    let shown = Peer { spiffe_ids, expires, fingerprint, ..nobody(address.unwrap()) };
    assert!(expires.is_some_and(|end| end > Timestamp::now()));
    assert_eq!(peer, shown);

    // Somebody else's certificate is refused; the listener goes on.
    let (address, peer) = both(
        async {
            let refused = connect(Some((&strange.chain_pem, &strange.key_pem))).await;
            assert!(refused.is_err(), "{refused:?}");
            connect(None).await
        },
        accept(),
    )
    .await;
    assert_eq!(peer, nobody(address.unwrap()));
}

#[tokio::test]
async fn who_speaks_something_else_is_counted_and_others_are_served() {
    let data = folder();
    let tls = Arc::new(open(&TlsConfig::default(), data.path()).unwrap());
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let mut listener = TlsListener::new(tcp, tls.clone(), Alpn::Grpc);
    let trusted = tls.ca_pem().unwrap().unwrap();
    let client = async || {
        let config = client_config(&trusted, None, Alpn::Grpc).unwrap();
        let tcp = TcpStream::connect(address).await.unwrap();
        let name = "localhost".try_into().unwrap();
        TlsConnector::from(config).connect(name, tcp).await.unwrap()
    };
    // Who only looks whether the port is open.
    drop(TcpStream::connect(address).await.unwrap());
    let noise = async {
        let mut noise = TcpStream::connect(address).await.unwrap();
        noise.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut rest = Vec::new();
        // What it is told does not matter, but that it is over.
        noise.read_to_end(&mut rest).await.ok();
        client().await
    };
    let (mut ours, mut theirs) = tokio::join!(listener.accept(), noise);
    assert_eq!(tls.strangers().refused(), 1);
    let mut read = [0; 24];
    for part in [&b"PRI * HTTP/2"[..], b".0\r\n\r\nSM\r\n\r\n"] {
        theirs.write_all(part).await.unwrap();
        ours.read_exact(&mut read[..part.len()]).await.unwrap();
    }
    assert_eq!(tls.strangers().refused(), 1);
    let (mut ours, mut theirs) = tokio::join!(listener.accept(), client());
    for part in [&b"PRI * HTTP/2"[..], b".1\r\n\r\nSM", b"more"] {
        theirs.write_all(part).await.unwrap();
        ours.read_exact(&mut read[..part.len()]).await.unwrap();
    }
    assert_eq!(tls.strangers().refused(), 2, "once for one connection");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_gone_in_time() {
    let data = folder();
    let tls = open(&TlsConfig::default(), data.path()).unwrap();
    let (silent, ours) = tokio::io::duplex(1024);
    let began = tokio::time::Instant::now();
    let acceptor = TlsAcceptor::from(tls.current(Alpn::Http));
    let error = accept::handshake(&acceptor, ours).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(began.elapsed(), HANDSHAKE);
    drop(silent);
}

#[test]
fn without_an_authority_there_is_no_client() {
    for nothing in ["", "text", authority().key_pem()] {
        let error = client_config(nothing, None, Alpn::Http).unwrap_err();
        assert!(matches!(error, TlsError::NoAuthority), "{error:?}");
    }
}

#[test]
fn names_of_a_certificate_are_read() {
    let authority = authority();
    let names = vec![rcgen::SanType::DnsName("East.Example".try_into().unwrap())];
    let (chain, _) = authority.issue_server(names, Timestamp::now(), DAY).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let chain = certificates(&chain).unwrap();
    let peer = accept::peer(address, Some(&chain));
    let (expires, fingerprint) = (peer.expires, Some(Fingerprint::of(&chain[0])));
    assert!(expires.is_some());
    let dns_names = vec!["east.example".into()];
    let shown = Peer { dns_names, expires, fingerprint, ..Peer::unknown(address) };
    assert_eq!(peer, shown);
    // All of them: whoever decides must see that there are several.
    let uri = |path| rcgen::SanType::URI(id(path).to_string().try_into().unwrap());
    let dns = |name: &str| rcgen::SanType::DnsName(name.try_into().unwrap());
    let names = vec![uri("/zone/east"), uri("/zone/west"), dns("north"), dns("South")];
    let (chain, _) = authority.issue_server(names, Timestamp::now(), DAY).unwrap();
    let peer = accept::peer(address, Some(&certificates(&chain).unwrap()));
    assert_eq!(peer.spiffe_ids, ["/zone/east", "/zone/west"].map(id));
    assert_eq!(peer.dns_names, ["north", "south"]);
    assert_eq!(accept::peer(address, Some(&[])).dns_names, [""; 0]);
}

#[test]
fn a_configuration_names_its_mistakes() {
    let config = TlsConfig {
        key_file: "key.pem".into(),
        names: vec!["global".into(), "no good".into(), "10.0.0.1".into()],
        ..TlsConfig::default()
    };
    let mut problems = Problems::default();
    problems.at("kds.tls", |problems| config.check(problems));
    let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "kds.tls.certFile: must be set together with keyFile",
            r#"kds.tls.names[1]: "no good" is not a host name or an address"#,
        ]
    );
}

#[tokio::test]
async fn certificates_in_files_say_when_they_end_and_who_renews_them() {
    let (data, authority) = (folder(), authority());
    let facts = |endings: Vec<Ending>| {
        let fact = |it: &Ending| (it.setting.clone(), it.role, it.renewed);
        (endings.iter().map(fact).collect::<Vec<_>>(), endings)
    };
    let (made, _) = facts(open(&TlsConfig::default(), data.path()).unwrap().endings());
    assert_eq!(
        made.iter().map(|(_, role, renewed)| (*role, *renewed)).collect::<Vec<_>>(),
        [(Role::Own, true), (Role::OwnAuthority, false)]
    );
    let ca = data.path().join("clients.pem");
    fs::write(&ca, authority.certificate_pem()).unwrap();
    let config =
        TlsConfig { client_ca_file: ca.to_str().unwrap().into(), ..given(data.path(), &authority) };
    let (given, endings) = facts(open(&config, data.path()).unwrap().endings());
    let own = ("kds.tls.certFile".to_owned(), Role::Own, false);
    assert_eq!(given, [own, ("kds.tls.clientCaFile".into(), Role::Authority, false)]);
    assert_eq!(endings[1].not_after, authority.not_after());
    assert!(endings[0].not_after < Timestamp::now() + DAY);

    let path = |name: &str| data.path().join(name);
    let identity = Some((path("cert.pem"), path("key.pem")));
    let client = ClientTls::open("global", &ClientFiles { ca, identity }, Alpn::Grpc).unwrap();
    let (given, _) = facts(client.endings());
    let own = ("global.certFile".to_owned(), Role::Own, false);
    assert_eq!(given, [own, ("global.caFile".into(), Role::Authority, false)]);
}
