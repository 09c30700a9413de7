use super::*;
use jiff::{SignedDuration, Timestamp};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, RsaKeySize};
use std::time::Duration;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn now() -> Timestamp {
    "2030-05-01T12:00:00Z".parse().unwrap()
}

fn domain() -> TrustDomain {
    TrustDomain::new("shop.east.mesh.local").unwrap()
}

fn cart() -> SpiffeId {
    SpiffeId::new(domain(), "/workload/cart").unwrap()
}

/// The facts of a certificate, one a line.
fn facts(pem: &str) -> Vec<String> {
    let der = certificates(pem).unwrap().remove(0);
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    let instant = |second| Timestamp::from_second(second).unwrap();
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    let names: Vec<_> = names.value.general_names.iter().map(GeneralName::to_string).collect();
    let usage = certificate.key_usage().unwrap().unwrap().value.to_string();
    let extended = certificate.extended_key_usage().unwrap();
    let extended = extended.map(|usage| (usage.value.client_auth, usage.value.server_auth));
    vec![
        format!("subject {}", certificate.subject()),
        format!("issuer {}", certificate.issuer()),
        format!("from {}", instant(certificate.validity().not_before.timestamp())),
        format!("to {}", instant(certificate.validity().not_after.timestamp())),
        format!("names {}", names.join(" ")),
        format!("authority {}", certificate.is_ca()),
        format!("usage {usage}"),
        format!("client and server {extended:?}"),
    ]
}

fn signed_by(svid: &Svid, authority: &str) -> bool {
    let (svid, authority) = (certificates(&svid.chain_pem), certificates(authority));
    let (svid, authority) = (svid.unwrap().remove(0), authority.unwrap().remove(0));
    let (_, svid) = X509Certificate::from_der(&svid).unwrap();
    let (_, authority) = X509Certificate::from_der(&authority).unwrap();
    svid.verify_signature(Some(authority.public_key())).is_ok()
        && svid.issuer().as_raw() == authority.subject().as_raw()
}

#[test]
fn an_authority_issues_certificates_of_workloads() {
    let authority = Authority::generate(&domain(), now()).unwrap();
    assert_eq!(
        facts(authority.certificate_pem()),
        [
            "subject O=Atoll, CN=shop.east.mesh.local",
            "issuer O=Atoll, CN=shop.east.mesh.local",
            "from 2030-05-01T11:59:50Z",
            "to 2040-04-28T12:00:00Z",
            "names URI(spiffe://shop.east.mesh.local)",
            "authority true",
            "usage Key Cert Sign, CRL Sign",
            "client and server None",
        ]
    );
    let svid = authority.issue(&cart(), now(), 5 * DAY).unwrap();
    assert_eq!(
        facts(&svid.chain_pem),
        [
            "subject ",
            "issuer O=Atoll, CN=shop.east.mesh.local",
            "from 2030-05-01T11:59:50Z",
            "to 2030-05-06T12:00:00Z",
            "names URI(spiffe://shop.east.mesh.local/workload/cart)",
            "authority false",
            "usage Digital Signature",
            "client and server Some((true, true))",
        ]
    );
    assert!(signed_by(&svid, authority.certificate_pem()));
    assert_eq!(certificates(&svid.chain_pem).unwrap().len(), 1, "a root is not sent along");
    assert_eq!(svid.id, cart());
    assert_eq!(svid.not_before.to_string(), "2030-05-01T11:59:50Z");
    assert_eq!(svid.renew_at().to_string(), "2030-05-05T12:00:00Z");
    assert!(!format!("{svid:?} {authority:?}").contains("KEY"));
    let key = KeyPair::from_pem(&svid.key_pem).unwrap();
    assert_eq!(*key.algorithm(), rcgen::PKCS_ECDSA_P256_SHA256);
    assert_ne!(authority.issue(&cart(), now(), DAY).unwrap().key_pem, svid.key_pem);
}

#[test]
fn an_authority_is_read_again() {
    let made = Authority::generate(&domain(), now()).unwrap();
    let read = Authority::from_pem(made.certificate_pem(), made.key_pem()).unwrap();
    let svid = read.issue(&cart(), now(), DAY).unwrap();
    assert!(signed_by(&svid, made.certificate_pem()));
    let (_, der) = (0, certificates(&svid.chain_pem).unwrap().remove(0));
    let (_, leaf) = X509Certificate::from_der(&der).unwrap();
    let identifies_key = leaf.iter_extensions().any(|extension| {
        extension.oid == x509_parser::oid_registry::OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER
    });
    assert!(identifies_key);
}

#[test]
fn nothing_outlives_its_authority() {
    let authority = Authority::generate(&domain(), now()).unwrap();
    let end = authority.not_after();
    let late = end.checked_sub(SignedDuration::from_hours(1)).unwrap();
    assert_eq!(authority.issue(&cart(), late, DAY).unwrap().not_after, end);
    let early = now().checked_sub(SignedDuration::from_hours(1)).unwrap();
    for when in [end, early] {
        assert!(matches!(authority.issue(&cart(), when, DAY), Err(AuthorityError::NotValid)));
    }
}

/// An authority as an operator would bring it.
fn foreign(key: &KeyPair, above: Option<&Issuer<'_, KeyPair>>) -> String {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CountryName, "SE");
    params.distinguished_name.push(DnType::OrganizationalUnitName, "Café");
    params
        .distinguished_name
        .push(DnType::CommonName, if above.is_some() { "below" } else { "root" });
    match above {
        Some(above) => params.signed_by(key, above).unwrap().pem(),
        None => params.self_signed(key).unwrap().pem(),
    }
}

#[test]
fn authorities_of_others_are_taken_with_rsa_too() {
    let root_key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let root = foreign(&root_key, None);
    let authority = Authority::from_pem(&root, &root_key.serialize_pem()).unwrap();
    let svid = authority.issue(&cart(), now(), DAY).unwrap();
    assert!(signed_by(&svid, &root));

    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let key_pem = key.serialize_pem();
    let below = foreign(&key, Some(&Issuer::from_ca_cert_pem(&root, root_key).unwrap()));
    let authority = Authority::from_pem(&format!("{below}{root}"), &key_pem).unwrap();
    let svid = authority.issue(&cart(), now(), DAY).unwrap();
    assert!(signed_by(&svid, &below));
    let chain = certificates(&svid.chain_pem).unwrap();
    assert_eq!(chain[1..], certificates(&below).unwrap()[..], "what leads to the root is sent");
}

#[test]
fn each_mistake_of_an_authority_has_its_reason() {
    let authority = Authority::generate(&domain(), now()).unwrap();
    let other = Authority::generate(&domain(), now()).unwrap();
    let svid = authority.issue(&cart(), now(), DAY).unwrap();
    let reason = |certificate: &str, key: &str| match Authority::from_pem(certificate, key) {
        Ok(_) => "accepted".to_owned(),
        Err(error) => error.to_string(),
    };
    let (certificate, key) = (authority.certificate_pem(), authority.key_pem());
    assert_eq!(reason(certificate, key), "accepted");
    assert_eq!(
        reason(certificate, other.key_pem()),
        "the private key does not belong to the certificate"
    );
    assert_eq!(
        reason(&svid.chain_pem, &svid.key_pem),
        "the certificate is not that of a certificate authority"
    );
    for damaged in ["", key, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        assert_eq!(reason(damaged, key), "the certificate cannot be read");
    }
    for damaged in
        ["", certificate, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
    {
        assert_eq!(
            reason(certificate, damaged),
            "the private key cannot be read (P-256, P-384 or RSA as PEM)"
        );
    }
}

#[test]
fn a_subject_that_would_come_out_differently_is_refused() {
    // Two organizational units: only one would survive.
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::OrganizationalUnitName, "aa");
    params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 12]), "bb");
    let key = KeyPair::generate().unwrap();
    let mut der = params.self_signed(&key).unwrap().der().to_vec();
    // The attribute type 2.5.4.12 (title) becomes 2.5.4.11 (organizational unit).
    let title = [0x06, 0x03, 0x55, 0x04, 0x0c];
    let places: Vec<_> = (0..der.len() - 5).filter(|at| der[*at..at + 5] == title).collect();
    for place in &places {
        der[place + 4] = 0x0b;
    }
    assert_eq!(places.len(), 2);
    let pem = pem::print("CERTIFICATE", &der);
    let refused = Authority::from_pem(&pem, &key.serialize_pem());
    assert!(matches!(refused, Err(AuthorityError::Subject)), "{refused:?}");
}
