//! A TLS client that does not ask who the server is, and authorities that make its certificates.

use crate::{PATIENCE, peer::Hello};
use anyhow::{Context, Result};
use http_body_util::Empty;
use hyper::{
    Request,
    body::Bytes,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    version::{TLS12, TLS13},
};
use serde_json::{Value, json};
use std::{
    net::{IpAddr, SocketAddr},
    ops::Range,
    sync::Arc,
};
use time::{Duration, OffsetDateTime};
use tokio::{
    net::TcpStream,
    runtime::{Builder, Runtime},
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// How a client says `hello`.
pub fn client(hello: &Hello) -> Result<Arc<ClientConfig>> {
    let versions = if hello.old { &[&TLS12][..] } else { &[&TLS12, &TLS13] };
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let mut config = match &hello.identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain =
                CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>()?;
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes())?)?
        }
    };
    config.alpn_protocols = hello.alpn.iter().map(|it| it.clone().into_bytes()).collect();
    Ok(Arc::new(config))
}

/// Whom it asks for: nobody, if it says no name, since an address is not sent.
pub fn server_name(hello: &Hello, address: IpAddr) -> Result<ServerName<'static>> {
    match &hello.sni {
        Some(name) => ServerName::try_from(name.clone()).with_context(|| name.clone()),
        None => Ok(address.into()),
    }
}

/// Takes every server.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// An authority of the test's own making.
#[derive(Debug)]
pub struct Authority {
    domain: String,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// When certificates are valid that are valid now, in hours from now.
pub const NOW: Range<i64> = -1..1;

impl Authority {
    /// Makes one that speaks for a trust domain.
    pub fn new(domain: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = params(&[&format!("spiffe://{domain}")], -24..24)?;
        params.distinguished_name.push(DnType::CommonName, domain);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { domain: domain.into(), pem, issuer: Issuer::new(params, key) })
    }

    /// A MeshTrust by which `mesh` believes it.
    #[must_use]
    pub fn trust(&self, mesh: &str, name: &str) -> Value {
        json!({
            "type": "MeshTrust", "mesh": mesh, "name": name,
            "spec": {
                "trustDomain": self.domain,
                "caBundles": [{ "type": "Pem", "pem": { "value": self.pem } }],
            },
        })
    }

    /// Its certificate, as PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate of a server at `address`, and its key, as PEM.
    pub fn server(&self, address: IpAddr) -> Result<(String, String)> {
        let key = KeyPair::generate()?;
        let mut params = params(&[], NOW)?;
        params.subject_alt_names = vec![SanType::IpAddress(address)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        Ok((params.signed_by(&key, &self.issuer)?.pem(), key.serialize_pem()))
    }

    /// The ID of a workload of its trust domain.
    #[must_use]
    pub fn workload(&self, name: &str) -> String {
        format!("spiffe://{}/workload/{name}", self.domain)
    }

    /// A certificate with the SPIFFE IDs `ids`, and its key, as PEM.
    pub fn issue(&self, ids: &[&str], valid: Range<i64>) -> Result<(String, String)> {
        let key = KeyPair::generate()?;
        let mut params = params(ids, valid)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        Ok((params.signed_by(&key, &self.issuer)?.pem(), key.serialize_pem()))
    }
}

/// Another certificate of an authority that Atoll made for its servers, with the same name and key, which
/// is valid for so many hours from now.
pub fn aged(key: &str, valid: Range<i64>) -> Result<String> {
    let mut params = params(&[], valid)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Atoll");
    params.distinguished_name.push(DnType::CommonName, "Atoll control plane");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params.self_signed(&KeyPair::from_pem(key)?)?.pem())
}

/// A connection with a server, which stays open.
#[derive(Debug)]
pub struct Open {
    runtime: Runtime,
    sender: SendRequest<Empty<Bytes>>,
    /// The certificate that the server showed, as DER.
    pub certificate: Vec<u8>,
}

impl Open {
    /// Connects, whoever answers.
    pub fn to(address: SocketAddr) -> Result<Self> {
        // It answers pings while nobody asks.
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let hello = Hello { alpn: vec!["h2".into()], ..Hello::default() };
        let (connector, name) =
            (TlsConnector::from(client(&hello)?), server_name(&hello, address.ip())?);
        let connected = runtime.block_on(async {
            let stream = connector.connect(name, TcpStream::connect(address).await?).await?;
            let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let certificate = shown.context("a certificate")?.to_vec();
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
            Ok::<_, anyhow::Error>((sender, connection, certificate))
        });
        let (sender, connection, certificate) = connected?;
        runtime.spawn(connection);
        Ok(Self { runtime, sender, certificate })
    }

    /// Fails unless there is an answer, whatever it is.
    pub fn ask(&mut self) -> Result<()> {
        let request = Request::builder().uri("https://server/").body(Empty::new())?;
        let answer = self.sender.send_request(request);
        let answer = self.runtime.block_on(async { timeout(PATIENCE, answer).await });
        answer.context("no answer")??;
        Ok(())
    }
}

/// A certificate that nobody but its owner signed, and its key, as PEM.
pub fn self_made(id: &str) -> Result<(String, String)> {
    let key = KeyPair::generate()?;
    Ok((params(&[id], NOW)?.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn params(ids: &[&str], valid: Range<i64>) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let uri = |id: &&str| Ok(SanType::URI((*id).try_into()?));
    params.subject_alt_names = ids.iter().map(uri).collect::<Result<_>>()?;
    let now = OffsetDateTime::now_utc();
    params.not_before = now + Duration::hours(valid.start);
    params.not_after = now + Duration::hours(valid.end);
    Ok(params)
}
