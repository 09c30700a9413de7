use super::*;
use crate::tests::{violations, written};
use serde_json::{Value, json};

fn to(kind: &str, conf: Value) -> Value {
    let target = match kind {
        "Mesh" => json!({ "kind": "Mesh" }),
        kind => json!({ "kind": kind, "labels": { "kuma.io/display-name": "cart" } }),
    };
    json!({ "to": [{ "targetRef": target, "default": conf }] })
}

#[test]
fn every_violation_has_its_path() {
    let multi = |failover| {
        let cross = json!({ "localityAwareness": { "crossZone": { "failover": failover } } });
        to("MeshMultiZoneService", cross)
    };
    let to_any = json!({ "type": "Any" });
    for (spec, expected) in [
        (json!({}), &[][..]),
        (to("Mesh", json!({})), &[]),
        (to("MeshHTTPRoute", json!({ "hashPolicies": [] })), &[]),
        (
            to(
                "MeshHTTPRoute",
                json!({
                    "loadBalancer": { "type": "Random" },
                    "localityAwareness": {},
                    "hashPolicies": [{ "type": "Header" }],
                }),
            ),
            &[
                "spec.to[0].default.loadBalancer: must not be set when kind is MeshHTTPRoute",
                "spec.to[0].default.localityAwareness: must not be set when kind is MeshHTTPRoute",
                "spec.to[0].default.hashPolicies[0].header: must be defined",
            ],
        ),
        (
            to(
                "MeshService",
                json!({ "localityAwareness": {
                "localZone": { "affinityTags": [
                    { "key": "", "weight": 0 },
                    { "key": "k8s.io/node" },
                ] },
                "crossZone": {},
            } }),
            ),
            &[
                "spec.to[0].default.localityAwareness.localZone.affinityTags[0].key: must not be empty",
                "spec.to[0].default.localityAwareness.localZone.affinityTags[0].weight: must be greater than 0",
                "spec.to[0].default.localityAwareness.localZone.affinityTags: all or none affinity tags should have weight",
                "spec.to[0].default.localityAwareness.crossZone: crossZone is only supported when targetRef.kind is MeshMultiZoneService",
            ],
        ),
        (
            multi(json!([
                { "to": { "type": "None", "zones": [] } },
                { "from": { "zones": ["east"] }, "to": { "type": "Only", "zones": ["west"] } },
                { "from": { "zones": [] }, "to": { "type": "Any", "zones": ["west"] } },
                { "from": { "zones": ["east", ""] }, "to": { "type": "None", "zones": ["west"] } },
                { "to": { "type": "Only" } },
                { "to": { "type": "AnyExcept", "zones": [] } },
            ])),
            &[
                "spec.to[0].default.localityAwareness.crossZone.failover[2].from.zones: must not be empty",
                "spec.to[0].default.localityAwareness.crossZone.failover[2].to.zones: must be empty when type is Any",
                "spec.to[0].default.localityAwareness.crossZone.failover[3].from.zones[1]: must not be empty",
                "spec.to[0].default.localityAwareness.crossZone.failover[3].to.zones: must be empty when type is None",
                "spec.to[0].default.localityAwareness.crossZone.failover[4].to.zones: must not be empty when type is Only",
                "spec.to[0].default.localityAwareness.crossZone.failover[5].to.zones: must not be empty when type is AnyExcept",
            ],
        ),
        (
            multi(json!([{ "to": to_any }, { "to": { "type": "Some" } }, {}])),
            &[
                "spec.to[0].default.localityAwareness.crossZone.failover[1].to.type: in body should be one of [None Only Any AnyExcept]",
                "spec.to[0].default.localityAwareness.crossZone.failover[2].to: in body is required",
            ],
        ),
    ] {
        assert_eq!(violations(KIND, spec.clone()), expected, "{spec}");
    }
}

#[test]
fn a_balancer_has_what_it_needs() {
    for (spec, expected) in [
        (
            to(
                "Mesh",
                json!({ "loadBalancer": {
                "type": "LeastRequest",
                "leastRequest": { "choiceCount": 1, "activeRequestBias": "-0.5" },
                "ringHash": { "minRingSize": 0, "maxRingSize": 8_000_001 },
                "maglev": { "tableSize": 5_000_012 },
            } }),
            ),
            &[
                "spec.to[0].default.loadBalancer.ringHash.minRingSize: in body should be greater than or equal to 1",
                "spec.to[0].default.loadBalancer.ringHash.maxRingSize: in body should be less than or equal to 8000000",
                "spec.to[0].default.loadBalancer.maglev.tableSize: in body should be less than or equal to 5000011",
                "spec.to[0].default.loadBalancer.leastRequest.choiceCount: in body should be greater than or equal to 2",
                "spec.to[0].default.loadBalancer.leastRequest.activeRequestBias: must be greater than or equal to 0",
            ][..],
        ),
        (
            to(
                "Mesh",
                json!({ "hashPolicies": [
                { "type": "Cookie" }, { "type": "Connection" }, { "type": "QueryParameter" },
                { "type": "FilterState" },
                { "type": "Header", "header": { "name": "" } },
                { "type": "Cookie", "cookie": { "name": "", "path": "a" } },
                { "type": "QueryParameter", "queryParameter": { "name": "" } },
                { "type": "FilterState", "filterState": { "key": "" } },
            ] }),
            ),
            &[
                "spec.to[0].default.hashPolicies[0].cookie: must be defined",
                "spec.to[0].default.hashPolicies[1].connection: must be defined",
                "spec.to[0].default.hashPolicies[2].queryParameter: must be defined",
                "spec.to[0].default.hashPolicies[3].filterState: must be defined",
                "spec.to[0].default.hashPolicies[4].header.name: must not be empty",
                "spec.to[0].default.hashPolicies[5].cookie.name: must not be empty",
                "spec.to[0].default.hashPolicies[5].cookie.path: must be an absolute path",
                "spec.to[0].default.hashPolicies[6].queryParameter.name: must not be empty",
                "spec.to[0].default.hashPolicies[7].filterState.key: must not be empty",
            ],
        ),
    ] {
        assert_eq!(violations(KIND, spec.clone()), expected, "{spec}");
    }
}

#[test]
fn a_threshold_is_a_share_above_nothing() {
    let path = "spec.to[0].default.localityAwareness.crossZone.failoverThreshold.percentage";
    for (percentage, expected) in [
        (json!(100), None),
        (json!("0.5"), None),
        (json!(0), Some("must be greater than 0")),
        (json!("0.0"), Some("must be greater than 0")),
        (json!(101), Some("must be in inclusive range [0.0, 100.0]")),
        (json!("x"), Some("string must be a valid number")),
    ] {
        let threshold = json!({ "failoverThreshold": { "percentage": percentage } });
        let spec = json!({ "to": [{
            "targetRef": { "kind": "MeshMultiZoneService", "labels": { "a": "b" } },
            "default": { "localityAwareness": { "crossZone": threshold } },
        }] });
        let expected: Vec<_> = expected.iter().map(|reason| format!("{path}: {reason}")).collect();
        assert_eq!(violations(KIND, spec), expected, "{percentage}");
    }
}

#[test]
fn the_json_is_that_of_the_field() {
    let conf = json!({
        "localityAwareness": {
            "disabled": false,
            "localZone": { "affinityTags": [{ "key": "topology.kubernetes.io/zone", "weight": 9 }] },
            "crossZone": {
                "failover": [
                    { "from": { "zones": ["east"] }, "to": { "type": "AnyExcept", "zones": ["west"] } },
                    { "to": { "type": "None" } },
                ],
                "failoverThreshold": { "percentage": "70.5" },
            },
        },
        "loadBalancer": {
            "type": "RingHash",
            "roundRobin": {},
            "leastRequest": { "choiceCount": 2, "activeRequestBias": "1.3" },
            "ringHash": { "hashFunction": "MurmurHash2", "minRingSize": 64, "maxRingSize": 1024 },
            "random": {},
            "maglev": { "tableSize": 65537 },
        },
        "hashPolicies": [
            { "type": "Header", "terminal": true, "header": { "name": "x-user" } },
            { "type": "Cookie", "cookie": { "name": "a", "ttl": "1h0m0s", "path": "/" } },
            { "type": "Connection", "connection": { "sourceIP": true } },
            { "type": "QueryParameter", "queryParameter": { "name": "q" } },
            { "type": "FilterState", "filterState": { "key": "k" } },
        ],
    });
    let target = json!({ "kind": "MeshMultiZoneService", "labels": { "a": "b" } });
    let spec = json!({
        "targetRef": { "kind": "Mesh" },
        "to": [{ "targetRef": target, "default": conf }],
    });
    assert_eq!(written(KIND, spec.clone()), spec);
}
