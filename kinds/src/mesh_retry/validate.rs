use super::{
    BackOff, Conf, Grpc, HostSelection, Http, MeshRetry, Predicate, RateLimitedBackOff, Tcp,
};
use crate::{GoDuration, header, policy::DESTINATIONS_AND_ROUTES, rule};
use resource::Violations;
use xds::target::check_to;

pub(super) fn validate(policy: &MeshRetry, violations: &mut Violations) {
    if let Some(target) = &policy.target_ref {
        target.check(false, violations);
    }
    if policy.to.is_empty() {
        violations.add("spec.to", "needs at least one item");
    }
    check_to(&policy.to, &DESTINATIONS_AND_ROUTES, violations, check_conf);
}

fn check_conf(conf: &Conf, path: &str, violations: &mut Violations) {
    if *conf == Conf::default() {
        violations.add(path, "at least one of the 'tcp', 'http', 'grpc' must be specified");
    }
    if let Some(Tcp { max_connect_attempt }) = conf.tcp {
        let path = format!("{path}.tcp");
        if max_connect_attempt.is_none() {
            violations.add(&path, "must not be empty");
        }
        let path = format_args!("{path}.maxConnectAttempt");
        rule::above_zero(path, max_connect_attempt, violations);
    }
    if let Some(http) = &conf.http {
        check_http(http, &format!("{path}.http"), violations);
    }
    if let Some(grpc) = &conf.grpc {
        check_grpc(grpc, &format!("{path}.grpc"), violations);
    }
}

fn check_http(http: &Http, path: &str, violations: &mut Violations) {
    if *http == Http::default() {
        violations.add(path, "must not be empty");
    }
    check_try(http.per_try_timeout, http.back_off.as_ref(), path, violations);
    check_rate_limited(http.rate_limited_back_off.as_ref(), path, violations);
    for (i, condition) in http.retry_on.iter().flatten().enumerate() {
        if !is_condition(condition) {
            let path = format_args!("{path}.retryOn[{i}]");
            violations.add(path, format_args!("unknown item '{condition}'"));
        }
    }
    for (field, headers) in [
        ("retriableResponseHeaders", &http.retriable_response_headers),
        ("retriableRequestHeaders", &http.retriable_request_headers),
    ] {
        for (i, header) in headers.iter().flatten().enumerate() {
            header.check(&format!("{path}.{field}[{i}]"), violations);
        }
    }
    let mut priorities = 0;
    for (i, selection) in http.host_selection.iter().flatten().enumerate() {
        let path = format!("{path}.hostSelection[{i}]");
        priorities += usize::from(selection.predicate == Predicate::OmitPreviousPriorities);
        check_selection(selection, priorities, &path, violations);
    }
}

fn check_selection(
    selection: &HostSelection,
    priorities: usize,
    path: &str,
    violations: &mut Violations,
) {
    match selection.predicate {
        Predicate::OmitPreviousHosts => {}
        Predicate::OmitHostsWithTags => {
            let path = format_args!("{path}.tags");
            rule::defined(path, selection.tags.as_ref(), violations);
        }
        Predicate::OmitPreviousPriorities => {
            if priorities > 1 {
                let reason = "OmitPreviousPriorities must only be specified once";
                violations.add(format_args!("{path}.predicate"), reason);
            }
            let path = format_args!("{path}.updateFrequency");
            rule::above_zero(path, Some(selection.update_frequency), violations);
        }
    }
}

fn check_grpc(grpc: &Grpc, path: &str, violations: &mut Violations) {
    if *grpc == Grpc::default() {
        violations.add(path, "must not be empty");
    }
    check_try(grpc.per_try_timeout, grpc.back_off.as_ref(), path, violations);
    check_rate_limited(grpc.rate_limited_back_off.as_ref(), path, violations);
}

fn check_try(
    timeout: Option<GoDuration>,
    back_off: Option<&BackOff>,
    path: &str,
    violations: &mut Violations,
) {
    if timeout.is_some_and(GoDuration::is_negative) {
        let path = format_args!("{path}.perTryTimeout");
        violations.add(path, "must not be negative when defined");
    }
    let Some(BackOff { base_interval, max_interval }) = back_off else { return };
    let path = format!("{path}.backOff");
    if base_interval.is_none() && max_interval.is_none() {
        violations.add(&path, "must not be empty");
    }
    let intervals = [("baseInterval", *base_interval), ("maxInterval", *max_interval)];
    rule::all_positive(&path, intervals, violations);
}

fn check_rate_limited(
    back_off: Option<&RateLimitedBackOff>,
    path: &str,
    violations: &mut Violations,
) {
    let Some(RateLimitedBackOff { reset_headers, max_interval }) = back_off else { return };
    let path = format!("{path}.rateLimitedBackOff");
    rule::all_positive(&path, [("maxInterval", *max_interval)], violations);
    let path = format!("{path}.resetHeaders");
    let headers = rule::defined(&path, reset_headers.as_ref(), violations);
    for (i, one) in headers.into_iter().flatten().enumerate() {
        header::check_name(&format!("{path}[{i}].name"), &one.name, violations);
    }
}

const CONDITIONS: [&str; 8] = [
    "5xx",
    "GatewayError",
    "Reset",
    "Retriable4xx",
    "ConnectFailure",
    "EnvoyRatelimited",
    "RefusedStream",
    "Http3PostConnectFailure",
];

const METHODS: [&str; 9] =
    ["Connect", "Delete", "Get", "Head", "Options", "Patch", "Post", "Put", "Trace"];

/// After what a request can be tried again; a method is one that can be, instead.
fn is_condition(text: &str) -> bool {
    let is_method = text.strip_prefix("HttpMethod").is_some_and(|method| METHODS.contains(&method));
    CONDITIONS.contains(&text) || is_method || text.parse().is_ok_and(is_status)
}

/// Whether HTTP has a status with this number.
const fn is_status(code: u16) -> bool {
    matches!(
        code,
        100..=103
            | 200..=208
            | 226
            | 300..=305
            | 307..=308
            | 400..=418
            | 421..=426
            | 428..=429
            | 431
            | 451
            | 500..=508
            | 510..=511
    )
}
