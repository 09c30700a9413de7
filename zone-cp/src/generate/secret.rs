use super::{
    common::inline,
    permission,
    tls::sans,
    value::{Inbound, TcpPermissions, Trust},
};
use proto::{
    envoy::{
        config::core::v3::TypedExtensionConfig,
        extensions::transport_sockets::tls::v3::{
            CertificateValidationContext, Secret, SpiffeCertValidatorConfig, TlsCertificate,
            secret::Type, spiffe_cert_validator_config::TrustDomain,
        },
    },
    pack,
};
use resource::Kri;
use xds::names;

/// Who a proxy is. Key and chain are one secret, so that they change together.
#[must_use]
pub fn identity_secret(identity: &Kri, chain_pem: &str, key_pem: &str) -> Secret {
    let certificate = TlsCertificate {
        certificate_chain: Some(inline(chain_pem)),
        private_key: Some(inline(key_pem)),
        ..TlsCertificate::default()
    };
    Secret { name: identity.to_string(), r#type: Some(Type::TlsCertificate(certificate)) }
}

/// Whose certificates count. `None` while nobody's do: Envoy knows no such secret, and waits.
#[must_use]
pub fn trust_secret(trust: &Trust) -> Option<Secret> {
    let context = validator(trust)?;
    let r#type = Some(Type::ValidationContext(context));
    Some(Secret { name: names::TRUST_BUNDLE.into(), r#type })
}

/// Whom a TCP inbound lets through its handshake. Envoy asks for permissions when the first byte of
/// the client is there; a server that speaks first would have greeted a stranger by then.
#[must_use]
pub fn inbound_secret(
    inbound: &Inbound,
    permissions: &TcpPermissions,
    trust: &Trust,
) -> Option<Secret> {
    let context = CertificateValidationContext {
        match_typed_subject_alt_names: sans(permission::callers(&permissions.permissions)),
        ..validator(trust)?
    };
    let r#type = Some(Type::ValidationContext(context));
    Some(Secret { name: names::inbound(&inbound.section), r#type })
}

fn validator(trust: &Trust) -> Option<CertificateValidationContext> {
    let domain = |(name, authorities): (&identity::TrustDomain, &_)| TrustDomain {
        name: name.to_string(),
        trust_bundle: Some(inline(bundle(authorities))),
        ..TrustDomain::default()
    };
    let trusted = trust.0.iter().filter(|(_, authorities)| !authorities.is_empty());
    let config = SpiffeCertValidatorConfig {
        trust_domains: trusted.map(domain).collect(),
        ..SpiffeCertValidatorConfig::default()
    };
    let validator = TypedExtensionConfig {
        name: "envoy.tls.cert_validator.spiffe".into(),
        typed_config: Some(pack(&config)),
    };
    (!config.trust_domains.is_empty()).then(|| CertificateValidationContext {
        custom_validator_config: Some(validator),
        ..CertificateValidationContext::default()
    })
}

fn bundle(authorities: &std::collections::BTreeSet<String>) -> String {
    let mut bundle = String::new();
    for pem in authorities {
        bundle.push_str(pem.trim_end());
        bundle.push('\n');
    }
    bundle
}
