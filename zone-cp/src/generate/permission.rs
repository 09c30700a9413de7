//! Who may call: as a matcher, which says it all, and as a list of names, which says most of it.

use super::{
    tls::San,
    value::{Inbound, TcpPermissions, Withdrawn},
};
use prost_types::{Any, Struct, Value, value};
use proto::{
    envoy::{
        config::{
            core::v3::{RuntimeFractionalPercent, TypedExtensionConfig},
            rbac::v3::{Action, rbac},
        },
        extensions::{
            filters::network::rbac::v3::{Rbac, rbac::EnforcementType},
            matching::{
                common_inputs::{network::v3::ServerNameInput, ssl::v3::UriSanInput},
                input_matchers::runtime_fraction::v3::RuntimeFraction,
            },
        },
        service::runtime::v3::Runtime,
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
use std::collections::BTreeSet;
use xds::{
    draft::{Grant, Permissions},
    names,
    target::{Match, SpiffeIdMatch, SpiffeIdMatchType},
};

/// What every identity begins with.
const ANYBODY: &str = "spiffe://";

/// Whom a TCP inbound admits. Envoy asks it at every read, so that also an open connection is cut
/// when its generation is withdrawn.
#[must_use]
pub fn inbound_permissions(
    inbound: &Inbound,
    permissions: &TcpPermissions,
) -> TypedExtensionConfig {
    let name = names::inbound(&inbound.section);
    let key = runtime_key(&inbound.section, permissions.generation);
    let mut matchers = vec![field(withdrawn(key), "withdrawn", rbac::Action::Deny)];
    matchers.extend(fields(&permissions.permissions));
    let rbac = Rbac {
        stat_prefix: format!("{name}."),
        enforcement_type: EnforcementType::Continuous.into(),
        matcher: Some(matcher(matchers)),
        ..Rbac::default()
    };
    TypedExtensionConfig { name, typed_config: Some(pack(&rbac)) }
}

/// Cuts the connections that withdrawn permissions admitted.
#[must_use]
pub fn runtime(withdrawn: &BTreeSet<Withdrawn>) -> Runtime {
    let percent = |withdrawn: &Withdrawn| {
        let always = Value { kind: Some(value::Kind::NumberValue(100.0)) };
        (runtime_key(&withdrawn.section, withdrawn.generation), always)
    };
    let layer = Struct { fields: withdrawn.iter().map(percent).collect() };
    Runtime { name: names::RUNTIME.into(), layer: Some(layer) }
}

fn runtime_key(section: &str, generation: u64) -> String {
    format!("withdrawn.{}.{generation}", names::inbound(section))
}

/// All denies, then all allows, else deny.
pub(super) fn rules(permissions: &Permissions) -> Matcher {
    matcher(fields(permissions).collect())
}

/// The identities that may pass a handshake: those that are allowed and not refused altogether. A
/// refusal below an allowed prefix cannot be said in this form.
pub(super) fn callers(permissions: &Permissions) -> BTreeSet<San> {
    let refused = |id: Option<&SpiffeIdMatch>| {
        let callers = permissions.deny.iter().flat_map(|grant| &grant.callers);
        callers.filter(|caller| caller.sni.is_none()).any(|deny| covers(deny, id))
    };
    let allowed = permissions.allow.iter().flat_map(|grant| &grant.callers);
    let allowed = allowed.map(|caller| caller.spiffe_id.as_ref());
    allowed.filter(|id| !refused(*id)).flat_map(identities).collect()
}

/// Whether everybody whom `id` names is named by `deny`.
fn covers(deny: &Match, id: Option<&SpiffeIdMatch>) -> bool {
    let Some(deny) = &deny.spiffe_id else { return true };
    let Some(id) = id else { return false };
    match (deny.r#type, id.r#type) {
        (SpiffeIdMatchType::Exact, SpiffeIdMatchType::Exact) => deny.value == id.value,
        (SpiffeIdMatchType::Prefix, SpiffeIdMatchType::Exact | SpiffeIdMatchType::Prefix) => {
            let rest = id.value.strip_prefix(&deny.value);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        (SpiffeIdMatchType::Exact | SpiffeIdMatchType::Unknown, _)
        | (_, SpiffeIdMatchType::Unknown) => false,
    }
}

/// A prefix ends at a segment of the path: `…/prod` is not about `…/prod-dev`.
fn identities(id: Option<&SpiffeIdMatch>) -> Vec<San> {
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

fn matcher(matchers: Vec<FieldMatcher>) -> Matcher {
    let list = MatcherType::MatcherList(MatcherList { matchers });
    let deny = action("default", rbac::Action::Deny);
    // Envoy refuses an empty list.
    let empty = matches!(&list, MatcherType::MatcherList(list) if list.matchers.is_empty());
    Matcher { on_no_match: Some(Box::new(deny)), matcher_type: (!empty).then_some(list) }
}

fn fields(permissions: &Permissions) -> impl Iterator<Item = FieldMatcher> {
    let deny = permissions.deny.iter().map(|grant| (grant, rbac::Action::Deny));
    let allow = permissions.allow.iter().map(|grant| (grant, rbac::Action::Allow));
    deny.chain(allow).filter_map(|(Grant { policy, callers }, action)| {
        let predicates = callers.iter().flat_map(caller).collect();
        Some(field(any_of(predicates)?, &policy.to_string(), action))
    })
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

fn any_of(mut predicates: Vec<Predicate>) -> Option<Predicate> {
    if predicates.len() < 2 {
        return predicates.pop();
    }
    let any = PredicateList { predicate: predicates };
    Some(Predicate { match_type: Some(MatchType::OrMatcher(any)) })
}

fn withdrawn(runtime_key: String) -> Predicate {
    let never = FractionalPercent { numerator: 0, ..FractionalPercent::default() };
    let fraction = RuntimeFractionalPercent { default_value: Some(never), runtime_key };
    let matcher =
        RuntimeFraction { runtime_fraction: Some(fraction), ..RuntimeFraction::default() };
    let matcher = input("envoy.matching.matchers.runtime_fraction", pack(&matcher));
    single(uri_san(), single_predicate::Matcher::CustomMatch(matcher))
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
    input("envoy.matching.inputs.server_name", pack(&ServerNameInput {}))
}

fn uri_san() -> Extension {
    input("envoy.matching.inputs.uri_san", pack(&UriSanInput {}))
}

fn input(name: &str, config: Any) -> Extension {
    Extension { name: name.into(), typed_config: Some(config) }
}

/// An action is named after the policy that asked for it.
fn field(predicate: Predicate, name: &str, what: rbac::Action) -> FieldMatcher {
    FieldMatcher { predicate: Some(predicate), on_match: Some(action(name, what)) }
}

fn action(name: &str, what: rbac::Action) -> OnMatch {
    let action = Action { name: name.into(), action: what.into() };
    let action = input("envoy.filters.rbac.action", pack(&action));
    OnMatch { on_match: Some(on_match::OnMatch::Action(action)), ..OnMatch::default() }
}

/// Leads connections whose server name begins with `prefix` to `chain`, and closes the others.
pub(super) fn server_name_begins_with(prefix: &str, chain: &str) -> Matcher {
    let predicate = text(server_name(), MatchPattern::Prefix(prefix.into()));
    let to = on_match::OnMatch::Action(input(chain, pack(&chain.to_owned())));
    let on_match = OnMatch { on_match: Some(to), ..OnMatch::default() };
    let field = FieldMatcher { predicate: Some(predicate), on_match: Some(on_match) };
    let list = MatcherType::MatcherList(MatcherList { matchers: vec![field] });
    Matcher { matcher_type: Some(list), ..Matcher::default() }
}
