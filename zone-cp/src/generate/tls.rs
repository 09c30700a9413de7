//! TLS between proxies.

use super::{
    common::{ads, duration, seconds},
    value::{Credentials, Destination, SpireAgent},
};
use prost_types::Any;
use proto::{
    envoy::{
        config::core::v3::{
            ApiConfigSource, ApiVersion, BackoffStrategy, ConfigSource, GrpcService, RetryPolicy,
            TransportSocket,
            api_config_source::ApiType,
            config_source::ConfigSourceSpecifier,
            grpc_service::{EnvoyGrpc, TargetSpecifier},
            transport_socket::ConfigType,
        },
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
use std::{collections::BTreeSet, time::Duration};
use xds::names::{SPIRE_AGENT, TRUST_BUNDLE};

/// By this a listener knows TLS of the mesh from that of an application.
pub(super) const ALPN: &str = "kuma";

/// Nobody can prove to be this: it is in no trust domain. An empty list would admit everybody.
const NOBODY: &str = "urn:nobody";

/// What SPIRE agents call those whom a workload believes: its own trust domain and all that are
/// federated with it.
const ALL: &str = "ALL";

/// Whom a listener lets through its handshake.
pub(super) enum Callers<'a> {
    /// Everybody with a certificate that is believed.
    Believed,
    /// Those whom this secret of ours says; of a SPIRE agent, which has no such secret, the `sans`.
    Listed { secret: &'a str, sans: BTreeSet<San> },
}

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

/// Calls `destination` with these credentials.
pub(super) fn upstream(destination: &Destination, credentials: &Credentials) -> TransportSocket {
    let names = destination.identities.iter().map(|id| San::Exact(id.to_string())).collect();
    let common = CommonTlsContext {
        alpn_protocols: vec![ALPN.into()],
        validation_context_type: Some(combined(credentials, names)),
        ..common(credentials)
    };
    let context = UpstreamTlsContext {
        common_tls_context: Some(common),
        sni: destination.sni.to_string(),
        ..UpstreamTlsContext::default()
    };
    socket(pack(&context))
}

/// Takes calls of `callers` with these credentials.
pub(super) fn downstream(credentials: &Credentials, callers: Callers<'_>) -> TransportSocket {
    let by_secret = ValidationContextType::ValidationContextSdsSecretConfig;
    let validation = match (callers, credentials) {
        (Callers::Believed, _) => by_secret(trust(credentials)),
        (Callers::Listed { secret, .. }, Credentials::Zone(_)) => by_secret(of_zone(secret)),
        (Callers::Listed { sans, .. }, Credentials::Agent(_)) => combined(credentials, sans),
    };
    let common =
        CommonTlsContext { validation_context_type: Some(validation), ..common(credentials) };
    let context = DownstreamTlsContext {
        common_tls_context: Some(common),
        require_client_certificate: Some(true),
        ..DownstreamTlsContext::default()
    };
    socket(pack(&context))
}

/// Believes those with these names alone.
fn combined(credentials: &Credentials, names: BTreeSet<San>) -> ValidationContextType {
    let named = CertificateValidationContext {
        match_typed_subject_alt_names: sans(names),
        ..CertificateValidationContext::default()
    };
    ValidationContextType::CombinedValidationContext(Combined {
        default_validation_context: Some(named),
        validation_context_sds_secret_config: Some(trust(credentials)),
        ..Combined::default()
    })
}

fn common(credentials: &Credentials) -> CommonTlsContext {
    CommonTlsContext {
        tls_params: Some(TlsParameters {
            // Kuma's clients offer no more. As a client Envoy offers no more than 1.2 unless told
            // the maximum, and fails every handshake if told a higher minimum alone.
            tls_minimum_protocol_version: TlsProtocol::TlSv12.into(),
            tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
            ..TlsParameters::default()
        }),
        tls_certificate_sds_secret_configs: vec![certificate(credentials)],
        ..CommonTlsContext::default()
    }
}

fn certificate(credentials: &Credentials) -> SdsSecretConfig {
    match credentials {
        Credentials::Zone(identity) => of_zone(&identity.to_string()),
        Credentials::Agent(agent) => of_agent(&agent.id.to_string(), agent),
    }
}

fn trust(credentials: &Credentials) -> SdsSecretConfig {
    match credentials {
        Credentials::Zone(_) => of_zone(TRUST_BUNDLE),
        Credentials::Agent(agent) => of_agent(ALL, agent),
    }
}

fn of_zone(name: &str) -> SdsSecretConfig {
    SdsSecretConfig { name: name.into(), sds_config: Some(ads()) }
}

fn of_agent(name: &str, agent: &SpireAgent) -> SdsSecretConfig {
    // With Envoy's defaults one that was not there for a while is not asked for half a minute.
    let backoff = BackoffStrategy {
        base_interval: duration(Duration::from_millis(200)),
        max_interval: seconds(2),
    };
    let service = EnvoyGrpc {
        cluster_name: SPIRE_AGENT.into(),
        retry_policy: Some(RetryPolicy { retry_back_off: Some(backoff), ..RetryPolicy::default() }),
        ..EnvoyGrpc::default()
    };
    let service = GrpcService {
        target_specifier: Some(TargetSpecifier::EnvoyGrpc(service)),
        ..GrpcService::default()
    };
    let source = ApiConfigSource {
        api_type: ApiType::Grpc.into(),
        transport_api_version: ApiVersion::V3.into(),
        grpc_services: vec![service],
        ..ApiConfigSource::default()
    };
    let source = ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        // What waits for its first secret holds up all that Envoy is told after it.
        initial_fetch_timeout: duration(agent.timeout),
        config_source_specifier: Some(ConfigSourceSpecifier::ApiConfigSource(source)),
        ..ConfigSource::default()
    };
    SdsSecretConfig { name: name.into(), sds_config: Some(source) }
}

fn socket(context: Any) -> TransportSocket {
    TransportSocket {
        name: "envoy.transport_sockets.tls".into(),
        config_type: Some(ConfigType::TypedConfig(context)),
    }
}
