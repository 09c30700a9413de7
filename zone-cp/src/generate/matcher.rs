//! Envoy's generic matchers: the first case that holds decides.

use super::tls::San;
use prost_types::Any;
use proto::{
    envoy::{
        config::core::v3::RuntimeFractionalPercent,
        extensions::matching::{
            common_inputs::{network::v3::ServerNameInput, ssl::v3::UriSanInput},
            input_matchers::runtime_fraction::v3::RuntimeFraction,
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
