//! The parts that the specs of all policies have in common, and what is wrong with them.

use resource::{Violations, cel};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Which proxies a policy is for; without one it is for all of the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = cel(&[
    (
        ".labels",
        "self.kind != 'Mesh' || !has(self.labels) || size(self.labels) == 0",
        "must not be set when kind is Mesh",
    ),
    (
        ".sectionName",
        "self.kind != 'Mesh' || !has(self.sectionName)",
        "must not be set when kind is Mesh",
    ),
])))]
pub struct TargetRef {
    /// All proxies, or some.
    pub kind: TargetKind,
    /// Labels that a proxy must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// One inbound or listener of the proxy, by name or port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
}

/// What a policy may be attached to. The order is the one in which policies apply.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum TargetKind {
    /// All proxies of the mesh.
    #[default]
    Mesh,
    /// Proxies by their labels.
    Dataplane,
    /// None that is known here; refused by [`TargetRef::check`].
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// Which destinations an item of `to` is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = cel(&[
    (
        ".labels",
        "self.kind != 'Mesh' || !has(self.labels) || size(self.labels) == 0",
        "must not be set when kind is Mesh",
    ),
    (
        ".labels",
        "self.kind == 'Mesh' || (has(self.labels) && size(self.labels) > 0)",
        "must be set unless kind is Mesh",
    ),
    (
        ".sectionName",
        "!has(self.sectionName) || self.kind in ['MeshService', 'MeshMultiZoneService']",
        "must not be set unless kind is MeshService or MeshMultiZoneService",
    ),
])))]
pub struct ToRef {
    /// All destinations, or some of one kind.
    pub kind: ToKind,
    /// Labels that a destination must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// One port of it, by name or number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
}

/// What an item of `to` may select. The order is the one in which items apply.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum ToKind {
    /// Every destination.
    Mesh,
    /// Services of a zone.
    MeshService,
    /// Services outside the mesh.
    MeshExternalService,
    /// Services of several zones.
    MeshMultiZoneService,
    /// Routes.
    MeshHTTPRoute,
    /// None that is known here; refused by [`ToRef::check`].
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

impl ToKind {
    const fn name(self) -> &'static str {
        match self {
            Self::Mesh => "Mesh",
            Self::MeshService => "MeshService",
            Self::MeshExternalService => "MeshExternalService",
            Self::MeshMultiZoneService => "MeshMultiZoneService",
            Self::MeshHTTPRoute => "MeshHTTPRoute",
            Self::Unknown => "Unknown",
        }
    }
}

/// Settings for outgoing traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(bound = "C: JsonSchema + Default + Serialize")]
pub struct To<C> {
    /// To which destinations.
    pub target_ref: ToRef,
    /// The settings.
    #[serde(default)]
    pub default: C,
}

/// Settings for incoming traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(bound = "C: JsonSchema + Default + Serialize")]
pub struct Rule<C> {
    /// From whom: any of these, or everybody where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<Match>,
    /// The settings.
    #[serde(default)]
    pub default: C,
}

/// Who calls and what is asked for; what is left out does not matter.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub struct Match {
    /// The caller.
    #[serde(default, rename = "spiffeID", skip_serializing_if = "Option::is_none")]
    pub spiffe_id: Option<SpiffeIdMatch>,
    /// The server name in the caller's handshake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<SniMatch>,
}

/// Compares the identity of a caller.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct SpiffeIdMatch {
    /// How.
    pub r#type: SpiffeIdMatchType,
    /// With what.
    pub value: String,
}

/// How identities are compared.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum SpiffeIdMatchType {
    /// The same identity.
    Exact,
    /// The same identity, or one below it: whole segments of the path are compared.
    Prefix,
    /// None that is known here; refused by [`Match::check`].
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// Compares the server name in a handshake.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct SniMatch {
    /// How.
    pub r#type: SniMatchType,
    /// With what.
    pub value: String,
}

/// How server names are compared.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum SniMatchType {
    /// The same name.
    Exact,
    /// None that is known here; refused by [`Match::check`].
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

fn is_empty(labels: Option<&BTreeMap<String, String>>) -> bool {
    labels.is_none_or(BTreeMap::is_empty)
}

impl TargetRef {
    /// Reports what is wrong with the `targetRef` of a policy. `inbound` says whether the policy has
    /// nothing but `rules`: only then it can be about one inbound.
    pub fn check(&self, inbound: bool, violations: &mut Violations) {
        let path = "spec.targetRef";
        match self.kind {
            TargetKind::Mesh => {
                if !is_empty(self.labels.as_ref()) {
                    violations
                        .add(format_args!("{path}.labels"), "must not be set when kind is Mesh");
                }
                if self.section_name.is_some() {
                    let reason = "must not be set when kind is Mesh";
                    violations.add(format_args!("{path}.sectionName"), reason);
                }
            }
            TargetKind::Dataplane => {
                if self.section_name.is_some() && !inbound {
                    let reason = "can only be used with inbound policies";
                    violations.add(format_args!("{path}.sectionName"), reason);
                }
            }
            TargetKind::Unknown => {
                let reason = "in body should be one of [Mesh Dataplane]";
                violations.add(format_args!("{path}.kind"), reason);
            }
        }
    }
}

impl ToRef {
    /// Reports what is wrong with a `targetRef` at `path` where `kinds` are allowed.
    pub fn check(&self, kinds: &[ToKind], path: &str, violations: &mut Violations) {
        if !kinds.contains(&self.kind) {
            let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
            let reason = format!("in body should be one of [{}]", names.join(" "));
            violations.add(format_args!("{path}.kind"), reason);
            return;
        }
        let kind = self.kind.name();
        let has_ports = matches!(self.kind, ToKind::MeshService | ToKind::MeshMultiZoneService);
        match (self.kind, is_empty(self.labels.as_ref())) {
            (ToKind::Mesh, false) => {
                violations.add(format_args!("{path}.labels"), "must not be set when kind is Mesh");
            }
            (ToKind::Mesh, true) | (_, false) => {}
            (_, true) => {
                let reason = format!("must be set when kind is {kind}");
                violations.add(format_args!("{path}.labels"), reason);
            }
        }
        if self.section_name.is_some() && !has_ports {
            let reason = format!("must not be set when kind is {kind}");
            violations.add(format_args!("{path}.sectionName"), reason);
        }
    }
}

impl Match {
    /// How closely it looks. Of two that fit a caller, the one that looks more closely counts; no
    /// two are alike that are not equal.
    pub(crate) fn closeness(&self) -> impl Ord + '_ {
        let id = self.spiffe_id.as_ref().map(|id| {
            let exact = id.r#type == SpiffeIdMatchType::Exact;
            (exact, id.value.len(), &id.value)
        });
        (id, self.sni.as_ref().map(|sni| &sni.value))
    }

    /// Reports what is wrong with a match at `path`.
    pub fn check(&self, path: &str, violations: &mut Violations) {
        if self.spiffe_id.is_none() && self.sni.is_none() {
            violations.add(path, "at least one of spiffeID, sni must be set");
        }
        if let Some(id) = &self.spiffe_id {
            if id.r#type == SpiffeIdMatchType::Unknown {
                let reason = "in body should be one of [Exact Prefix]";
                violations.add(format_args!("{path}.spiffeID.type"), reason);
            }
            if !is_spiffe_id(&id.value) {
                violations.add(format_args!("{path}.spiffeID.value"), "must be a valid SPIFFE ID");
            }
        }
        if let Some(sni) = &self.sni {
            if sni.r#type == SniMatchType::Unknown {
                let reason = "in body should be one of [Exact]";
                violations.add(format_args!("{path}.sni.type"), reason);
            }
            if sni.value.is_empty() {
                violations.add(format_args!("{path}.sni.value"), "must not be empty");
            }
        }
    }
}

/// `spiffe://` with a trust domain, and a path whose segments are not empty, `.` or `..`.
fn is_spiffe_id(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("spiffe://") else { return false };
    let (domain, path) = match rest.split_once('/') {
        Some((domain, path)) => (domain, Some(path)),
        None => (rest, None),
    };
    let in_domain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b);
    let in_path = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    let is_segment = |segment: &str| {
        !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(in_path)
    };
    !domain.is_empty()
        && domain.bytes().all(in_domain)
        && path.is_none_or(|path| path.split('/').all(is_segment))
}

/// Reports what is wrong with the items of `to`: first the selection of each, then, by `conf`, its
/// settings.
pub fn check_to<C>(
    to: &[To<C>],
    kinds: &[ToKind],
    violations: &mut Violations,
    mut conf: impl FnMut(&C, &str, &mut Violations),
) {
    for (i, item) in to.iter().enumerate() {
        item.target_ref.check(kinds, &format!("spec.to[{i}].targetRef"), violations);
        conf(&item.default, &format!("spec.to[{i}].default"), violations);
    }
}

/// Reports what is wrong with `rules`: first the matches of each, then, by `conf`, its settings.
pub fn check_rules<C>(
    rules: &[Rule<C>],
    violations: &mut Violations,
    mut conf: impl FnMut(&Rule<C>, &str, &mut Violations),
) {
    for (i, rule) in rules.iter().enumerate() {
        check_matches(&rule.matches, &format!("spec.rules[{i}].matches"), violations);
        conf(rule, &format!("spec.rules[{i}].default"), violations);
    }
}

/// Reports what is wrong with the list of matches at `path`.
pub fn check_matches(matches: &[Match], path: &str, violations: &mut Violations) {
    for (i, one) in matches.iter().enumerate() {
        one.check(&format!("{path}[{i}]"), violations);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn wrong(check: impl FnOnce(&mut Violations)) -> Vec<String> {
        let mut violations = Violations::default();
        check(&mut violations);
        violations.iter().map(ToString::to_string).collect()
    }

    fn target(json: Value, inbound: bool) -> Vec<String> {
        let target: TargetRef = serde_json::from_value(json).unwrap();
        wrong(|violations| target.check(inbound, violations))
    }

    fn to(json: Value) -> Vec<String> {
        let to: To<Value> = serde_json::from_value(json).unwrap();
        let kinds = [ToKind::Mesh, ToKind::MeshService, ToKind::MeshExternalService];
        wrong(|violations| check_to(&[to], &kinds, violations, |_, _, _| {}))
    }

    fn matches(json: Value) -> Vec<String> {
        let one: Match = serde_json::from_value(json).unwrap();
        wrong(|violations| check_matches(&[one], "spec.rules[0].matches", violations))
    }

    #[test]
    fn a_policy_is_for_the_mesh_or_for_dataplanes() {
        assert_eq!(target(json!({"kind": "Mesh"}), false), [""; 0]);
        let all = json!({"kind": "Dataplane", "labels": {"app": "web"}, "sectionName": "http"});
        assert_eq!(target(all.clone(), true), [""; 0]);
        assert_eq!(
            target(all, false),
            ["spec.targetRef.sectionName: can only be used with inbound policies"]
        );
        assert_eq!(
            target(json!({"kind": "Nothing"}), true),
            ["spec.targetRef.kind: in body should be one of [Mesh Dataplane]"]
        );
        assert_eq!(
            target(json!({"kind": "Mesh", "labels": {"a": "b"}, "sectionName": "x"}), true),
            [
                "spec.targetRef.labels: must not be set when kind is Mesh",
                "spec.targetRef.sectionName: must not be set when kind is Mesh"
            ]
        );
    }

    #[test]
    fn a_destination_is_selected_by_labels() {
        assert_eq!(to(json!({"targetRef": {"kind": "Mesh"}, "default": {}})), [""; 0]);
        let good = json!({"kind": "MeshService", "labels": {"a": "b"}, "sectionName": "http"});
        assert_eq!(to(json!({"targetRef": good})), [""; 0]);
        assert_eq!(
            to(json!({"targetRef": {"kind": "MeshService"}})),
            ["spec.to[0].targetRef.labels: must be set when kind is MeshService"]
        );
        let bad = json!({"kind": "MeshExternalService", "labels": {"a": "b"}, "sectionName": "1"});
        assert_eq!(
            to(json!({"targetRef": bad})),
            ["spec.to[0].targetRef.sectionName: must not be set when kind is MeshExternalService"]
        );
        assert_eq!(
            to(json!({"targetRef": {"kind": "MeshGateway"}})),
            [
                "spec.to[0].targetRef.kind: in body should be one of [Mesh MeshService MeshExternalService]"
            ]
        );
    }

    #[test]
    fn a_match_compares_whole_identities() {
        let id = |r#type: &str, value: &str| json!({"spiffeID": {"type": r#type, "value": value}});
        for good in ["spiffe://shop", "spiffe://shop.east.mesh.local/ns/a/sa/B_1.2"] {
            assert_eq!(matches(id("Prefix", good)), [""; 0]);
        }
        for bad in [
            "",
            "shop",
            "spiffe://",
            "spiffe:///a",
            "spiffe://a/",
            "spiffe://a//b",
            "spiffe://a/../b",
            "spiffe://A/b",
            "spiffe://a:1/b",
            "spiffe://a/b c",
        ] {
            assert_eq!(
                matches(id("Exact", bad)),
                ["spec.rules[0].matches[0].spiffeID.value: must be a valid SPIFFE ID"],
                "{bad}"
            );
        }
        assert_eq!(
            matches(id("Regex", "spiffe://a")),
            ["spec.rules[0].matches[0].spiffeID.type: in body should be one of [Exact Prefix]"]
        );
        assert_eq!(
            matches(json!({})),
            ["spec.rules[0].matches[0]: at least one of spiffeID, sni must be set"]
        );
        assert_eq!(
            matches(json!({"sni": {"type": "Prefix", "value": ""}})),
            [
                "spec.rules[0].matches[0].sni.type: in body should be one of [Exact]",
                "spec.rules[0].matches[0].sni.value: must not be empty"
            ]
        );
    }

    #[test]
    fn what_is_left_out_is_not_written() {
        let json = json!({"matches": [{"sni": {"type": "Exact", "value": "a"}}], "default": {}});
        let rule: Rule<Value> = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(&rule).unwrap(), json);
        let json = json!({"targetRef": {"kind": "Mesh"}, "default": {"idleTimeout": "1s"}});
        let to: To<Value> = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(&to).unwrap(), json);
    }
}
