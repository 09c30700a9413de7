use super::{Conf, Http, Local, MeshRateLimit, Rate, Tcp};
use crate::{GoDuration, header::check_headers, policy::check_direction, rule};
use resource::Violations;
use std::{collections::BTreeSet, time::Duration};
use xds::{
    Rule, TargetKind, ToKind,
    target::{check_rules, check_to},
};

pub(super) fn validate(policy: &MeshRateLimit, violations: &mut Violations) {
    let MeshRateLimit { target_ref, to, rules } = policy;
    check_direction(target_ref.as_ref(), to, rules, violations);
    let all = target_ref.as_ref().is_none_or(|target| target.kind == TargetKind::Mesh);
    if all && !rules.is_empty() {
        violations.add("spec.rules", "must not be defined: it needs a targetRef of kind Dataplane");
    }
    if !all && !to.is_empty() {
        violations.add("spec.to", "must not be defined: it needs a targetRef of kind Mesh");
    }
    check_to(to, &[ToKind::Mesh], violations, check_conf);
    check_rules(rules, violations, check_rule);
}

fn check_rule(rule: &Rule<Conf>, path: &str, violations: &mut Violations) {
    check_conf(&rule.default, path, violations);
    let of_callers = rule.matches.iter().any(|one| one.spiffe_id.is_some());
    let tcp = rule.default.local.as_ref().is_some_and(|local| local.tcp.is_some());
    if of_callers && tcp {
        // A connection is counted before anybody knows who is calling.
        let path = format_args!("{path}.local.tcp");
        violations.add(path, "must not be set when matches have a spiffeID");
    }
}

fn check_conf(conf: &Conf, path: &str, violations: &mut Violations) {
    let path = format!("{path}.local");
    let Some(Local { http, tcp }) = rule::defined(&path, conf.local.as_ref(), violations) else {
        return;
    };
    if http.is_none() && tcp.is_none() {
        violations.add(&path, "must have at least one defined: tcp, http");
    }
    if let Some(http) = http {
        check_http(http, &format!("{path}.http"), violations);
    }
    if let Some(tcp) = tcp {
        check_tcp(tcp, &format!("{path}.tcp"), violations);
    }
}

fn check_http(http: &Http, path: &str, violations: &mut Violations) {
    if *http == Http::default() {
        violations.add(path, "must have at least one defined: disabled, requestRate, onRateLimit");
    }
    if let Some(rate) = &http.request_rate {
        check_rate(rate, &format!("{path}.requestRate"), violations);
    }
    let Some(answer) = &http.on_rate_limit else { return };
    let path = format!("{path}.onRateLimit");
    rule::above_zero(format_args!("{path}.status"), answer.status, violations);
    let Some(headers) = &answer.headers else { return };
    for (field, headers) in [("set", &headers.set), ("add", &headers.add)] {
        let path = format!("{path}.headers.{field}");
        let headers = headers.as_deref().unwrap_or_default();
        check_headers(&path, headers, &mut BTreeSet::new(), violations);
    }
}

fn check_tcp(tcp: &Tcp, path: &str, violations: &mut Violations) {
    if *tcp == Tcp::default() {
        violations.add(path, "must have at least one defined: disabled, connectionRate");
    }
    if let Some(rate) = &tcp.connection_rate {
        check_rate(rate, &format!("{path}.connectionRate"), violations);
    }
}

/// Envoy fills its bucket no more often.
const SHORTEST: Duration = Duration::from_millis(50);

fn check_rate(rate: &Rate, path: &str, violations: &mut Violations) {
    rule::above_zero(format_args!("{path}.num"), Some(rate.num), violations);
    if rate.interval <= GoDuration::from(SHORTEST) {
        violations.add(format_args!("{path}.interval"), "must be greater than: 50ms");
    }
}
