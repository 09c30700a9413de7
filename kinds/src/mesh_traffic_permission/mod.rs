//! MeshTrafficPermission: who may call whom.

mod spec;
#[cfg(test)]
mod tests;
mod xds;

pub use self::spec::{Conf, MeshTrafficPermission};

use ::xds::{policy::PolicyKind, target::check_matches};
use resource::{Flow, Json, NoStatus, Scope, Spec, Targets, Violations};

/// See [`MeshTrafficPermission`].
pub const KIND: PolicyKind = PolicyKind::of::<MeshTrafficPermission>();

impl Spec for MeshTrafficPermission {
    type Encoding = Json;
    type Status = NoStatus;

    const KIND: &'static str = "MeshTrafficPermission";
    const PLURAL: &'static str = "meshtrafficpermissions";
    const SHORT: &'static str = "mtp";
    const SCOPE: Scope = Scope::Mesh;
    const FLOW: Flow = Flow::Everywhere;
    const TARGETS: Option<Targets> = Some(Targets { to: false, rules: true });

    fn schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }

    fn validate(&self, violations: &mut Violations) {
        if let Some(target) = &self.target_ref {
            target.check(true, violations);
        }
        if self.rules.is_empty() {
            violations.add("spec.rules", "must not be empty");
        }
        for (i, rule) in self.rules.iter().enumerate() {
            let Conf { deny, allow, allow_with_shadow_deny } = &rule.default;
            let path = format!("spec.rules[{i}].default");
            if deny.is_empty() && allow.is_empty() && allow_with_shadow_deny.is_empty() {
                violations.add(
                    &path,
                    "at least one of 'allow', 'allowWithShadowDeny', 'deny' has to be defined",
                );
            }
            if !rule.matches.is_empty() {
                let path = format_args!("spec.rules[{i}].matches");
                violations.add(path, "must not be set: callers are matched by 'allow' and 'deny'");
            }
            check_matches(allow, &format!("{path}.allow"), violations);
            let shadow = format!("{path}.allowWithShadowDeny");
            check_matches(allow_with_shadow_deny, &shadow, violations);
            check_matches(deny, &format!("{path}.deny"), violations);
        }
    }
}
