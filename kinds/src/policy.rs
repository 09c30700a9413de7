//! Rules that several policies share.

use resource::Violations;
use xds::{Rule, TargetRef, To, ToKind};

/// What outgoing traffic goes to.
pub(crate) const DESTINATIONS: [ToKind; 4] =
    [ToKind::Mesh, ToKind::MeshService, ToKind::MeshExternalService, ToKind::MeshMultiZoneService];

/// What outgoing traffic goes to, and the routes on its way.
pub(crate) const DESTINATIONS_AND_ROUTES: [ToKind; 5] = [
    ToKind::Mesh,
    ToKind::MeshService,
    ToKind::MeshExternalService,
    ToKind::MeshMultiZoneService,
    ToKind::MeshHTTPRoute,
];

/// What [`check_direction`] refuses, for [`resource::cel`]: a policy for no traffic,
pub(crate) const SOME_TRAFFIC: (&str, &str, &str) = (
    "",
    "(has(self.to) && size(self.to) > 0) || (has(self.rules) && size(self.rules) > 0)",
    "at least one of 'to' or 'rules' has to be defined",
);

/// one for both directions,
pub(crate) const ONE_DIRECTION: (&str, &str, &str) = (
    "",
    "!has(self.to) || size(self.to) == 0 || !has(self.rules) || size(self.rules) == 0",
    "'to' must be empty when 'rules' is defined",
);

/// and one for outgoing traffic that is about an inbound.
pub(crate) const SECTION_OF_INBOUND: (&str, &str, &str) = (
    ".targetRef.sectionName",
    "!has(self.targetRef) || !has(self.targetRef.sectionName) || !has(self.to) || size(self.to) == 0",
    "can only be used with inbound policies",
);

/// The same of policies that are never about an inbound.
pub(crate) const NO_SECTION: (&str, &str, &str) = (
    ".targetRef.sectionName",
    "!has(self.targetRef) || !has(self.targetRef.sectionName)",
    "can only be used with inbound policies",
);

/// A policy for outgoing or for incoming traffic, with what it selects.
pub(crate) fn check_direction<C>(
    target: Option<&TargetRef>,
    to: &[To<C>],
    rules: &[Rule<C>],
    violations: &mut Violations,
) {
    if let Some(target) = target {
        target.check(to.is_empty(), violations);
    }
    match (to.is_empty(), rules.is_empty()) {
        (true, true) => {
            violations.add("spec", "at least one of 'to' or 'rules' has to be defined");
        }
        (false, false) => violations.add("spec", "'to' must be empty when 'rules' is defined"),
        (true, false) | (false, true) => {}
    }
}

/// Rules that are the same for all callers.
pub(crate) fn check_no_matches<C>(rules: &[Rule<C>], violations: &mut Violations) {
    for (i, rule) in rules.iter().enumerate() {
        if !rule.matches.is_empty() {
            let path = format_args!("spec.rules[{i}].matches");
            violations.add(path, "must not be set: it is the same for all callers");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn wrong(target: Value, to: Value, rules: Value) -> Vec<String> {
        let target: Option<TargetRef> = serde_json::from_value(target).unwrap();
        let to: Vec<To<Value>> = serde_json::from_value(to).unwrap();
        let rules: Vec<Rule<Value>> = serde_json::from_value(rules).unwrap();
        let mut violations = Violations::default();
        check_direction(target.as_ref(), &to, &rules, &mut violations);
        check_no_matches(&rules, &mut violations);
        violations.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_policy_is_for_one_direction() {
        let inbound = json!({ "kind": "Dataplane", "sectionName": "http" });
        let to = json!([{ "targetRef": { "kind": "Mesh" } }]);
        assert_eq!(wrong(json!(null), to.clone(), json!([])), [""; 0]);
        assert_eq!(wrong(inbound.clone(), json!([]), json!([{}])), [""; 0]);
        assert_eq!(
            wrong(json!(null), json!([]), json!([])),
            ["spec: at least one of 'to' or 'rules' has to be defined"]
        );
        let id = json!([{ "spiffeID": { "type": "Exact", "value": "spiffe://a/b" } }]);
        assert_eq!(
            wrong(inbound, to, json!([{}, { "matches": id }])),
            [
                "spec.targetRef.sectionName: can only be used with inbound policies",
                "spec: 'to' must be empty when 'rules' is defined",
                "spec.rules[1].matches: must not be set: it is the same for all callers",
            ]
        );
    }
}
