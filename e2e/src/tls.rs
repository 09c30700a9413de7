//! A TLS client that does not ask who the server is, and authorities that make its certificates.

use crate::peer::Hello;
use anyhow::{Context, Result};
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
use std::{net::IpAddr, ops::Range, sync::Arc};
use time::{Duration, OffsetDateTime};

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
