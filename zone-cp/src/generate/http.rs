//! HTTP connection managers.

use super::common::{ads, duration, filter, limit};
use prost_types::Any;
use proto::{
    envoy::{
        config::{
            core::v3::{Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions},
            listener::v3::Filter,
            rbac::v3 as rules,
        },
        extensions::filters::{
            http::{
                fault::v3::HttpFault, local_ratelimit::v3::LocalRateLimit, rbac::v3::Rbac,
                router::v3::Router,
            },
            network::http_connection_manager::v3::{
                HttpConnectionManager, HttpFilter, Rds,
                http_connection_manager::{
                    ForwardClientCertDetails, RouteSpecifier, ServerHeaderTransformation,
                    SetCurrentClientCertDetails, UpgradeConfig,
                },
                http_filter::ConfigType,
            },
        },
    },
    pack,
};
use std::time::Duration;
use xds::draft::ListenerDraft;

/// The filter by which a route says who may call.
pub(super) const RBAC: &str = "envoy.filters.http.rbac";

/// Also between proxies, where it is an extended CONNECT that both ends must want (RFC 8441).
const WEBSOCKET: &str = "websocket";

/// Requests of callers, by the routes of the same name.
pub(super) fn inbound(name: &str, draft: &ListenerDraft) -> Filter {
    // Closed: without a route's word nobody passes.
    let nobody = rules::Rbac { action: rules::rbac::Action::Allow.into(), ..Default::default() };
    let rate_limit = LocalRateLimit { stat_prefix: name.into(), ..LocalRateLimit::default() };
    let mut filters = vec![
        http_filter(RBAC, pack(&Rbac { rules: Some(nobody), ..Rbac::default() })),
        // Present but off: a route switches them on, and that drains nothing.
        disabled("envoy.filters.http.fault", pack(&HttpFault::default())),
        disabled("envoy.filters.http.local_ratelimit", pack(&rate_limit)),
    ];
    filters.push(router());
    let caller =
        SetCurrentClientCertDetails { uri: true, ..SetCurrentClientCertDetails::default() };
    manager(HttpConnectionManager {
        forward_client_cert_details: ForwardClientCertDetails::SanitizeSet.into(),
        set_current_client_cert_details: Some(caller),
        http2_protocol_options: Some(Http2ProtocolOptions {
            allow_connect: true,
            ..Http2ProtocolOptions::default()
        }),
        http_filters: filters,
        ..common(name, draft)
    })
}

/// Requests of the application, by the routes of the same name.
pub(super) fn outbound(name: &str, draft: &ListenerDraft) -> Filter {
    manager(HttpConnectionManager {
        normalize_path: Some(true),
        http_filters: vec![router()],
        ..common(name, draft)
    })
}

/// Requests of the application to hosts outside the mesh, by the routes of the same name. They are
/// passed on as they are.
pub(super) fn outside(name: &str, draft: &ListenerDraft) -> Filter {
    manager(HttpConnectionManager {
        server_header_transformation: ServerHeaderTransformation::PassThrough.into(),
        generate_request_id: Some(false),
        http_filters: vec![router()],
        ..common(name, draft)
    })
}

fn common(name: &str, draft: &ListenerDraft) -> HttpConnectionManager {
    let routes = Rds { route_config_name: name.into(), config_source: Some(ads()) };
    let connections = HttpProtocolOptions {
        // Connections are kept; streams have time-outs of their own, in the routes.
        idle_timeout: duration(Duration::ZERO),
        max_connection_duration: limit(draft.max_connection_duration),
        ..HttpProtocolOptions::default()
    };
    HttpConnectionManager {
        stat_prefix: name.into(),
        route_specifier: Some(RouteSpecifier::Rds(routes)),
        common_http_protocol_options: Some(connections),
        request_headers_timeout: limit(draft.request_headers_timeout),
        // Some clients speak nothing newer.
        http_protocol_options: Some(Http1ProtocolOptions {
            accept_http_10: true,
            ..Http1ProtocolOptions::default()
        }),
        upgrade_configs: vec![UpgradeConfig {
            upgrade_type: WEBSOCKET.into(),
            ..UpgradeConfig::default()
        }],
        ..HttpConnectionManager::default()
    }
}

fn manager(manager: HttpConnectionManager) -> Filter {
    filter("envoy.filters.network.http_connection_manager", pack(&manager))
}

fn router() -> HttpFilter {
    http_filter("envoy.filters.http.router", pack(&Router::default()))
}

fn disabled(name: &str, config: Any) -> HttpFilter {
    HttpFilter { disabled: true, ..http_filter(name, config) }
}

fn http_filter(name: &str, config: Any) -> HttpFilter {
    let config_type = Some(ConfigType::TypedConfig(config));
    HttpFilter { name: name.into(), config_type, ..HttpFilter::default() }
}
