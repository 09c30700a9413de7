use super::{
    Conf, ConnectionLimits, Consecutive, Detectors, FailurePercentage, MeshCircuitBreaker,
    OutlierDetection, SuccessRate,
};
use crate::{
    policy::{DESTINATIONS, check_direction, check_no_matches},
    rule,
};
use resource::Violations;
use xds::target::{check_rules, check_to};

pub(super) fn validate(policy: &MeshCircuitBreaker, violations: &mut Violations) {
    let MeshCircuitBreaker { target_ref, to, rules } = policy;
    check_direction(target_ref.as_ref(), to, rules, violations);
    check_no_matches(rules, violations);
    check_to(to, &DESTINATIONS, violations, check_conf);
    check_rules(rules, violations, |rule, path, violations| {
        check_conf(&rule.default, path, violations);
    });
}

fn check_conf(conf: &Conf, path: &str, violations: &mut Violations) {
    let Conf { connection_limits, outlier_detection } = conf;
    if connection_limits.is_none() && outlier_detection.is_none() {
        let reason =
            "at least one of: 'connectionLimits' or 'outlierDetection' should be configured";
        violations.add(path, reason);
    }
    if let Some(limits) = connection_limits {
        check_limits(limits, &format!("{path}.connectionLimits"), violations);
    }
    if let Some(detection) = outlier_detection {
        check_detection(detection, &format!("{path}.outlierDetection"), violations);
    }
}

fn check_limits(limits: &ConnectionLimits, path: &str, violations: &mut Violations) {
    for (field, limit) in [
        ("maxConnections", limits.max_connections),
        ("maxConnectionPools", limits.max_connection_pools),
        ("maxPendingRequests", limits.max_pending_requests),
        ("maxRetries", limits.max_retries),
        ("maxRequests", limits.max_requests),
    ] {
        rule::above_zero(format_args!("{path}.{field}"), limit, violations);
    }
}

fn check_detection(detection: &OutlierDetection, path: &str, violations: &mut Violations) {
    let durations =
        [("interval", detection.interval), ("baseEjectionTime", detection.base_ejection_time)];
    rule::all_positive(path, durations, violations);
    let ejected = detection.max_ejection_percent;
    rule::percent(format_args!("{path}.maxEjectionPercent"), ejected, violations);
    if let Some(threshold) = &detection.healthy_panic_threshold {
        rule::percentage(format_args!("{path}.healthyPanicThreshold"), threshold, violations);
    }
    let path = format!("{path}.detectors");
    match &detection.detectors {
        Some(detectors) => check_detectors(detectors, &path, violations),
        // That one says something without detectors.
        None if detection.healthy_panic_threshold.is_some() => {}
        None => violations.add(path, "must be defined"),
    }
}

fn check_detectors(detectors: &Detectors, path: &str, violations: &mut Violations) {
    let Detectors {
        total_failures,
        gateway_failures,
        local_origin_failures,
        success_rate,
        failure_percentage,
    } = detectors;
    if *detectors == Detectors::default() {
        let reason = "must have at least one defined: totalFailures, gatewayFailures, localOriginFailures, successRate, failurePercentage";
        violations.add(path, reason);
    }
    for (field, failures) in [
        ("totalFailures", total_failures),
        ("gatewayFailures", gateway_failures),
        ("localOriginFailures", local_origin_failures),
    ] {
        let consecutive = failures.as_ref().and_then(|Consecutive { consecutive }| *consecutive);
        let path = format_args!("{path}.{field}.consecutive");
        rule::above_zero(path, consecutive, violations);
    }
    if let Some(SuccessRate { minimum_hosts, request_volume, standard_deviation_factor }) =
        success_rate
    {
        let path = format!("{path}.successRate");
        rule::above_zero(format_args!("{path}.minimumHosts"), *minimum_hosts, violations);
        rule::above_zero(format_args!("{path}.requestVolume"), *request_volume, violations);
        let path = format_args!("{path}.standardDeviationFactor");
        match standard_deviation_factor.as_ref().map(crate::IntOrString::to_f64) {
            Some(None) => violations.add(path, "string must be a valid number"),
            Some(Some(factor)) if factor <= 0.0 => {
                violations.add(path, "must be greater than 0");
            }
            Some(Some(_)) | None => {}
        }
    }
    if let Some(FailurePercentage { minimum_hosts, request_volume, threshold }) = failure_percentage
    {
        let path = format!("{path}.failurePercentage");
        rule::above_zero(format_args!("{path}.minimumHosts"), *minimum_hosts, violations);
        rule::above_zero(format_args!("{path}.requestVolume"), *request_volume, violations);
        rule::percent(format_args!("{path}.threshold"), *threshold, violations);
    }
}
