use super::*;
use serde_json::{Value, json};

fn violations(spec: Value) -> Vec<String> {
    let spec: MeshTrafficPermission = serde_json::from_value(spec).unwrap();
    let mut violations = Violations::default();
    spec.validate(&mut violations);
    violations.iter().map(ToString::to_string).collect()
}

#[test]
fn every_violation_has_its_path() {
    let caller = |id: &str| json!({ "spiffeID": { "type": "Prefix", "value": id } });
    for (spec, expected) in [
        (
            json!({ "rules": [{ "default": { "allow": [caller("spiffe://shop.east.mesh.local")] } }] }),
            &[][..],
        ),
        (json!({}), &["spec.rules: must not be empty"]),
        (
            json!({ "targetRef": { "kind": "MeshService" }, "rules": [{ "default": {} }] }),
            &[
                "spec.targetRef.kind: in body should be one of [Mesh Dataplane]",
                "spec.rules[0].default: at least one of 'allow', 'allowWithShadowDeny', 'deny' has to be defined",
            ],
        ),
        (
            json!({ "rules": [{ "default": {
                "allow": [caller("shop")],
                "deny": [{}],
                "allowWithShadowDeny": [{ "sni": { "type": "Exact", "value": "" } }],
            } }] }),
            &[
                "spec.rules[0].default.allow[0].spiffeID.value: must be a valid SPIFFE ID",
                "spec.rules[0].default.allowWithShadowDeny[0].sni.value: must not be empty",
                "spec.rules[0].default.deny[0]: at least one of spiffeID, sni must be set",
            ],
        ),
    ] {
        assert_eq!(violations(spec.clone()), expected, "{spec}");
    }
}

#[test]
fn the_json_is_that_of_the_field() {
    let spec = json!({
        "targetRef": { "kind": "Dataplane", "labels": { "app": "cart" }, "sectionName": "http" },
        "rules": [{ "default": {
            "deny": [{ "spiffeID": { "type": "Exact", "value": "spiffe://a/b" } }],
            "allow": [{ "sni": { "type": "Exact", "value": "x" } }],
        } }],
    });
    let read = KIND.kind.from_json(spec.clone()).unwrap();
    assert_eq!(KIND.kind.to_json(&KIND.kind.encode(&read).unwrap()).unwrap(), spec);
}

mod shapes {
    use super::*;
    use ::xds::{
        Match,
        draft::{Grant, InboundDraft, Permissions},
        policy::{Applied, InboundFacts, inbound, sort},
        target::{SpiffeIdMatch, SpiffeIdMatchType},
    };
    use resource::{Audience, Labels, MeshName, Resource, ResourceKey};
    use std::sync::Arc;

    fn applied(name: &str, conf: Value) -> Arc<Applied> {
        let key = ResourceKey::in_mesh(&MeshName::new("shop").unwrap(), name);
        let spec = json!({ "rules": [{ "default": conf }] });
        let spec = serde_json::to_vec(&spec).unwrap().into();
        let (labels, none) = (Labels::default(), bytes::Bytes::new());
        let resource = Resource::new(key, labels, spec, none, Audience::default());
        Arc::new(KIND.read(&resource).unwrap())
    }

    fn caller(id: &str) -> Value {
        json!([{ "spiffeID": { "type": "Exact", "value": id } }])
    }

    fn grant(policy: &str, id: &str) -> Grant {
        let id = SpiffeIdMatch { r#type: SpiffeIdMatchType::Exact, value: id.into() };
        Grant {
            policy: format!("kri_mtp_shop___{policy}_").parse().unwrap(),
            callers: vec![Match { spiffe_id: Some(id), sni: None }],
        }
    }

    const FACTS: InboundFacts<'static> = InboundFacts { section: "http", port: 8080 };

    #[test]
    fn all_policies_together_say_who_may_call() {
        let shadow = json!({
            "allow": caller("spiffe://a/web"),
            "allowWithShadowDeny": caller("spiffe://a/old"),
        });
        let deny = json!({ "deny": caller("spiffe://a/stranger") });
        let mut policies = [applied("a", shadow), applied("b", deny)];
        sort(&mut policies);
        let permissions = Permissions {
            deny: vec![grant("b", "spiffe://a/stranger")],
            allow: vec![grant("a", "spiffe://a/web"), grant("a", "spiffe://a/old")],
        };
        let expected = InboundDraft { permissions, ..InboundDraft::default() };
        assert_eq!(inbound(&policies, &FACTS), expected);
    }

    #[test]
    fn without_a_policy_nobody_may_call() {
        assert_eq!(inbound(&[], &FACTS).permissions, Permissions::default());
    }
}
