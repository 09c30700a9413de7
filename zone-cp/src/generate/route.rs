use super::{
    common::{duration, inline, limit, pattern, seconds},
    http, matcher, permission,
    redirect::Hosts,
    tls::San,
    value::{Destination, Inbound, Outbound},
};
use proto::{
    envoy::{
        config::route::v3::{
            DirectResponseAction, HeaderMatcher, RetryPolicy, Route, RouteAction,
            RouteConfiguration, RouteMatch, VirtualHost,
            header_matcher::HeaderMatchSpecifier,
            retry_policy::{
                RetryBackOff, RetryHostPredicate, RetryPriority, retry_host_predicate,
                retry_priority,
            },
            route::Action,
            route_action::{ClusterSpecifier, MaxStreamDuration},
            route_match::PathSpecifier,
        },
        extensions::{
            filters::http::rbac::v3::{Rbac, RbacPerRoute},
            retry::{
                host::previous_hosts::v3::PreviousHostsPredicate,
                priority::previous_priorities::v3::PreviousPrioritiesConfig,
            },
        },
        r#type::matcher::v3::string_matcher::MatchPattern,
    },
    pack,
};
use std::{collections::BTreeMap, time::Duration};
use xds::{
    Match,
    draft::{InboundDraft, OutboundDraft, RouteDraft},
    names,
};

/// Where requests of an application to a destination go. `None` where requests are not seen.
#[must_use]
pub fn outbound_route(outbound: &Outbound, draft: &OutboundDraft) -> Option<RouteConfiguration> {
    let name = outbound.kri.to_string();
    let action = RouteAction {
        retry_policy: Some(retries(outbound.kri.short == "mzsvc")),
        ..action(&name, &draft.route)
    };
    outbound
        .protocol
        .is_http()
        .then(|| routes(VirtualHost { routes: vec![everything(action)], ..host(&name) }))
}

/// Where requests of an application to one replica of a destination go. `None` where requests are not
/// seen.
#[must_use]
pub fn direct_route(
    destination: &Destination,
    draft: &OutboundDraft,
) -> Option<RouteConfiguration> {
    let name = names::direct(&destination.kri.to_string());
    // There is no other one to go to, so only what it never saw is sent again, once.
    let again = RetryPolicy {
        retry_on: "connect-failure,refused-stream".into(),
        num_retries: Some(1),
        ..RetryPolicy::default()
    };
    let action = RouteAction { retry_policy: Some(again), ..action(&name, &draft.route) };
    destination
        .protocol
        .is_http()
        .then(|| routes(VirtualHost { routes: vec![everything(action)], ..host(&name) }))
}

/// Who may call an inbound, and what happens to their requests. `None` where requests are not seen.
#[must_use]
pub fn inbound_route(inbound: &Inbound, draft: &InboundDraft) -> Option<RouteConfiguration> {
    let name = names::inbound(&inbound.section);
    let rbac = Rbac { matcher: Some(permission::rules(&draft.permissions)), ..Rbac::default() };
    let rbac = pack(&RbacPerRoute { rbac: Some(rbac) });
    let callers = draft.callers.iter();
    let special = callers.flat_map(|(caller, draft)| {
        let action = action(&name, draft);
        called_by(caller).map(move |matched| route(matched, action.clone()))
    });
    let general = everything(action(&name, &draft.route));
    inbound.protocol.is_http().then(|| {
        routes(VirtualHost {
            typed_per_filter_config: BTreeMap::from([(http::RBAC.to_owned(), rbac)]),
            routes: special.chain([general]).collect(),
            ..host(&name)
        })
    })
}

/// Where requests to hosts outside the mesh go. To all other hosts there is no way.
#[must_use]
pub fn outside_route(name: &str, hosts: &Hosts) -> RouteConfiguration {
    // How long they may take is not known here.
    let draft = RouteDraft { timeout: Duration::ZERO, ..OutboundDraft::default().route };
    let clusters = hosts.clusters.iter();
    let mut virtual_hosts: Vec<VirtualHost> = clusters
        .map(|(host, cluster)| {
            let port = hosts.port.filter(|_| host != "*").map(|port| format!("{host}:{port}"));
            VirtualHost {
                name: host.clone(),
                domains: [host.clone()].into_iter().chain(port).collect(),
                routes: vec![everything(action(cluster, &draft))],
                ..VirtualHost::default()
            }
        })
        .collect();
    if !hosts.clusters.contains_key("*") {
        let answer = DirectResponseAction {
            status: 503,
            body: Some(inline("no MeshPassthrough names this host\n")),
            ..DirectResponseAction::default()
        };
        let none = Route {
            r#match: Some(all()),
            action: Some(Action::DirectResponse(answer)),
            ..Route::default()
        };
        virtual_hosts.push(VirtualHost { name: "none".into(), routes: vec![none], ..host("*") });
    }
    RouteConfiguration { name: name.into(), virtual_hosts, ..RouteConfiguration::default() }
}

/// Requests of `caller`. Routes see headers alone, but here one of them comes from the handshake and
/// ends with the caller's identity, in which there is no `;`. What was asked for in the handshake
/// they do not see, so whoever is told apart by that is nobody here.
fn called_by(caller: &Match) -> impl Iterator<Item = RouteMatch> {
    let ids = match &caller.sni {
        Some(_) => Vec::new(),
        None => matcher::identities(caller.spiffe_id.as_ref()),
    };
    ids.into_iter().map(|id| {
        let matched = match id {
            San::Exact(id) => MatchPattern::Suffix(format!(";URI={id}")),
            San::Prefix(prefix) => MatchPattern::Contains(format!(";URI={prefix}")),
        };
        let header = HeaderMatcher {
            name: "x-forwarded-client-cert".into(),
            header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(pattern(matched))),
            ..HeaderMatcher::default()
        };
        RouteMatch { headers: vec![header], ..all() }
    })
}

fn routes(host: VirtualHost) -> RouteConfiguration {
    RouteConfiguration {
        name: host.name.clone(),
        virtual_hosts: vec![host],
        ..RouteConfiguration::default()
    }
}

fn host(name: &str) -> VirtualHost {
    VirtualHost { name: name.into(), domains: vec!["*".into()], ..VirtualHost::default() }
}

fn everything(action: RouteAction) -> Route {
    route(all(), action)
}

fn all() -> RouteMatch {
    RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".into())), ..RouteMatch::default() }
}

fn route(matched: RouteMatch, action: RouteAction) -> Route {
    Route { r#match: Some(matched), action: Some(Action::Route(action)), ..Route::default() }
}

fn action(cluster: &str, draft: &RouteDraft) -> RouteAction {
    let max_stream_duration = limit(draft.max_stream_duration).map(|longest| MaxStreamDuration {
        max_stream_duration: Some(longest),
        ..MaxStreamDuration::default()
    });
    RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.into())),
        timeout: duration(draft.timeout),
        idle_timeout: duration(draft.stream_idle_timeout),
        max_stream_duration,
        ..RouteAction::default()
    }
}

/// Another host for another try: one of another priority where hosts may be in several zones, since
/// a dead replica nearby must not cost all tries.
fn retries(several_zones: bool) -> RetryPolicy {
    let back_off = RetryBackOff {
        base_interval: duration(Duration::from_millis(25)),
        max_interval: duration(Duration::from_millis(250)),
    };
    let policy = RetryPolicy {
        retry_on: "gateway-error,connect-failure,refused-stream".into(),
        num_retries: Some(5),
        per_try_timeout: seconds(16),
        retry_back_off: Some(back_off),
        ..RetryPolicy::default()
    };
    if several_zones {
        let priorities = PreviousPrioritiesConfig { update_frequency: 1 };
        let retry_priority = RetryPriority {
            name: "envoy.retry_priorities.previous_priorities".into(),
            config_type: Some(retry_priority::ConfigType::TypedConfig(pack(&priorities))),
        };
        return RetryPolicy { retry_priority: Some(retry_priority), ..policy };
    }
    let others = PreviousHostsPredicate {};
    let others = RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".into(),
        config_type: Some(retry_host_predicate::ConfigType::TypedConfig(pack(&others))),
    };
    RetryPolicy {
        host_selection_retry_max_attempts: 3,
        retry_host_predicate: vec![others],
        ..policy
    }
}
