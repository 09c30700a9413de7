//! Envoy's generic matchers: the first case that holds decides.

use super::tls::San;
use ipnet::IpNet;
use prost_types::Any;
use proto::{
    envoy::{
        config::core::v3::{CidrRange, RuntimeFractionalPercent},
        extensions::matching::{
            common_inputs::{
                network::v3::{
                    ApplicationProtocolInput, DestinationIpInput, DestinationPortInput,
                    ServerNameInput, TransportProtocolInput,
                },
                ssl::v3::UriSanInput,
            },
            input_matchers::{ip::v3::Ip, runtime_fraction::v3::RuntimeFraction},
        },
        r#type::v3::FractionalPercent,
    },
    pack,
    xds::{
        core::v3::TypedExtensionConfig as Extension,
        r#type::matcher::v3::{
            Matcher, StringMatcher,
            matcher::{
                MatcherList, MatcherType, OnMatch,
                matcher_list::{
                    FieldMatcher, Predicate,
                    predicate::{MatchType, PredicateList, SinglePredicate, single_predicate},
                },
                on_match,
            },
            string_matcher::MatchPattern,
        },
    },
};
use xds::target::{Match, SpiffeIdMatch, SpiffeIdMatchType};

/// What every identity begins with.
const ANYBODY: &str = "spiffe://";

/// The first of `cases` that holds, or `otherwise`.
pub(super) fn first(cases: Vec<FieldMatcher>, otherwise: Option<Extension>) -> Matcher {
    let on_no_match = otherwise.map(|action| Box::new(on_match(action)));
    // Envoy refuses an empty list.
    let list = (!cases.is_empty()).then_some(MatcherList { matchers: cases });
    Matcher { on_no_match, matcher_type: list.map(MatcherType::MatcherList) }
}

/// When `predicate` holds, `action`.
pub(super) fn case(predicate: Predicate, action: Extension) -> FieldMatcher {
    FieldMatcher { predicate: Some(predicate), on_match: Some(on_match(action)) }
}

/// Something with a name of its own: an action, an input.
pub(super) fn named(name: &str, config: Any) -> Extension {
    Extension { name: name.into(), typed_config: Some(config) }
}

/// Whether one of `callers` calls. `None` if there are none.
pub(super) fn called_by(callers: &[Match]) -> Option<Predicate> {
    let mut predicates: Vec<Predicate> = callers.iter().flat_map(caller).collect();
    if predicates.len() < 2 {
        return predicates.pop();
    }
    let any = PredicateList { predicate: predicates };
    Some(Predicate { match_type: Some(MatchType::OrMatcher(any)) })
}

/// Whether the server name in a handshake begins with `prefix`.
pub(super) fn server_name_begins_with(prefix: &str) -> Predicate {
    text(server_name(), MatchPattern::Prefix(prefix.into()))
}

/// Whether TLS is spoken, as far as its first message tells.
pub(super) fn is_tls() -> Predicate {
    let input = named("envoy.matching.inputs.transport_protocol", pack(&TransportProtocolInput {}));
    text(input, MatchPattern::Exact("tls".into()))
}

/// Whether HTTP is spoken in clear, as far as the first bytes tell.
pub(super) fn is_http() -> Predicate {
    let spoken = ["http/1.0", "http/1.1", "h2c"].map(|protocol| {
        let name = "envoy.matching.inputs.application_protocol";
        let input = named(name, pack(&ApplicationProtocolInput {}));
        // Each of what a client would speak is in quotes.
        text(input, MatchPattern::Exact(format!("'{protocol}'")))
    });
    let spoken = MatchType::OrMatcher(PredicateList { predicate: spoken.into() });
    let clear = MatchType::NotMatcher(Box::new(is_tls()));
    all([clear, spoken].map(|it| Predicate { match_type: Some(it) }).into())
}

/// Whether the server name in a handshake is `name`.
pub(super) fn server_name_is(name: &str) -> Predicate {
    text(server_name(), MatchPattern::Exact(name.into()))
}

/// Whether the server name in a handshake ends with `suffix`.
pub(super) fn server_name_ends_with(suffix: &str) -> Predicate {
    text(server_name(), MatchPattern::Suffix(suffix.into()))
}

/// Whether a connection is to the port.
pub(super) fn port_is(port: u16) -> Predicate {
    let input = named("envoy.matching.inputs.destination_port", pack(&DestinationPortInput {}));
    text(input, MatchPattern::Exact(port.to_string()))
}

/// Whether a connection is to an address of `network`. What cannot be compared is counted as of
/// `listener`.
pub(super) fn address_is_in(network: IpNet, listener: &str) -> Predicate {
    let range = CidrRange {
        address_prefix: network.addr().to_string(),
        prefix_len: Some(network.prefix_len().into()),
    };
    let matcher = Ip { cidr_ranges: vec![range], stat_prefix: listener.into() };
    let matcher = named("envoy.matching.matchers.ip", pack(&matcher));
    let input = named("envoy.matching.inputs.destination_ip", pack(&DestinationIpInput {}));
    single(input, single_predicate::Matcher::CustomMatch(matcher))
}

/// When all of these hold.
pub(super) fn all(mut predicates: Vec<Predicate>) -> Predicate {
    match (predicates.len(), predicates.pop()) {
        (1, Some(one)) => one,
        (_, last) => {
            predicates.extend(last);
            let list = PredicateList { predicate: predicates };
            Predicate { match_type: Some(MatchType::AndMatcher(list)) }
        }
    }
}

/// Whether a runtime key is set, which can be done without a change of what asks for it.
pub(super) fn runtime(runtime_key: String) -> Predicate {
    let never = FractionalPercent { numerator: 0, ..FractionalPercent::default() };
    let fraction = RuntimeFractionalPercent { default_value: Some(never), runtime_key };
    let matcher =
        RuntimeFraction { runtime_fraction: Some(fraction), ..RuntimeFraction::default() };
    let matcher = named("envoy.matching.matchers.runtime_fraction", pack(&matcher));
    single(uri_san(), single_predicate::Matcher::CustomMatch(matcher))
}

/// The identities that are meant. A prefix ends at a segment of the path: `…/prod` is not about
/// `…/prod-dev`.
pub(super) fn identities(id: Option<&SpiffeIdMatch>) -> Vec<San> {
    let Some(SpiffeIdMatch { r#type, value }) = id else {
        return vec![San::Prefix(ANYBODY.into())];
    };
    match r#type {
        SpiffeIdMatchType::Exact => vec![San::Exact(value.clone())],
        SpiffeIdMatchType::Prefix => {
            vec![San::Exact(value.clone()), San::Prefix(format!("{value}/"))]
        }
        SpiffeIdMatchType::Unknown => Vec::new(),
    }
}

/// A call is by `caller` if one of these holds.
fn caller(caller: &Match) -> Vec<Predicate> {
    let server_name =
        caller.sni.as_ref().map(|sni| text(server_name(), MatchPattern::Exact(sni.value.clone())));
    if let (None, Some(name)) = (&caller.spiffe_id, &server_name) {
        return vec![name.clone()];
    }
    let by = identities(caller.spiffe_id.as_ref()).into_iter().map(|id| {
        let pattern = match id {
            San::Exact(id) => MatchPattern::Exact(id),
            San::Prefix(prefix) => MatchPattern::Prefix(prefix),
        };
        let by = text(uri_san(), pattern);
        match server_name.clone() {
            Some(name) => {
                let both = PredicateList { predicate: vec![by, name] };
                Predicate { match_type: Some(MatchType::AndMatcher(both)) }
            }
            None => by,
        }
    });
    by.collect()
}

fn text(input: Extension, pattern: MatchPattern) -> Predicate {
    let value = StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() };
    single(input, single_predicate::Matcher::ValueMatch(value))
}

fn single(input: Extension, matcher: single_predicate::Matcher) -> Predicate {
    let single = SinglePredicate { input: Some(input), matcher: Some(matcher) };
    Predicate { match_type: Some(MatchType::SinglePredicate(single)) }
}

fn server_name() -> Extension {
    named("envoy.matching.inputs.server_name", pack(&ServerNameInput {}))
}

fn uri_san() -> Extension {
    named("envoy.matching.inputs.uri_san", pack(&UriSanInput {}))
}

fn on_match(action: Extension) -> OnMatch {
    OnMatch { on_match: Some(on_match::OnMatch::Action(action)), ..OnMatch::default() }
}
