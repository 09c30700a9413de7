use super::{Abort, Conf, Delay, MeshFaultInjection, ResponseBandwidth};
use crate::{policy::check_direction, rule};
use resource::Violations;
use xds::{
    TargetKind, ToKind,
    target::{check_rules, check_to},
};

pub(super) fn validate(policy: &MeshFaultInjection, violations: &mut Violations) {
    let MeshFaultInjection { target_ref, to, rules } = policy;
    check_direction(target_ref.as_ref(), to, rules, violations);
    // It is the proxy that is called that makes a fault.
    let all = target_ref.as_ref().is_none_or(|target| target.kind == TargetKind::Mesh);
    if !all && !to.is_empty() {
        violations.add("spec.to", "must not be defined: it needs a targetRef of kind Mesh");
    }
    check_to(to, &[ToKind::Mesh], violations, check_conf);
    check_rules(rules, violations, |rule, path, violations| {
        check_conf(&rule.default, path, violations);
    });
}

fn check_conf(conf: &Conf, path: &str, violations: &mut Violations) {
    for (i, fault) in conf.http.iter().flatten().enumerate() {
        let path = format!("{path}.http[{i}]");
        if let Some(Abort { http_status, percentage }) = &fault.abort {
            rule::status_code(format_args!("{path}.abort.httpStatus"), *http_status, violations);
            rule::percentage(format_args!("{path}.abort.percentage"), percentage, violations);
        }
        if let Some(Delay { value, percentage }) = &fault.delay {
            if value.is_negative() {
                let path = format_args!("{path}.delay.value");
                violations.add(path, "must not be negative when defined");
            }
            rule::percentage(format_args!("{path}.delay.percentage"), percentage, violations);
        }
        if let Some(ResponseBandwidth { limit, percentage }) = &fault.response_bandwidth {
            let path = format!("{path}.responseBandwidth");
            if !is_bandwidth(limit) {
                let reason = "must be a number in kbps/Mbps/Gbps units";
                violations.add(format_args!("{path}.limit"), reason);
            }
            rule::percentage(format_args!("{path}.percentage"), percentage, violations);
        }
    }
}

fn is_bandwidth(text: &str) -> bool {
    let units = ["Gbps", "Mbps", "kbps", "bps"];
    let number = units.iter().find_map(|unit| text.strip_suffix(unit)).unwrap_or_default();
    let number = number.strip_suffix(' ').unwrap_or(number);
    !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
}
