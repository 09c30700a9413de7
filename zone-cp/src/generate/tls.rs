//! TLS between proxies.

use super::{common::ads, value::Destination};
use prost_types::Any;
use proto::{
    envoy::{
        config::core::v3::{TransportSocket, transport_socket::ConfigType},
        extensions::transport_sockets::tls::v3::{
            CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig,
            SubjectAltNameMatcher, TlsParameters, UpstreamTlsContext,
            common_tls_context::{
                CombinedCertificateValidationContext as Combined, ValidationContextType,
            },
            subject_alt_name_matcher::SanType,
            tls_parameters::TlsProtocol,
        },
    },
    pack,
};
use resource::Kri;
use std::collections::BTreeSet;
use xds::names::TRUST_BUNDLE;

/// By this a listener knows TLS of the mesh from that of an application.
pub(super) const ALPN: &str = "kuma";

/// Nobody can prove to be this: it is in no trust domain. An empty list would admit everybody.
const NOBODY: &str = "urn:nobody";

/// An identity, or all that begin alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum San {
    /// This identity.
    Exact(String),
    /// Those that begin like this.
    Prefix(String),
}

/// Matchers of the identities in `names`; of nobody, if there are none.
pub(super) fn sans(names: BTreeSet<San>) -> Vec<SubjectAltNameMatcher> {
    let uri = |matcher| SubjectAltNameMatcher {
        san_type: SanType::Uri.into(),
        matcher: Some(matcher),
        ..SubjectAltNameMatcher::default()
    };
    if names.is_empty() {
        return vec![uri(super::common::exact(NOBODY))];
    }
    let matcher = |name| match name {
        San::Exact(name) => super::common::exact(&name),
        San::Prefix(prefix) => super::common::prefix(&prefix),
    };
    names.into_iter().map(|name| uri(matcher(name))).collect()
}

/// Calls `destination` as `identity`.
pub(super) fn upstream(destination: &Destination, identity: &Kri) -> TransportSocket {
    let names = destination.identities.iter().map(|id| San::Exact(id.to_string())).collect();
    let answers = CertificateValidationContext {
        match_typed_subject_alt_names: sans(names),
        ..CertificateValidationContext::default()
    };
    let validation = Combined {
        default_validation_context: Some(answers),
        validation_context_sds_secret_config: Some(secret(TRUST_BUNDLE)),
        ..Combined::default()
    };
    let common = CommonTlsContext {
        alpn_protocols: vec![ALPN.into()],
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(validation)),
        ..common(identity)
    };
    let context = UpstreamTlsContext {
        common_tls_context: Some(common),
        sni: destination.sni.to_string(),
        ..UpstreamTlsContext::default()
    };
    socket(pack(&context))
}

/// Takes calls as `identity` from those whom the secret `validation` admits.
pub(super) fn downstream(identity: &Kri, validation: &str) -> TransportSocket {
    let validation = ValidationContextType::ValidationContextSdsSecretConfig(secret(validation));
    let common = CommonTlsContext { validation_context_type: Some(validation), ..common(identity) };
    let context = DownstreamTlsContext {
        common_tls_context: Some(common),
        require_client_certificate: Some(true),
        ..DownstreamTlsContext::default()
    };
    socket(pack(&context))
}

fn common(identity: &Kri) -> CommonTlsContext {
    CommonTlsContext {
        tls_params: Some(TlsParameters {
            // Kuma's clients offer no more. As a client Envoy offers no more than 1.2 unless told
            // the maximum, and fails every handshake if told a higher minimum alone.
            tls_minimum_protocol_version: TlsProtocol::TlSv12.into(),
            tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
            ..TlsParameters::default()
        }),
        tls_certificate_sds_secret_configs: vec![secret(&identity.to_string())],
        ..CommonTlsContext::default()
    }
}

fn secret(name: &str) -> SdsSecretConfig {
    SdsSecretConfig { name: name.into(), sds_config: Some(ads()) }
}

fn socket(context: Any) -> TransportSocket {
    TransportSocket {
        name: "envoy.transport_sockets.tls".into(),
        config_type: Some(ConfigType::TypedConfig(context)),
    }
}
