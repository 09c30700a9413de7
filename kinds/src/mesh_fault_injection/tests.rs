use super::*;
use crate::tests::{violations, written};
use serde_json::json;

#[test]
fn every_violation_has_its_path() {
    let rules = |http| json!({ "rules": [{ "default": { "http": http } }] });
    let mesh = json!({ "kind": "Mesh" });
    for (spec, expected) in [
        (rules(json!([{}, { "abort": { "httpStatus": 503, "percentage": "2.5" } }])), &[][..]),
        (json!({ "targetRef": mesh, "to": [{ "targetRef": mesh, "default": {} }] }), &[]),
        (json!({}), &["spec: at least one of 'to' or 'rules' has to be defined"]),
        (
            json!({
                "targetRef": { "kind": "Dataplane" },
                "to": [{ "targetRef": { "kind": "MeshService", "labels": { "a": "b" } } }],
            }),
            &[
                "spec.to: must not be defined: it needs a targetRef of kind Mesh",
                "spec.to[0].targetRef.kind: in body should be one of [Mesh]",
            ],
        ),
        (
            rules(json!([
                { "abort": { "httpStatus": 99, "percentage": 101 } },
                { "delay": { "value": "-1s", "percentage": "x" } },
                { "responseBandwidth": { "limit": "fast", "percentage": -1 } },
            ])),
            &[
                "spec.rules[0].default.http[0].abort.httpStatus: must be in inclusive range [100, 599]",
                "spec.rules[0].default.http[0].abort.percentage: must be in inclusive range [0.0, 100.0]",
                "spec.rules[0].default.http[1].delay.value: must not be negative when defined",
                "spec.rules[0].default.http[1].delay.percentage: string must be a valid number",
                "spec.rules[0].default.http[2].responseBandwidth.limit: must be a number in kbps/Mbps/Gbps units",
                "spec.rules[0].default.http[2].responseBandwidth.percentage: must be in inclusive range [0.0, 100.0]",
            ],
        ),
        (
            rules(json!([{ "abort": {}, "delay": {}, "responseBandwidth": {} }])),
            &[
                "spec.rules[0].default.http[0].abort.httpStatus: in body is required",
                "spec.rules[0].default.http[0].abort.percentage: in body is required",
                "spec.rules[0].default.http[0].delay.value: in body is required",
                "spec.rules[0].default.http[0].delay.percentage: in body is required",
                "spec.rules[0].default.http[0].responseBandwidth.limit: in body is required",
                "spec.rules[0].default.http[0].responseBandwidth.percentage: in body is required",
            ],
        ),
    ] {
        assert_eq!(violations(KIND, spec.clone()), expected, "{spec}");
    }
}

#[test]
fn a_bandwidth_has_a_unit() {
    let limit = |limit: &str| {
        let slow = json!({ "responseBandwidth": { "limit": limit, "percentage": 1 } });
        violations(KIND, json!({ "rules": [{ "default": { "http": [slow] } }] })).is_empty()
    };
    for good in ["1Gbps", "50 Mbps", "100 kbps", "8bps"] {
        assert!(limit(good), "{good}");
    }
    for bad in ["", "bps", " bps", "1", "1 GBps", "-1 kbps", "1.5 kbps", "1  kbps"] {
        assert!(!limit(bad), "{bad}");
    }
}

#[test]
fn the_json_is_that_of_the_field() {
    let spec = json!({
        "targetRef": { "kind": "Dataplane", "labels": { "app": "cart" }, "sectionName": "http" },
        "rules": [{
            "matches": [{ "spiffeID": { "type": "Prefix", "value": "spiffe://a/b" } }],
            "default": { "http": [{
                "abort": { "httpStatus": 500, "percentage": "2.5" },
                "delay": { "value": "5s", "percentage": 5 },
                "responseBandwidth": { "limit": "50 Mbps", "percentage": 100 },
            }] },
        }],
    });
    assert_eq!(written(KIND, spec.clone()), spec);
}
