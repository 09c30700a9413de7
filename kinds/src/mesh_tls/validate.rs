use super::{Conf, MeshTLS};
use crate::policy::check_no_matches;
use resource::Violations;
use xds::{TargetKind, target::check_rules};

pub(super) fn validate(policy: &MeshTLS, violations: &mut Violations) {
    let MeshTLS { target_ref, rules } = policy;
    if let Some(target) = target_ref {
        target.check(true, violations);
    }
    check_no_matches(rules, violations);
    let all = target_ref.as_ref().is_none_or(|target| target.kind == TargetKind::Mesh);
    check_rules(rules, violations, |rule, path, violations| {
        if all {
            if let Some(versions) = rule.default.tls_version {
                versions.check(&format!("{path}.tlsVersion"), violations);
            }
        } else {
            check_of_some(&rule.default, path, violations);
        }
    });
}

/// What both ends have to agree about is the same for all of a mesh.
fn check_of_some(conf: &Conf, path: &str, violations: &mut Violations) {
    let ciphers = conf.tls_ciphers.as_ref().is_some_and(|ciphers| !ciphers.is_empty());
    for (field, is_set) in [("tlsCiphers", ciphers), ("tlsVersion", conf.tls_version.is_some())] {
        if is_set {
            let reason =
                format_args!("{field} can only be defined with top level targetRef kind: Mesh");
            violations.add(format_args!("{path}.{field}"), reason);
        }
    }
}
