use super::*;
use crate::tests::{violations, written};
use serde_json::json;

#[test]
fn every_violation_has_its_path() {
    let versions = json!({ "min": "TLS13", "max": "TLS12" });
    let cipher = "ECDHE-RSA-AES128-GCM-SHA256";
    for (spec, expected) in [
        (json!({}), &[][..]),
        (json!({ "rules": [{ "default": { "mode": "Strict", "tlsCiphers": [cipher] } }] }), &[]),
        (
            json!({
                "targetRef": { "kind": "Dataplane", "sectionName": "http" },
                "rules": [{ "default": { "mode": "Permissive", "tlsCiphers": [] } }],
            }),
            &[],
        ),
        (
            json!({ "rules": [{
                "matches": [{ "sni": { "type": "Exact", "value": "a" } }],
                "default": { "tlsVersion": versions },
            }] }),
            &[
                "spec.rules[0].matches: must not be set: it is the same for all callers",
                "spec.rules[0].default.tlsVersion.min: min version must be lower than max",
            ],
        ),
        (
            json!({
                "targetRef": { "kind": "Dataplane" },
                "rules": [{ "default": { "tlsVersion": versions, "tlsCiphers": [cipher] } }],
            }),
            &[
                "spec.rules[0].default.tlsCiphers: tlsCiphers can only be defined with top level targetRef kind: Mesh",
                "spec.rules[0].default.tlsVersion: tlsVersion can only be defined with top level targetRef kind: Mesh",
            ],
        ),
        (
            json!({ "rules": [{ "default": {
                "mode": "Lax", "tlsVersion": { "min": "SSL3" }, "tlsCiphers": [cipher, "NULL"],
            } }] }),
            &[
                "spec.rules[0].default.mode: in body should be one of [Permissive Strict]",
                "spec.rules[0].default.tlsVersion.min: in body should be one of [TLSAuto TLS10 TLS11 TLS12 TLS13]",
                "spec.rules[0].default.tlsCiphers[1]: in body should be one of [ECDHE-ECDSA-AES128-GCM-SHA256 ECDHE-ECDSA-AES256-GCM-SHA384 ECDHE-ECDSA-CHACHA20-POLY1305 ECDHE-RSA-AES128-GCM-SHA256 ECDHE-RSA-AES256-GCM-SHA384 ECDHE-RSA-CHACHA20-POLY1305]",
            ],
        ),
    ] {
        assert_eq!(violations(KIND, spec.clone()), expected, "{spec}");
    }
}

#[test]
fn the_json_is_that_of_the_field() {
    let spec = json!({
        "targetRef": { "kind": "Mesh" },
        "rules": [{ "default": {
            "mode": "Permissive",
            "tlsVersion": { "min": "TLS12", "max": "TLS13" },
            "tlsCiphers": [
                "ECDHE-ECDSA-AES128-GCM-SHA256",
                "ECDHE-ECDSA-AES256-GCM-SHA384",
                "ECDHE-ECDSA-CHACHA20-POLY1305",
                "ECDHE-RSA-AES128-GCM-SHA256",
                "ECDHE-RSA-AES256-GCM-SHA384",
                "ECDHE-RSA-CHACHA20-POLY1305",
            ],
        } }],
    });
    assert_eq!(written(KIND, spec.clone()), spec);
}

#[test]
fn a_version_that_is_left_out_is_that_of_envoy() {
    let spec = |versions| json!({ "rules": [{ "default": { "tlsVersion": versions } }] });
    let full = json!({ "min": "TLSAuto", "max": "TLS13" });
    assert_eq!(written(KIND, spec(json!({ "max": "TLS13" }))), spec(full));
}
