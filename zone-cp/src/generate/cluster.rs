use super::{
    common::{ads, duration, limit, seconds},
    endpoint,
    redirect::{Family, Outside},
    tls,
    value::{Credentials, Destination, Inbound, IngressService},
};
use prost_types::Any;
use proto::{
    envoy::{
        config::{
            cluster::v3::{
                CircuitBreakers, Cluster, OutlierDetection, UpstreamConnectionOptions,
                circuit_breakers::{Thresholds, thresholds::RetryBudget},
                cluster::{
                    ClusterDiscoveryType, DiscoveryType, DnsLookupFamily, EdsClusterConfig,
                    LbPolicy,
                },
            },
            core::v3::{
                BindConfig, Http1ProtocolOptions, Http2ProtocolOptions,
                HttpProtocolOptions as Common, KeepaliveSettings, SocketAddress, TcpKeepalive,
                socket_address::PortSpecifier,
            },
        },
        extensions::upstreams::http::v3::{
            HttpProtocolOptions,
            http_protocol_options::{
                ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
            },
        },
        r#type::v3::Percent,
    },
    pack,
};
use std::{collections::BTreeMap, net::IpAddr};
use xds::{
    Protocol,
    draft::{ClusterDraft, OutboundDraft, Speaks},
    names,
};

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const INGRESS_CONNECTIONS: u32 = 100_000;
/// The other end limits what is not of the mesh.
const PASSED_ON: u32 = 100_000;
const CONNECTIONS: u32 = 1024;

/// How proxies with these credentials reach a destination.
#[must_use]
pub fn cluster(
    destination: &Destination,
    credentials: &Credentials,
    draft: &ClusterDraft,
) -> Cluster {
    let keepalive = TcpKeepalive {
        keepalive_probes: Some(3),
        keepalive_time: Some(10),
        keepalive_interval: Some(5),
    };
    // A peer that vanished sends no reset.
    let pings = KeepaliveSettings {
        interval: seconds(5),
        timeout: seconds(2),
        ..KeepaliveSettings::default()
    };
    let http2 = Http2ProtocolOptions {
        connection_keepalive: Some(pings),
        // For WebSockets.
        allow_connect: true,
        ..Http2ProtocolOptions::default()
    };
    let outliers = OutlierDetection {
        enforcing_consecutive_5xx: Some(0),
        enforcing_consecutive_gateway_failure: Some(0),
        enforcing_success_rate: Some(0),
        max_ejection_time: seconds(30),
        ..unreachable_hosts()
    };
    Cluster {
        connect_timeout: duration(draft.connect_timeout),
        circuit_breakers: thresholds(Thresholds {
            max_connections: Some(CONNECTIONS),
            max_pending_requests: Some(CONNECTIONS),
            max_requests: Some(CONNECTIONS),
            // A fixed number loses requests when a connection that carries many breaks.
            retry_budget: Some(RetryBudget {
                budget_percent: Some(Percent { value: 100.0 }),
                min_retry_concurrency: Some(100),
                ..RetryBudget::default()
            }),
            ..Thresholds::default()
        }),
        outlier_detection: Some(outliers),
        upstream_connection_options: Some(UpstreamConnectionOptions {
            tcp_keepalive: Some(keepalive),
            ..UpstreamConnectionOptions::default()
        }),
        transport_socket: Some(tls::upstream(destination, credentials)),
        typed_extension_protocol_options: if destination.protocol.is_http() {
            http(draft, ProtocolConfig::Http2ProtocolOptions(http2))
        } else {
            BTreeMap::new()
        },
        ..discovered(&destination.kri.to_string(), "")
    }
}

/// How proxies with these credentials reach the replica of a destination that the application
/// chose by its address. One cluster for all replicas: which there are, listeners say.
#[must_use]
pub fn direct_cluster(
    destination: &Destination,
    credentials: &Credentials,
    draft: &ClusterDraft,
) -> Cluster {
    Cluster {
        name: names::direct(&destination.kri.to_string()),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst.into())),
        eds_cluster_config: None,
        lb_policy: LbPolicy::ClusterProvided.into(),
        // There is no other one to go to.
        outlier_detection: None,
        ..cluster(destination, credentials, draft)
    }
}

/// The application behind an inbound.
#[must_use]
pub fn inbound_cluster(inbound: &Inbound, draft: &ClusterDraft) -> Cluster {
    let name = names::inbound(&inbound.section);
    Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into())),
        connect_timeout: duration(draft.connect_timeout),
        circuit_breakers: thresholds(Thresholds::default()),
        load_assignment: Some(endpoint::at(&name, inbound.application)),
        upstream_bind_config: source(inbound).map(from),
        typed_extension_protocol_options: requests(inbound.protocol, draft),
        name,
        ..Cluster::default()
    }
}

/// From where an application is called that would else be called through its own inbound. The kernel
/// leaves alone what goes to a loopback address, and the source for IPv6 may not be there.
fn source(inbound: &Inbound) -> Option<IpAddr> {
    let to = inbound.application.ip();
    let needed = to.is_ipv4() || !to.is_loopback();
    (inbound.redirected && needed).then(|| Family::of(to).source())
}

fn from(source: IpAddr) -> BindConfig {
    let source_address = SocketAddress {
        address: source.to_string(),
        port_specifier: Some(PortSpecifier::PortValue(0)),
        ..SocketAddress::default()
    };
    BindConfig { source_address: Some(source_address), ..BindConfig::default() }
}

/// Who is called without being in the mesh, without TLS of ours.
#[must_use]
pub fn outside_cluster(name: &str, outside: &Outside) -> Cluster {
    let ClusterDraft { connect_timeout, .. } = OutboundDraft::default().cluster;
    let (kind, speaks) = match outside {
        Outside::Original { speaks, .. } => (DiscoveryType::OriginalDst, speaks),
        Outside::Named { speaks, .. } => (DiscoveryType::LogicalDns, speaks),
    };
    let cluster = Cluster {
        name: name.into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(kind.into())),
        connect_timeout: duration(connect_timeout),
        circuit_breakers: thresholds(Thresholds {
            max_connections: Some(PASSED_ON),
            max_pending_requests: Some(PASSED_ON),
            max_requests: Some(PASSED_ON),
            ..Thresholds::default()
        }),
        typed_extension_protocol_options: match speaks {
            Speaks::Bytes | Speaks::MySql | Speaks::Tls => BTreeMap::new(),
            Speaks::Requests(protocol) => requests(*protocol, &OutboundDraft::default().cluster),
        },
        ..Cluster::default()
    };
    match outside {
        Outside::Original { from: source, .. } => Cluster {
            lb_policy: LbPolicy::ClusterProvided.into(),
            upstream_bind_config: source.map(from),
            ..cluster
        },
        Outside::Named { host, port, .. } => Cluster {
            // Without this a machine that has no IPv6 calls where it cannot.
            dns_lookup_family: DnsLookupFamily::V4Preferred.into(),
            load_assignment: Some(endpoint::named(name, host, *port)),
            ..cluster
        },
    }
}

fn requests(protocol: Protocol, draft: &ClusterDraft) -> BTreeMap<String, Any> {
    let http1 = || ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default());
    let http2 = || ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions::default());
    match protocol {
        Protocol::Tcp => BTreeMap::new(),
        Protocol::Http => http(draft, http1()),
        Protocol::Http2 | Protocol::Grpc => http(draft, http2()),
    }
}

/// A service that an ingress exposes: named as it is asked for, so that the listener need not know
/// it. The client chooses by its server name, so no other cluster of an ingress has such a name.
#[must_use]
pub fn ingress_cluster(service: &IngressService) -> Cluster {
    Cluster {
        // Dots in a name would be taken for the parts of a statistic.
        alt_stat_name: service.kri.to_string(),
        connect_timeout: seconds(2),
        circuit_breakers: thresholds(Thresholds {
            max_connections: Some(INGRESS_CONNECTIONS),
            max_pending_requests: Some(INGRESS_CONNECTIONS),
            ..Thresholds::default()
        }),
        outlier_detection: Some(unreachable_hosts()),
        ..discovered(service.sni.as_str(), &service.endpoints.to_string())
    }
}

/// A cluster whose endpoints come as the assignment `assignment`; as that of its own name, if it is
/// empty.
fn discovered(name: &str, assignment: &str) -> Cluster {
    Cluster {
        name: name.into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig {
            eds_config: Some(ads()),
            service_name: assignment.into(),
        }),
        ..Cluster::default()
    }
}

/// Takes hosts out that cannot be reached. Nothing else tells of a dead ingress before its zone does.
fn unreachable_hosts() -> OutlierDetection {
    OutlierDetection {
        split_external_local_origin_errors: true,
        consecutive_local_origin_failure: Some(2),
        enforcing_local_origin_success_rate: Some(0),
        interval: seconds(1),
        base_ejection_time: seconds(5),
        max_ejection_percent: Some(100),
        ..OutlierDetection::default()
    }
}

fn thresholds(thresholds: Thresholds) -> Option<CircuitBreakers> {
    let thresholds = vec![Thresholds { track_remaining: true, ..thresholds }];
    Some(CircuitBreakers { thresholds, ..CircuitBreakers::default() })
}

fn http(draft: &ClusterDraft, protocol: ProtocolConfig) -> BTreeMap<String, Any> {
    let common = Common {
        idle_timeout: duration(draft.idle_timeout),
        max_connection_duration: limit(draft.max_connection_duration),
        ..Common::default()
    };
    let explicit = ExplicitHttpConfig { protocol_config: Some(protocol) };
    let options = HttpProtocolOptions {
        common_http_protocol_options: Some(common),
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)),
        ..HttpProtocolOptions::default()
    };
    BTreeMap::from([(HTTP_OPTIONS.to_owned(), pack(&options))])
}
