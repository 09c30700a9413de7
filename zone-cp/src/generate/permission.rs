//! Who may call: as a matcher, which says it all, and as a list of names, which says most of it.

use super::{
    matcher::{self, called_by, case, named},
    tls::San,
    value::{Inbound, TcpPermissions, Withdrawn},
};
use prost_types::{Struct, Value, value};
use proto::{
    envoy::{
        config::{
            core::v3::TypedExtensionConfig,
            rbac::v3::{Action, rbac},
        },
        extensions::filters::network::rbac::v3::{Rbac, rbac::EnforcementType},
        service::runtime::v3::Runtime,
    },
    pack,
    xds::{
        core::v3::TypedExtensionConfig as Extension,
        r#type::matcher::v3::{Matcher, matcher::matcher_list::FieldMatcher},
    },
};
use std::collections::BTreeSet;
use xds::{
    Match,
    draft::{Grant, Permissions},
    names,
    target::{SpiffeIdMatch, SpiffeIdMatchType},
};

/// Whom a TCP inbound admits. Envoy asks it at every read, so that also an open connection is cut
/// when its generation is withdrawn.
#[must_use]
pub fn inbound_permissions(
    inbound: &Inbound,
    permissions: &TcpPermissions,
) -> TypedExtensionConfig {
    let name = names::inbound(&inbound.section);
    let key = runtime_key(&inbound.section, permissions.generation);
    let withdrawn = action("withdrawn", rbac::Action::Deny);
    let mut cases = vec![case(matcher::runtime(key), withdrawn)];
    cases.extend(grants(&permissions.permissions));
    let rbac = Rbac {
        stat_prefix: format!("{name}."),
        enforcement_type: EnforcementType::Continuous.into(),
        matcher: Some(else_deny(cases)),
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
    else_deny(grants(permissions).collect())
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
    allowed.filter(|id| !refused(*id)).flat_map(matcher::identities).collect()
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

fn else_deny(cases: Vec<FieldMatcher>) -> Matcher {
    matcher::first(cases, Some(action("default", rbac::Action::Deny)))
}

/// An action is named after the policy that asked for it.
fn grants(permissions: &Permissions) -> impl Iterator<Item = FieldMatcher> {
    let deny = permissions.deny.iter().map(|grant| (grant, rbac::Action::Deny));
    let allow = permissions.allow.iter().map(|grant| (grant, rbac::Action::Allow));
    deny.chain(allow).filter_map(|(Grant { policy, callers }, what)| {
        Some(case(called_by(callers)?, action(&policy.to_string(), what)))
    })
}

fn action(name: &str, what: rbac::Action) -> Extension {
    let action = Action { name: name.into(), action: what.into() };
    named("envoy.filters.rbac.action", pack(&action))
}
