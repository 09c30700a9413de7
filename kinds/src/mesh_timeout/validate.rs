use super::{Conf, Http, MeshTimeout};
use crate::{GoDuration, rule};
use resource::Violations;
use xds::{
    Rule, To, ToKind,
    target::{check_rules, check_to},
};

const DESTINATIONS: [ToKind; 5] = [
    ToKind::Mesh,
    ToKind::MeshService,
    ToKind::MeshExternalService,
    ToKind::MeshMultiZoneService,
    ToKind::MeshHTTPRoute,
];

pub(super) fn validate(policy: &MeshTimeout, violations: &mut Violations) {
    if let Some(target) = &policy.target_ref {
        target.check(policy.to.is_empty(), violations);
    }
    if policy.to.is_empty() && policy.rules.is_empty() {
        violations.add("spec", "at least one of 'to' or 'rules' has to be defined");
    }
    check_to(&policy.to, &DESTINATIONS, violations, |_, _, _| {});
    for (i, to) in policy.to.iter().enumerate() {
        validate_to(to, &format!("spec.to[{i}].default"), violations);
    }
    check_rules(&policy.rules, violations, validate_rule);
}

fn validate_to(to: &To<Conf>, path: &str, violations: &mut Violations) {
    validate_conf(&to.default, path, violations);
    if to.target_ref.kind != ToKind::MeshHTTPRoute {
        return;
    }
    // The others are those of a connection, which all routes share.
    let of_routes = ["http.requestTimeout", "http.streamIdleTimeout"];
    for (field, value) in fields(&to.default) {
        if value.is_some() && !of_routes.contains(&field) {
            let path = format_args!("{path}.{field}");
            violations.add(path, "must not be set when kind is MeshHTTPRoute");
        }
    }
}

fn validate_rule(rule: &Rule<Conf>, path: &str, violations: &mut Violations) {
    validate_conf(&rule.default, path, violations);
    if rule.matches.iter().all(|one| one.spiffe_id.is_none()) {
        return;
    }
    // A connection has its timeouts before anybody knows who is calling.
    for (field, value) in fields(&rule.default).into_iter().take(2) {
        if value.is_some() {
            let path = format_args!("{path}.{field}");
            violations.add(path, "must not be set when matches have a spiffeID");
        }
    }
}

fn validate_conf(conf: &Conf, path: &str, violations: &mut Violations) {
    let fields = fields(conf);
    if conf.http.as_ref().is_some_and(|http| *http == Http::default()) {
        let reason = "at least one timeout in this section should be configured";
        violations.add(format_args!("{path}.http"), reason);
    } else if fields.iter().all(|(_, value)| value.is_none()) {
        violations.add(path, "at least one timeout should be configured");
    }
    for (field, value) in fields {
        let Some(value) = value else { continue };
        let path = format_args!("{path}.{field}");
        if field == "connectionTimeout" {
            rule::positive(path, value, violations);
        } else if value.is_negative() {
            violations.add(path, "must not be negative when defined");
        }
    }
}

/// Every timeout with its path; those of connections first.
fn fields(conf: &Conf) -> [(&'static str, Option<GoDuration>); 7] {
    let http = conf.http.clone().unwrap_or_default();
    let Http {
        request_timeout,
        stream_idle_timeout,
        max_stream_duration,
        max_connection_duration,
        request_headers_timeout,
    } = http;
    [
        ("connectionTimeout", conf.connection_timeout),
        ("idleTimeout", conf.idle_timeout),
        ("http.requestTimeout", request_timeout),
        ("http.streamIdleTimeout", stream_idle_timeout),
        ("http.maxStreamDuration", max_stream_duration),
        ("http.maxConnectionDuration", max_connection_duration),
        ("http.requestHeadersTimeout", request_headers_timeout),
    ]
}
