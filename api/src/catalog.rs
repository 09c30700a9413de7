//! What kinds there are: `/_resources` and `/policies`.

use super::{asked::Asked, state::Api, write::refusal};
use axum::{Json, extract::State};
use resource::{Access, Flow, Kind, Scope};
use serde::Serialize;
use std::sync::Arc;
use store::Backend;

#[derive(Serialize)]
pub(crate) struct Resources {
    resources: Vec<Description>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Description {
    include_in_federation: bool,
    name: &'static str,
    path: &'static str,
    plural_display_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<Policy>,
    read_only: bool,
    scope: &'static str,
    short_name: &'static str,
    singular_display_name: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "the shape of the answer")]
struct Policy {
    has_from_target_ref: bool,
    has_rules_target_ref: bool,
    has_to_target_ref: bool,
    is_from_as_rules: bool,
    is_target_ref: bool,
}

#[derive(Serialize)]
pub(crate) struct Policies {
    policies: Vec<PolicyKind>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "the shape of the answer")]
struct PolicyKind {
    name: &'static str,
    read_only: bool,
    path: &'static str,
    singular_display_name: String,
    plural_display_name: String,
    is_experimental: bool,
    is_target_ref_based: bool,
    is_inbound: bool,
    is_outbound: bool,
}

/// `GET /_resources`
pub(crate) async fn resources<B: Backend>(
    State(api): State<Arc<Api<B>>>,
    _asked: Asked,
) -> Json<Resources> {
    let describe = |kind: &Kind| description(kind, refusal(kind, &api.given.place).is_some());
    Json(Resources { resources: by_name(&api, |_| true).map(describe).collect() })
}

fn description(kind: &Kind, read_only: bool) -> Description {
    Description {
        include_in_federation: federated(kind),
        name: kind.name,
        path: kind.path,
        plural_display_name: plural(kind),
        policy: kind.targets.map(|targets| Policy {
            has_from_target_ref: false,
            has_rules_target_ref: targets.rules,
            has_to_target_ref: targets.to,
            is_from_as_rules: false,
            is_target_ref: true,
        }),
        read_only,
        scope: match kind.scope {
            Scope::Global => "Global",
            Scope::Mesh => "Mesh",
        },
        short_name: kind.short,
        singular_display_name: spaced(kind.name),
    }
}

/// `GET /policies`
pub(crate) async fn policies<B: Backend>(
    State(api): State<Arc<Api<B>>>,
    _asked: Asked,
) -> Json<Policies> {
    let describe = |kind: &Kind| PolicyKind {
        name: kind.name,
        read_only: refusal(kind, &api.given.place).is_some(),
        path: kind.path,
        singular_display_name: spaced(kind.name),
        plural_display_name: plural(kind),
        is_experimental: false,
        is_target_ref_based: true,
        is_inbound: kind.targets.is_some_and(|targets| targets.rules),
        is_outbound: kind.targets.is_some_and(|targets| targets.to),
    };
    let policies = by_name(&api, |kind| kind.targets.is_some()).map(describe).collect();
    Json(Policies { policies })
}

fn by_name<B>(api: &Api<B>, wanted: impl Fn(&Kind) -> bool) -> impl Iterator<Item = &Kind> {
    let served = api.given.kinds.list.iter().filter(|kind| !kind.path.is_empty());
    let mut kinds: Vec<&Kind> = served.filter(|kind| wanted(kind)).collect();
    kinds.sort_by_key(|kind| kind.name);
    kinds.into_iter()
}

/// Whether a zone that is attached to a global takes the kind along.
const fn federated(kind: &Kind) -> bool {
    !matches!(kind.access, Access::ReadOnly)
        && !matches!(kind.flow, Flow::Local | Flow::ZoneToGlobal | Flow::ZoneToZones)
}

fn plural(kind: &Kind) -> String {
    let name = spaced(kind.name);
    match name.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{stem}ies"),
        _ if ["s", "S", "ch", "sh", "x"].iter().any(|end| name.ends_with(end)) => {
            format!("{name}es")
        }
        _ => format!("{name}s"),
    }
}

/// `MeshHTTPRoute` as a person writes it.
fn spaced(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let mut text = String::new();
    for (i, c) in chars.iter().enumerate() {
        let before = i.checked_sub(1).and_then(|before| chars.get(before));
        let after = chars.get(i + 1);
        let starts = c.is_uppercase()
            && before.is_some_and(|before| {
                before.is_lowercase() || after.is_some_and(|after| after.is_lowercase())
            });
        if starts {
            text.push(' ');
        }
        text.push(*c);
    }
    // One word, as its project writes it.
    text.replace("Open Telemetry", "OpenTelemetry")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One line a kind, as another control plane described it: name, path, scope, abbreviation,
    /// whether it is taken along into a federation, the lists of a policy, one of it and many.
    const KINDS: &str = include_str!("testdata/kinds.txt");

    fn line(kind: &Kind) -> String {
        let described = description(kind, false);
        let lists = match described.policy {
            None => "-",
            Some(Policy { has_to_target_ref: true, has_rules_target_ref: true, .. }) => "to+rules",
            Some(Policy { has_to_target_ref: true, .. }) => "to",
            Some(Policy { has_rules_target_ref: true, .. }) => "rules",
            Some(_) => "proxies",
        };
        let short = if kind.short.is_empty() { "-" } else { described.short_name };
        let federated = if described.include_in_federation { "federated" } else { "-" };
        let Description { name, path, scope, .. } = described;
        let (one, many) = (described.singular_display_name, described.plural_display_name);
        format!("{name} | {path} | {scope} | {short} | {federated} | {lists} | {one} | {many}")
    }

    #[test]
    fn kinds_are_described_as_elsewhere() {
        let served = kinds::all().filter(|kind| !kind.path.is_empty());
        let mut lines: Vec<String> = served.map(|kind| line(&kind)).collect();
        lines.sort();
        let mut expected: Vec<&str> = KINDS.lines().collect();
        expected.sort_unstable();
        assert_eq!(lines, expected);
    }
}
