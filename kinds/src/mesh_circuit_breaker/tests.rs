use super::*;
use crate::tests::{violations, written};
use serde_json::{Value, json};

fn to(conf: Value) -> Value {
    json!({ "to": [{ "targetRef": { "kind": "Mesh" }, "default": conf }] })
}

#[test]
fn every_violation_has_its_path() {
    for (spec, expected) in [
        (to(json!({ "connectionLimits": {} })), &[][..]),
        (to(json!({ "outlierDetection": { "healthyPanicThreshold": "12.5" } })), &[]),
        (json!({}), &["spec: at least one of 'to' or 'rules' has to be defined"]),
        (
            json!({ "rules": [{ "matches": [{ "sni": { "type": "Exact", "value": "a" } }], "default": {} }] }),
            &[
                "spec.rules[0].matches: must not be set: it is the same for all callers",
                "spec.rules[0].default: at least one of: 'connectionLimits' or 'outlierDetection' should be configured",
            ],
        ),
        (
            json!({ "to": [{
                "targetRef": { "kind": "MeshHTTPRoute", "labels": { "a": "b" } },
                "default": { "connectionLimits": {
                    "maxConnections": 0, "maxConnectionPools": 0, "maxPendingRequests": 0,
                    "maxRetries": 0, "maxRequests": 0,
                } },
            }] }),
            &[
                "spec.to[0].targetRef.kind: in body should be one of [Mesh MeshService MeshExternalService MeshMultiZoneService]",
                "spec.to[0].default.connectionLimits.maxConnections: must be greater than 0",
                "spec.to[0].default.connectionLimits.maxConnectionPools: must be greater than 0",
                "spec.to[0].default.connectionLimits.maxPendingRequests: must be greater than 0",
                "spec.to[0].default.connectionLimits.maxRetries: must be greater than 0",
                "spec.to[0].default.connectionLimits.maxRequests: must be greater than 0",
            ],
        ),
        (
            to(json!({ "outlierDetection": {
                "interval": "0s", "baseEjectionTime": "-1s", "maxEjectionPercent": 101,
            } })),
            &[
                "spec.to[0].default.outlierDetection.interval: must be greater than zero when defined",
                "spec.to[0].default.outlierDetection.baseEjectionTime: must be greater than zero when defined",
                "spec.to[0].default.outlierDetection.maxEjectionPercent: must be in inclusive range [0, 100]",
                "spec.to[0].default.outlierDetection.detectors: must be defined",
            ],
        ),
        (
            to(json!({ "outlierDetection": { "healthyPanicThreshold": 101 } })),
            &[
                "spec.to[0].default.outlierDetection.healthyPanicThreshold: must be in inclusive range [0.0, 100.0]",
            ],
        ),
    ] {
        assert_eq!(violations(KIND, spec.clone()), expected, "{spec}");
    }
}

#[test]
fn a_detector_has_something_to_detect() {
    let detectors = |detectors| to(json!({ "outlierDetection": { "detectors": detectors } }));
    for (spec, expected) in [
        (
            detectors(json!({})),
            &[
                "spec.to[0].default.outlierDetection.detectors: must have at least one defined: totalFailures, gatewayFailures, localOriginFailures, successRate, failurePercentage",
            ][..],
        ),
        (
            detectors(json!({
                "totalFailures": { "consecutive": 0 },
                "gatewayFailures": { "consecutive": 0 },
                "localOriginFailures": { "consecutive": 0 },
                "successRate": { "minimumHosts": 0, "requestVolume": 0, "standardDeviationFactor": "-1" },
                "failurePercentage": { "minimumHosts": 0, "requestVolume": 0, "threshold": 101 },
            })),
            &[
                "spec.to[0].default.outlierDetection.detectors.totalFailures.consecutive: must be greater than 0",
                "spec.to[0].default.outlierDetection.detectors.gatewayFailures.consecutive: must be greater than 0",
                "spec.to[0].default.outlierDetection.detectors.localOriginFailures.consecutive: must be greater than 0",
                "spec.to[0].default.outlierDetection.detectors.successRate.minimumHosts: must be greater than 0",
                "spec.to[0].default.outlierDetection.detectors.successRate.requestVolume: must be greater than 0",
                "spec.to[0].default.outlierDetection.detectors.successRate.standardDeviationFactor: must be greater than 0",
                "spec.to[0].default.outlierDetection.detectors.failurePercentage.minimumHosts: must be greater than 0",
                "spec.to[0].default.outlierDetection.detectors.failurePercentage.requestVolume: must be greater than 0",
                "spec.to[0].default.outlierDetection.detectors.failurePercentage.threshold: must be in inclusive range [0, 100]",
            ],
        ),
        (
            detectors(json!({ "successRate": { "standardDeviationFactor": "many" } })),
            &[
                "spec.to[0].default.outlierDetection.detectors.successRate.standardDeviationFactor: string must be a valid number",
            ],
        ),
        (
            to(json!({ "connectionLimits": { "maxRetries": -1, "maxRequests": "1" } })),
            &[
                "spec.to[0].default.connectionLimits.maxRetries: in body should be greater than or equal to 0",
                "spec.to[0].default.connectionLimits.maxRequests: in body must be of type integer: \"string\"",
            ],
        ),
    ] {
        assert_eq!(violations(KIND, spec.clone()), expected, "{spec}");
    }
}

#[test]
fn the_json_is_that_of_the_field() {
    let conf = json!({
        "connectionLimits": {
            "maxConnections": 1024, "maxConnectionPools": 5, "maxPendingRequests": 1024,
            "maxRetries": 3, "maxRequests": 1024,
        },
        "outlierDetection": {
            "disabled": false, "interval": "5s", "baseEjectionTime": "30s",
            "maxEjectionPercent": 20, "splitExternalAndLocalErrors": true,
            "detectors": {
                "totalFailures": { "consecutive": 10 },
                "gatewayFailures": {},
                "localOriginFailures": { "consecutive": 10 },
                "successRate": { "minimumHosts": 5, "requestVolume": 10, "standardDeviationFactor": "1.9" },
                "failurePercentage": { "minimumHosts": 5, "requestVolume": 10, "threshold": 85 },
            },
            "healthyPanicThreshold": 30,
        },
    });
    let spec = json!({
        "targetRef": { "kind": "Dataplane", "labels": { "app": "cart" }, "sectionName": "http" },
        "rules": [{ "default": conf }],
    });
    assert_eq!(written(KIND, spec.clone()), spec);
    let labels = json!({ "kuma.io/display-name": "cart" });
    let target = json!({ "kind": "MeshService", "labels": labels, "sectionName": "http" });
    let spec = json!({ "to": [{ "targetRef": target, "default": conf }] });
    assert_eq!(written(KIND, spec.clone()), spec);
}
