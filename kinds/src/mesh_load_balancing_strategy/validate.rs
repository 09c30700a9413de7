use super::{
    Conf, CrossZone, Failover, HashPolicy, HashPolicyType, LoadBalancer, LocalZone,
    LocalityAwareness, MeshLoadBalancingStrategy, ToZonesType,
};
use crate::{policy::DESTINATIONS_AND_ROUTES, rule};
use resource::Violations;
use xds::{ToKind, target::check_to};

pub(super) fn validate(policy: &MeshLoadBalancingStrategy, violations: &mut Violations) {
    if let Some(target) = &policy.target_ref {
        target.check(false, violations);
    }
    check_to(&policy.to, &DESTINATIONS_AND_ROUTES, violations, |_, _, _| {});
    for (i, to) in policy.to.iter().enumerate() {
        check_conf(&to.default, to.target_ref.kind, &format!("spec.to[{i}].default"), violations);
    }
}

fn check_conf(conf: &Conf, kind: ToKind, path: &str, violations: &mut Violations) {
    let Conf { locality_awareness, load_balancer, hash_policies } = conf;
    if kind == ToKind::MeshHTTPRoute {
        // The others are about a cluster, which all routes share.
        for (field, is_set) in [
            ("loadBalancer", load_balancer.is_some()),
            ("localityAwareness", locality_awareness.is_some()),
        ] {
            if is_set {
                let path = format_args!("{path}.{field}");
                violations.add(path, "must not be set when kind is MeshHTTPRoute");
            }
        }
    } else {
        if let Some(balancer) = load_balancer {
            check_balancer(balancer, &format!("{path}.loadBalancer"), violations);
        }
        if let Some(awareness) = locality_awareness {
            check_awareness(awareness, kind, &format!("{path}.localityAwareness"), violations);
        }
    }
    for (i, policy) in hash_policies.iter().flatten().enumerate() {
        check_hash(policy, &format!("{path}.hashPolicies[{i}]"), violations);
    }
}

fn check_awareness(
    awareness: &LocalityAwareness,
    kind: ToKind,
    path: &str,
    violations: &mut Violations,
) {
    if let Some(zone) = &awareness.local_zone {
        check_local_zone(zone, &format!("{path}.localZone.affinityTags"), violations);
    }
    let path = format!("{path}.crossZone");
    match &awareness.cross_zone {
        Some(zones) if kind == ToKind::MeshMultiZoneService => {
            check_cross_zone(zones, &path, violations);
        }
        Some(_) => {
            let reason = "crossZone is only supported when targetRef.kind is MeshMultiZoneService";
            violations.add(path, reason);
        }
        None => {}
    }
}

fn check_local_zone(zone: &LocalZone, path: &str, violations: &mut Violations) {
    let tags = zone.affinity_tags.as_deref().unwrap_or_default();
    for (i, tag) in tags.iter().enumerate() {
        rule::not_empty(format_args!("{path}[{i}].key"), &tag.key, violations);
        rule::above_zero(format_args!("{path}[{i}].weight"), tag.weight, violations);
    }
    let weighted = tags.iter().filter(|tag| tag.weight.is_some()).count();
    if weighted > 0 && weighted != tags.len() {
        violations.add(path, "all or none affinity tags should have weight");
    }
}

fn check_cross_zone(zones: &CrossZone, path: &str, violations: &mut Violations) {
    for (i, failover) in zones.failover.iter().flatten().enumerate() {
        check_failover(failover, &format!("{path}.failover[{i}]"), violations);
    }
    if let Some(threshold) = &zones.failover_threshold {
        let path = format!("{path}.failoverThreshold.percentage");
        rule::percentage(&path, &threshold.percentage, violations);
        if threshold.percentage.to_f64() == Some(0.0) {
            violations.add(path, "must be greater than 0");
        }
    }
}

fn check_failover(failover: &Failover, path: &str, violations: &mut Violations) {
    if let Some(from) = &failover.from {
        let path = format!("{path}.from.zones");
        if from.zones.is_empty() {
            violations.add(&path, "must not be empty");
        }
        for (i, zone) in from.zones.iter().enumerate() {
            rule::not_empty(format_args!("{path}[{i}]"), zone, violations);
        }
    }
    let named = failover.to.zones.as_ref().is_some_and(|zones| !zones.is_empty());
    let path = format_args!("{path}.to.zones");
    match (failover.to.r#type, named) {
        (ToZonesType::None, true) => violations.add(path, "must be empty when type is None"),
        (ToZonesType::Any, true) => violations.add(path, "must be empty when type is Any"),
        (ToZonesType::Only, false) => {
            violations.add(path, "must not be empty when type is Only");
        }
        (ToZonesType::AnyExcept, false) => {
            violations.add(path, "must not be empty when type is AnyExcept");
        }
        (ToZonesType::None | ToZonesType::Any, false)
        | (ToZonesType::Only | ToZonesType::AnyExcept, true) => {}
    }
}

fn check_balancer(balancer: &LoadBalancer, path: &str, violations: &mut Violations) {
    let mut bounds = |field: &str, number: Option<u32>, range| {
        if let Some(number) = number {
            rule::range(format_args!("{path}.{field}"), number, range, violations);
        }
    };
    if let Some(ring) = &balancer.ring_hash {
        bounds("ringHash.minRingSize", ring.min_ring_size, 1..=8_000_000);
        bounds("ringHash.maxRingSize", ring.max_ring_size, 1..=8_000_000);
    }
    if let Some(maglev) = &balancer.maglev {
        bounds("maglev.tableSize", maglev.table_size, 1..=5_000_011);
    }
    let Some(least) = &balancer.least_request else { return };
    bounds("leastRequest.choiceCount", least.choice_count, 2..=i64::from(u32::MAX));
    let path = format_args!("{path}.leastRequest.activeRequestBias");
    match least.active_request_bias.as_ref().map(crate::IntOrString::to_f64) {
        Some(None) => violations.add(path, "string must be a valid number"),
        Some(Some(bias)) if bias < 0.0 => {
            violations.add(path, "must be greater than or equal to 0");
        }
        Some(Some(_)) | None => {}
    }
}

fn check_hash(policy: &HashPolicy, path: &str, violations: &mut Violations) {
    let HashPolicy { r#type, header, cookie, connection, query_parameter, filter_state, .. } =
        policy;
    let (field, is_set) = match r#type {
        HashPolicyType::Header => ("header", header.is_some()),
        HashPolicyType::Cookie => ("cookie", cookie.is_some()),
        HashPolicyType::Connection => ("connection", connection.is_some()),
        HashPolicyType::QueryParameter => ("queryParameter", query_parameter.is_some()),
        HashPolicyType::FilterState => ("filterState", filter_state.is_some()),
    };
    if !is_set {
        violations.add(format_args!("{path}.{field}"), "must be defined");
    }
    for (field, name) in [
        ("header.name", header.as_ref().map(|it| &it.name)),
        ("cookie.name", cookie.as_ref().map(|it| &it.name)),
        ("queryParameter.name", query_parameter.as_ref().map(|it| &it.name)),
        ("filterState.key", filter_state.as_ref().map(|it| &it.key)),
    ] {
        if let Some(name) = name {
            rule::not_empty(format_args!("{path}.{field}"), name, violations);
        }
    }
    let cookie_path = cookie.as_ref().and_then(|cookie| cookie.path.as_ref());
    if cookie_path.is_some_and(|path| !path.starts_with('/')) {
        violations.add(format_args!("{path}.cookie.path"), "must be an absolute path");
    }
}
