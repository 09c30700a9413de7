use super::{
    common::{address, ads, duration, filter, seconds},
    http, matcher, permission,
    tls::{self, Callers},
    value::{Credentials, Destination, Inbound, IngressListener, Outbound, TcpPermissions},
};
use prost::Name;
use prost_types::Any;
use proto::{
    envoy::{
        config::{
            core::v3::{ExtensionConfigSource, TrafficDirection},
            listener::v3::{
                AdditionalAddress, Filter, FilterChain, FilterChainMatch, Listener, ListenerFilter,
                filter as filter_type, listener_filter,
            },
        },
        extensions::filters::{
            listener::tls_inspector::v3::TlsInspector,
            network::{
                rbac::v3::Rbac,
                sni_cluster::v3::SniCluster,
                tcp_proxy::v3::{TcpProxy, UpstreamConnectMode, tcp_proxy::ClusterSpecifier},
            },
        },
    },
    pack,
};
use std::net::SocketAddr;
use xds::{
    draft::ListenerDraft,
    names::{self, Sni},
};

const MTLS: &str = "mtls";
const INGRESS_BUFFER: u32 = 65_536;
const CONNECT_ATTEMPTS: u32 = 3;
pub(super) const HANDSHAKE: u32 = 5;

/// Where an application reaches a destination. `None` if it is bound nowhere.
#[must_use]
pub fn outbound_listener(outbound: &Outbound, draft: &ListenerDraft) -> Option<Listener> {
    let name = outbound.kri.to_string();
    let mut binds = outbound.binds.iter().copied();
    let bind = binds.next()?;
    let forward = if outbound.protocol.is_http() {
        http::outbound(&name, draft)
    } else {
        let attempts = Some(CONNECT_ATTEMPTS);
        tcp_proxy(TcpProxy { max_connect_attempts: attempts, ..to(&name, draft) })
    };
    Some(Listener {
        additional_addresses: binds.map(additional).collect(),
        bind_to_port: binds_nothing(outbound.redirected),
        filter_chains: vec![FilterChain { filters: vec![forward], ..FilterChain::default() }],
        ..listener(&name, TrafficDirection::Outbound, bind)
    })
}

/// Where an application reaches one replica of `destination`, at the replica's own address.
#[must_use]
pub fn direct_listener(
    destination: &Destination,
    at: SocketAddr,
    draft: &ListenerDraft,
) -> Listener {
    let way = names::direct(&destination.kri.to_string());
    let forward = if destination.protocol.is_http() {
        http::outbound(&way, draft)
    } else {
        tcp_proxy(to(&way, draft))
    };
    Listener {
        bind_to_port: binds_nothing(true),
        filter_chains: vec![FilterChain { filters: vec![forward], ..FilterChain::default() }],
        ..listener(&names::direct_listener(at), TrafficDirection::Outbound, at)
    }
}

/// Where callers reach an application with these credentials. `tcp` says whom it admits if it is one
/// of TCP: a listener whose proxy has a SPIRE agent says it itself.
#[must_use]
pub fn inbound_listener(
    inbound: &Inbound,
    credentials: &Credentials,
    draft: &ListenerDraft,
    tcp: Option<&TcpPermissions>,
) -> Listener {
    let name = names::inbound(&inbound.section);
    let (callers, filters) = if inbound.protocol.is_http() {
        (Callers::Believed, vec![http::inbound(&name, draft)])
    } else {
        let sans = tcp.map(|tcp| permission::callers(&tcp.permissions)).unwrap_or_default();
        let proxy = TcpProxy {
            // Else anyone who can dial makes us dial the application.
            upstream_connect_mode: UpstreamConnectMode::OnDownstreamTlsHandshake.into(),
            max_early_data_bytes: Some(0),
            ..to(&name, draft)
        };
        let callers = Callers::Listed { secret: &name, sans };
        (callers, vec![permissions(&name), tcp_proxy(proxy)])
    };
    let chain = FilterChain {
        name: MTLS.into(),
        filter_chain_match: Some(FilterChainMatch {
            transport_protocol: "tls".into(),
            application_protocols: vec![tls::ALPN.into()],
            ..FilterChainMatch::default()
        }),
        transport_socket_connect_timeout: seconds(HANDSHAKE),
        transport_socket: Some(tls::downstream(credentials, callers)),
        filters,
        ..FilterChain::default()
    };
    Listener {
        bind_to_port: binds_nothing(inbound.redirected),
        filter_chains: vec![chain],
        ..inspected(&name, inbound.bind)
    }
}

/// Where other zones come in. Only names of services lead anywhere: the client's server name is the
/// name of a cluster, and no other cluster's begins like this.
#[must_use]
pub fn ingress_listener(ingress: &IngressListener, draft: &ListenerDraft) -> Listener {
    const CHAIN: &str = "sni";
    let name = names::ingress(&ingress.section);
    let proxy = TcpProxy {
        max_connect_attempts: Some(CONNECT_ATTEMPTS),
        cluster_specifier: Some(ClusterSpecifier::Cluster("none".into())),
        ..to(&name, draft)
    };
    let named = matcher::server_name_begins_with(Sni::PREFIX);
    let chain = matcher::named(CHAIN, pack(&CHAIN.to_owned()));
    let sni_cluster = filter("envoy.filters.network.sni_cluster", pack(&SniCluster {}));
    Listener {
        per_connection_buffer_limit_bytes: Some(INGRESS_BUFFER),
        // Whoever names no service finds no chain and is closed.
        filter_chain_matcher: Some(matcher::first(vec![matcher::case(named, chain)], None)),
        filter_chains: vec![FilterChain {
            name: CHAIN.into(),
            filters: vec![sni_cluster, tcp_proxy(proxy)],
            ..FilterChain::default()
        }],
        ..inspected(&name, ingress.bind)
    }
}

/// What is redirected is handed over by the listener that the kernel redirects it to.
fn binds_nothing(redirected: bool) -> Option<bool> {
    redirected.then_some(false)
}

pub(super) fn listener(name: &str, direction: TrafficDirection, bind: SocketAddr) -> Listener {
    Listener {
        name: name.into(),
        stat_prefix: name.into(),
        traffic_direction: direction.into(),
        // With Envoy's default a second proxy on the address would share its connections silently.
        enable_reuse_port: Some(false),
        address: Some(address(bind)),
        ..Listener::default()
    }
}

/// A listener that looks into the first message of TLS before it chooses a chain.
fn inspected(name: &str, bind: SocketAddr) -> Listener {
    Listener {
        listener_filters_timeout: seconds(HANDSHAKE),
        listener_filters: vec![tls_inspector()],
        ..listener(name, TrafficDirection::Inbound, bind)
    }
}

pub(super) fn tls_inspector() -> ListenerFilter {
    listener_filter("envoy.filters.listener.tls_inspector", pack(&TlsInspector::default()))
}

pub(super) fn listener_filter(name: &str, config: Any) -> ListenerFilter {
    ListenerFilter {
        name: name.into(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(config)),
        ..ListenerFilter::default()
    }
}

fn additional(bind: SocketAddr) -> AdditionalAddress {
    AdditionalAddress { address: Some(address(bind)), ..AdditionalAddress::default() }
}

pub(super) fn to(name: &str, draft: &ListenerDraft) -> TcpProxy {
    TcpProxy {
        stat_prefix: name.into(),
        cluster_specifier: Some(ClusterSpecifier::Cluster(name.into())),
        idle_timeout: duration(draft.idle_timeout),
        ..TcpProxy::default()
    }
}

pub(super) fn tcp_proxy(proxy: TcpProxy) -> Filter {
    filter("envoy.filters.network.tcp_proxy", pack(&proxy))
}

/// Permissions that come as a resource of their own, so that their change drains nothing.
fn permissions(name: &str) -> Filter {
    let source = ExtensionConfigSource {
        config_source: Some(ads()),
        type_urls: vec![Rbac::type_url()],
        ..ExtensionConfigSource::default()
    };
    let config_type = Some(filter_type::ConfigType::ConfigDiscovery(source));
    Filter { name: name.into(), config_type }
}
