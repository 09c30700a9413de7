//! The certificate authority of a trust domain, and what it issues.

use crate::{SpiffeId, TrustDomain, pem};
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType,
};
use rustls_pki_types::CertificateDer;
use std::{fmt, time::Duration};
use time::OffsetDateTime;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};
use zeroize::Zeroizing;

/// How long an authority of ours is valid.
const AUTHORITY_LIFE: SignedDuration = SignedDuration::from_hours(24 * 3650);

/// Clocks of peers may be this much behind.
const SKEW: SignedDuration = SignedDuration::from_secs(10);

/// Why an authority cannot be used, or cannot issue.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The certificate is not PEM, or not a certificate.
    #[error("the certificate cannot be read")]
    Certificate,
    /// The key is not a private key that we know.
    #[error("the private key cannot be read (P-256, P-384 or RSA as PEM)")]
    Key,
    /// The certificate is another key's.
    #[error("the private key does not belong to the certificate")]
    Mismatch,
    /// The certificate may not sign others.
    #[error("the certificate is not that of a certificate authority")]
    NotAuthority,
    /// The subject has a form that would come out differently as the issuer of a certificate.
    #[error("the certificate's subject has a form that is not supported")]
    Subject,
    /// Nobody is called so.
    #[error("{0:?} is not a host name or an address")]
    Name(String),
    /// It was valid, or will be.
    #[error("the certificate is not valid now")]
    NotValid,
    /// Signing failed.
    #[error("cannot sign a certificate")]
    Sign(#[from] rcgen::Error),
}

/// A certificate authority.
pub struct Authority {
    certificate_pem: String,
    key_pem: Zeroizing<String>,
    /// Sent with each certificate, so that a peer that only trusts the root can verify it.
    intermediates_pem: String,
    not_before: Timestamp,
    not_after: Timestamp,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate of a workload, with its key.
#[derive(Clone, PartialEq, Eq)]
pub struct Svid {
    /// Whose it is.
    pub id: SpiffeId,
    /// The certificate, then those that lead to a root, as PEM.
    pub chain_pem: String,
    /// The private key, as PEM.
    pub key_pem: Zeroizing<String>,
    /// From when it is valid.
    pub not_before: Timestamp,
    /// Until when it is valid.
    pub not_after: Timestamp,
}

/// A certificate of a server, with its key, and what its clients trust. Its key is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerPair {
    /// The certificate, then those that lead to a root, as PEM.
    pub chain_pem: String,
    /// The private key, as PEM.
    pub key_pem: Zeroizing<String>,
    /// The authorities that clients are given, as PEM.
    pub ca_pem: String,
}

impl fmt::Debug for ServerPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerPair").field("chain_pem", &self.chain_pem).finish_non_exhaustive()
    }
}

impl Svid {
    /// When a new one shall take its place: after four fifths of its life.
    #[must_use]
    pub fn renew_at(&self) -> Timestamp {
        renewal(self.not_before, self.not_after)
    }
}

/// After four fifths of a life, which begins when the certificate was made.
pub(crate) fn renewal(not_before: Timestamp, not_after: Timestamp) -> Timestamp {
    let life = (not_before.duration_until(not_after) - SKEW).max(SignedDuration::ZERO);
    not_after.saturating_sub(life / 5).unwrap_or(not_after)
}

fn two_thirds(not_before: Timestamp, not_after: Timestamp) -> Timestamp {
    let life = not_before.duration_until(not_after).max(SignedDuration::ZERO);
    not_after.saturating_sub(life / 3).unwrap_or(not_after)
}

/// When the certificate of a server shall be replaced, if it is one that `authority` issued and names
/// all of `names`: after two thirds of its life.
#[must_use]
pub fn renew_server_at(
    pair: &ServerPair,
    authority: &Authority,
    names: &[String],
) -> Option<Timestamp> {
    let chain = certificates(&pair.chain_pem)?;
    let (own, authority) = (chain.first()?, certificates(&authority.certificate_pem)?);
    let (_, parsed) = X509Certificate::from_der(own).ok()?;
    let sans = parsed.subject_alternative_name().ok()??;
    let has: Vec<String> = sans.value.general_names.iter().filter_map(crate::tls::name).collect();
    let all = names.iter().all(|name| has.contains(name));
    let instant = |second| Timestamp::from_second(second).ok();
    let validity = parsed.validity();
    let (from, to) =
        (instant(validity.not_before.timestamp())?, instant(validity.not_after.timestamp())?);
    (all && is_issued_by(own, authority.first()?)).then(|| two_thirds(from, to))
}

impl Authority {
    /// Makes an authority with a new P-256 key.
    pub fn generate(trust_domain: &TrustDomain, now: Timestamp) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = authority_params(trust_domain.as_str(), now);
        params.subject_alt_names = vec![uri(&trust_domain.id())?];
        let certificate = params.self_signed(&key)?;
        Self::from_pem(&certificate.pem(), &key.serialize_pem())
    }

    /// Reads an authority: its certificate, possibly followed by those above it, and its key.
    pub fn from_pem(certificates: &str, key: &str) -> Result<Self, AuthorityError> {
        let key_pem = Zeroizing::new(key.to_owned());
        let key = KeyPair::from_pem(key).map_err(|_| AuthorityError::Key)?;
        let chain = self::certificates(certificates).ok_or(AuthorityError::Certificate)?;
        let own = chain.first().ok_or(AuthorityError::Certificate)?;
        let (_, parsed) =
            X509Certificate::from_der(own).map_err(|_| AuthorityError::Certificate)?;
        if parsed.public_key().subject_public_key.data != key.der_bytes() {
            return Err(AuthorityError::Mismatch);
        }
        if !parsed.is_ca() {
            return Err(AuthorityError::NotAuthority);
        }
        let instant = |time: x509_parser::time::ASN1Time| {
            Timestamp::from_second(time.timestamp()).map_err(|_| AuthorityError::Certificate)
        };
        let (not_before, not_after) =
            (instant(parsed.validity().not_before)?, instant(parsed.validity().not_after)?);
        let issuer = Issuer::from_ca_cert_der(own, key).map_err(|_| AuthorityError::Certificate)?;
        keeps_subject(&issuer, &parsed)?;
        let intermediates_pem = chain.iter().filter(|der| !is_root(der)).map(to_pem).collect();
        Ok(Self {
            certificate_pem: chain.iter().map(to_pem).collect(),
            key_pem,
            intermediates_pem,
            not_before,
            not_after,
            issuer,
        })
    }

    /// Its certificate as PEM: what verifiers trust.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Its private key as PEM.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Whether nobody else vouches for it.
    #[must_use]
    pub fn is_self_signed(&self) -> bool {
        // What others signed is sent along.
        self.intermediates_pem.is_empty()
    }

    /// Until when it is valid.
    #[must_use]
    pub const fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Issues a certificate for `id`, which is valid for `validity`, but not longer than the
    /// authority.
    pub fn issue(
        &self,
        id: &SpiffeId,
        now: Timestamp,
        validity: Duration,
    ) -> Result<Svid, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = leaf_params(vec![uri(id)?]);
        let (not_before, not_after) = self.sign_for(&mut params, now, validity)?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Svid {
            id: id.clone(),
            chain_pem: self.chain(&certificate),
            key_pem: Zeroizing::new(key.serialize_pem()),
            not_before,
            not_after,
        })
    }

    /// Makes an authority for the certificates of servers, which names nobody's trust domain.
    pub fn for_servers(name: &str, now: Timestamp) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let certificate = authority_params(name, now).self_signed(&key)?;
        Self::from_pem(&certificate.pem(), &key.serialize_pem())
    }

    /// Issues a server's certificate: chain and key as PEM.
    pub(crate) fn issue_server(
        &self,
        names: Vec<SanType>,
        now: Timestamp,
        validity: Duration,
    ) -> Result<(String, Zeroizing<String>), AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = leaf_params(names);
        self.sign_for(&mut params, now, validity)?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((self.chain(&certificate), Zeroizing::new(key.serialize_pem())))
    }

    /// Issues a certificate for a server with these names and addresses. Clients are given
    /// `ca_pem`.
    pub fn issue_for_server(
        &self,
        names: &[String],
        ca_pem: String,
        now: Timestamp,
        validity: Duration,
    ) -> Result<ServerPair, AuthorityError> {
        let san =
            |name: &String| crate::tls::san(name).ok_or_else(|| AuthorityError::Name(name.clone()));
        let names = names.iter().map(san).collect::<Result<_, _>>()?;
        let (chain_pem, key_pem) = self.issue_server(names, now, validity)?;
        Ok(ServerPair { chain_pem, key_pem, ca_pem })
    }

    /// When the next one shall be made: after two thirds of its life.
    #[must_use]
    pub fn succeed_at(&self) -> Timestamp {
        two_thirds(self.not_before, self.not_after)
    }

    fn chain(&self, certificate: &rcgen::Certificate) -> String {
        certificate.pem() + &self.intermediates_pem
    }

    fn sign_for(
        &self,
        params: &mut CertificateParams,
        now: Timestamp,
        validity: Duration,
    ) -> Result<(Timestamp, Timestamp), AuthorityError> {
        if now < self.not_before || self.not_after <= now {
            return Err(AuthorityError::NotValid);
        }
        // Certificates count whole seconds.
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let not_before = now.saturating_sub(SKEW).unwrap_or(now);
        let not_after = now.saturating_add(validity).unwrap_or(self.not_after).min(self.not_after);
        (params.not_before, params.not_after) = (offset(not_before), offset(not_after));
        Ok((not_before, not_after))
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, not_before, not_after, chain_pem: _, key_pem: _ } = self;
        write!(f, "Svid({id} from {not_before} to {not_after})")
    }
}

/// The certificates in a PEM text. `None` if one of them is not a certificate.
#[must_use]
pub fn certificates(text: &str) -> Option<Vec<CertificateDer<'static>>> {
    let sections = pem::sections(text)?.into_iter();
    sections
        .filter(|(label, _)| *label == "CERTIFICATE")
        .map(|(_, der)| {
            let (rest, _) = X509Certificate::from_der(&der).ok()?;
            rest.is_empty().then(|| CertificateDer::from(der.to_vec()))
        })
        .collect()
}

/// A certificate as PEM.
#[must_use]
pub fn to_pem(certificate: &CertificateDer<'_>) -> String {
    pem::print("CERTIFICATE", certificate)
}

/// Whether the key of `authority` signed `certificate`.
#[must_use]
pub fn is_issued_by(certificate: &CertificateDer<'_>, authority: &CertificateDer<'_>) -> bool {
    let parse = |der| X509Certificate::from_der(der).map(|(_, parsed)| parsed);
    let (Ok(certificate), Ok(authority)) = (parse(certificate), parse(authority)) else {
        return false;
    };
    certificate.issuer().as_raw() == authority.subject().as_raw()
        && certificate.verify_signature(Some(authority.public_key())).is_ok()
}

/// Until when a certificate is valid.
#[must_use]
pub fn not_after(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Timestamp::from_second(parsed.validity().not_after.timestamp()).ok()
}

fn is_root(der: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(der)
        .is_ok_and(|(_, parsed)| parsed.subject().as_raw() == parsed.issuer().as_raw())
}

/// Verifiers compare names byte for byte; some forms of a subject are lost when it is read.
fn keeps_subject(
    issuer: &Issuer<'static, KeyPair>,
    parsed: &X509Certificate<'_>,
) -> Result<(), AuthorityError> {
    let trial = leaf_params(Vec::new()).signed_by(issuer.key(), issuer)?;
    let (_, trial) = X509Certificate::from_der(trial.der()).map_err(|_| AuthorityError::Subject)?;
    let same = trial.issuer().as_raw() == parsed.subject().as_raw();
    if same { Ok(()) } else { Err(AuthorityError::Subject) }
}

fn authority_params(name: &str, now: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Atoll");
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = offset(now.saturating_sub(SKEW).unwrap_or(now));
    params.not_after = offset(now.saturating_add(AUTHORITY_LIFE).unwrap_or(Timestamp::MAX));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf_params(names: Vec<SanType>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params
}

fn uri(id: &SpiffeId) -> Result<SanType, AuthorityError> {
    Ok(SanType::URI(id.to_string().try_into()?))
}

fn offset(at: Timestamp) -> OffsetDateTime {
    // Timestamps of jiff end before those of time do.
    OffsetDateTime::from_unix_timestamp(at.as_second()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
