use super::{Conf, Http, MeshHealthCheck};
use crate::{header::check_headers, policy::DESTINATIONS, rule};
use resource::Violations;
use std::collections::BTreeSet;
use xds::target::check_to;

pub(super) fn validate(policy: &MeshHealthCheck, violations: &mut Violations) {
    if let Some(target) = &policy.target_ref {
        target.check(false, violations);
    }
    check_to(&policy.to, &DESTINATIONS, violations, check_conf);
}

fn check_conf(conf: &Conf, path: &str, violations: &mut Violations) {
    let durations = [
        ("interval", conf.interval),
        ("timeout", conf.timeout),
        ("initialJitter", conf.initial_jitter),
        ("intervalJitter", conf.interval_jitter),
        ("noTrafficInterval", conf.no_traffic_interval),
    ];
    rule::all_positive(path, durations, violations);
    for (field, threshold) in [
        ("unhealthyThreshold", conf.unhealthy_threshold),
        ("healthyThreshold", conf.healthy_threshold),
    ] {
        rule::above_zero(format_args!("{path}.{field}"), threshold, violations);
    }
    let jitter = conf.interval_jitter_percent;
    rule::percent(format_args!("{path}.intervalJitterPercent"), jitter, violations);
    if conf.event_log_path.as_ref().is_some_and(|path| !rule::is_file_path(path)) {
        violations.add(format_args!("{path}.eventLogPath"), "must be a valid path when defined");
    }
    if let Some(http) = &conf.http {
        check_http(http, &format!("{path}.http"), violations);
    }
    if conf.http.is_none() && conf.tcp.is_none() && conf.grpc.is_none() {
        violations.add(path, "must have at least one defined: http, tcp, grpc");
    }
}

fn check_http(http: &Http, path: &str, violations: &mut Violations) {
    if let Some(asked) = &http.path {
        rule::not_empty(format_args!("{path}.path"), asked, violations);
    }
    for (i, status) in http.expected_statuses.iter().flatten().enumerate() {
        rule::status_code(format_args!("{path}.expectedStatuses[{i}]"), *status, violations);
    }
    if let Some(headers) = &http.request_headers_to_add {
        for (field, headers) in [("set", &headers.set), ("add", &headers.add)] {
            let path = format!("{path}.requestHeadersToAdd.{field}");
            let headers = headers.as_deref().unwrap_or_default();
            check_headers(&path, headers, &mut BTreeSet::new(), violations);
        }
    }
}
