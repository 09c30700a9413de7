//! What users write.

use super::*;
use resource::{Access, MeshName};

const GOOD: &str = include_str!("../../../../kinds/testdata/manifests/good.yaml");
const BAD: &str = include_str!("../../../../kinds/testdata/manifests/bad.yaml");

fn documents(text: &str) -> Vec<Value> {
    let parts = text.split("\n---\n").skip(1);
    parts.map(|part| serde_saphyr::from_str(part).unwrap()).collect()
}

fn object(kind: &str, metadata: Value, spec: Value) -> Value {
    json!({ "apiVersion": "kuma.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec })
}

impl World {
    /// The object with what the API server is told to add.
    fn defaulted(&self, operation: &str, object: &Value, before: &Value) -> Value {
        let verdict = self.judge.rules.default(&request(operation, object, before));
        assert_eq!(verdict.refusal, None);
        let mut object = object.clone();
        if let Some(patch) = verdict.patch {
            json_patch::patch(&mut object, &patch).unwrap();
        }
        object
    }

    fn created(&self, object: &Value) -> String {
        let object = self.defaulted("CREATE", object, &Value::Null);
        said(&self.judge.rules.check(&request("CREATE", &object, &Value::Null)))
    }

    fn updated(&self, object: &Value, before: &Value) -> String {
        let object = self.defaulted("UPDATE", object, before);
        said(&self.judge.rules.check(&request("UPDATE", &object, before)))
    }

    fn deleted(&self, before: &Value) -> String {
        said(&self.judge.rules.check(&request("DELETE", &Value::Null, before)))
    }
}

#[test]
fn manifests_as_users_write_them_are_taken() {
    let world = World::new(false);
    let mut taken = 0;
    for document in documents(GOOD) {
        let name = document["kind"].as_str().unwrap();
        let kind = kinds::all().find(|kind| kind.name == name).unwrap();
        let refused = world.created(&document);
        if kind.access == Access::ReadOnly {
            assert_eq!(refused, format!("a {name} is written by control planes only"));
        } else {
            // Of another mesh, or of the whole system, in a namespace of its users.
            assert_eq!(refused, "", "{document}");
            let warned = world.judge.rules.check(&request("CREATE", &document, &Value::Null));
            assert_eq!(warned.warnings, Vec::<String>::new(), "{document}");
            taken += 1;
        }
    }
    assert!(taken > 30, "{taken}");
}

#[test]
fn fields_that_nobody_reads_are_warned_of() {
    let world = World::new(false);
    let metadata = json!({ "name": "a", "namespace": "shop" });
    let spec = json!({ "to": [{
        "targetRef": { "kind": "Mesh" },
        "default": { "idleTimeout": "1s", "idelTimeout": "2s" },
    }] });
    let policy = object("MeshTimeout", metadata.clone(), spec);
    let spec = json!({ "networking": {
        "address": "10.0.0.1", "inbound": [{ "port": 80, "servicePrt": 8080 }],
    } });
    let dataplane = object("Dataplane", metadata, spec);
    for (object, fields) in [
        (policy, "spec.to[0].default.idelTimeout"),
        (dataplane, "spec.networking.inbound[0].servicePrt"),
    ] {
        let verdict = world.judge.rules.check(&request("CREATE", &object, &Value::Null));
        assert_eq!(said(&verdict), "");
        assert_eq!(verdict.warnings, [format!("unknown field {fields:?}")]);
    }
}

#[test]
fn manifests_with_mistakes_are_refused_with_each_place() {
    let world = World::new(false);
    for document in documents(BAD) {
        let wrong = document["metadata"]["annotations"]["wrong"].as_str().unwrap_or_default();
        let refused = world.created(&document);
        assert_ne!(refused, "", "{document}");
        for place in wrong.split_whitespace() {
            // Where one rule of a schema spans a list, we name its element.
            assert!(refused.contains(place), "{place} in {refused} of {document}");
        }
    }
}

#[test]
fn labels_follow_from_what_an_object_is() {
    let world = World::new(true);
    let labels = |object: &Value| {
        let object = world.defaulted("CREATE", object, &Value::Null);
        object.pointer("/metadata/labels").cloned().unwrap_or_default()
    };
    let to = |kind: &str, labels: Value| {
        json!({ "to": [{
            "targetRef": { "kind": kind, "labels": labels },
            "default": { "idleTimeout": "1s" },
        }] })
    };
    let named = |namespace: &str| json!({ "name": "a", "namespace": namespace });
    let cart = json!({ "kuma.io/display-name": "cart" });
    for (namespace, spec, role) in [
        ("kuma-system", to("MeshService", cart.clone()), "system"),
        ("shop", to("MeshService", cart), "producer"),
        ("shop", to("MeshService", json!({ "app": "cart" })), "consumer"),
        ("shop", json!({ "rules": [{ "default": { "idleTimeout": "1s" } }] }), "workload-owner"),
    ] {
        let expected = json!({
            "k8s.kuma.io/namespace": namespace, "kuma.io/env": "kubernetes",
            "kuma.io/mesh": "default", "kuma.io/origin": "zone", "kuma.io/policy-role": role,
            "kuma.io/zone": "east",
        });
        assert_eq!(labels(&object("MeshTimeout", named(namespace), spec)), expected);
    }
    let listeners = json!({ "networking": { "address": "10.0.0.1", "listeners": [
        { "type": "ZoneIngress", "address": "10.0.0.1", "port": 10001 },
    ] } });
    let labelled = labels(&object("Dataplane", named("shop"), listeners));
    assert_eq!(labelled["kuma.io/listener-zoneingress"], "enabled");
    // Twice is once.
    let policy = object("MeshTimeout", named("shop"), to("Mesh", Value::Null));
    let once = world.defaulted("CREATE", &policy, &Value::Null);
    assert_eq!(world.defaulted("CREATE", &once, &Value::Null), once);
}

#[test]
fn a_label_of_listeners_goes_with_them() {
    let world = World::new(true);
    let labelled = json!({ "kuma.io/listener-zoneingress": "enabled", "app": "edge" });
    let metadata = json!({ "name": "edge", "namespace": "shop", "labels": labelled });
    let spec = json!({ "networking": {
        "address": "10.0.0.1", "inbound": [{ "port": 80, "name": "http" }],
    } });
    let dataplane = object("Dataplane", metadata, spec);
    let now = world.defaulted("UPDATE", &dataplane, &dataplane);
    let labels = &now["metadata"]["labels"];
    assert_eq!(labels["kuma.io/listener-zoneingress"], Value::Null);
    assert_eq!(labels["app"], "edge");
}

#[test]
fn a_pod_gets_the_patch_of_its_own_mesh() {
    let world = World::new(true);
    let patch = |of: &str| {
        let value = json!({ "name": "OF", "value": of }).to_string();
        json!({ "sidecarPatch": [{ "op": "add", "path": "/env/-", "value": value }] })
    };
    // Before and after it in the order of names.
    for mesh in ["another", "default", "third"] {
        let key = ResourceKey::in_mesh(&MeshName::new(mesh).unwrap(), "debug");
        world.has(kinds::container_patch::KIND, key, patch(mesh));
    }
    let of = |mesh: &str| {
        let found = world.judge.patch(&MeshName::new(mesh).unwrap(), "debug").unwrap();
        serde_json::to_value(&*found).unwrap()
    };
    assert_eq!(of("default"), patch("default"));
    // One of another mesh serves if there is none of its own.
    assert_eq!(of("fourth"), patch("another"));
    assert!(world.judge.patch(&MeshName::new("default").unwrap(), "other").is_none());
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn what_is_wrong_beside_the_spec_is_named_by_its_field() {
    let world = World::new(true);
    let spec = json!({ "to": [{
        "targetRef": { "kind": "Mesh" }, "default": { "idleTimeout": "1s" },
    }] });
    let policy = |metadata: Value| {
        let mut all = json!({ "name": "a", "namespace": "shop" });
        json_patch::merge(&mut all, &metadata);
        object("MeshTimeout", all, spec.clone())
    };
    let labelled = |key: &str, value: &str| policy(json!({ "labels": { key: value } }));
    for (object, expected) in [
        (policy(json!({})), ""),
        (policy(json!({ "name": null, "generateName": "a-" })), ""),
        (
            labelled("kuma.io/mesh", "other"),
            r#"metadata.labels[kuma.io/mesh]: mesh "other" not found"#,
        ),
        (
            labelled("kuma.io/origin", "global"),
            "metadata.labels[kuma.io/origin]: the origin label must be set to 'zone'",
        ),
        (
            labelled("kuma.io/zone", "west"),
            "metadata.labels[kuma.io/zone]: kuma.io/zone label should have east value",
        ),
        (
            labelled("k8s.kuma.io/namespace", "other"),
            r#"metadata.labels[k8s.kuma.io/namespace]: must be "shop""#,
        ),
        (
            labelled("kuma.io/kds-sync", "no"),
            "metadata.labels[kuma.io/kds-sync]: must be 'enabled' or 'disabled'",
        ),
        (
            policy(json!({ "annotations": { "kuma.io/display-name": "b" } })),
            r#"metadata.annotations[kuma.io/display-name]: must be "a""#,
        ),
        (
            policy(json!({ "name": "a".repeat(249) })),
            "metadata.name: must have at most 248 bytes in this namespace; metadata.name: must have at most 247 bytes",
        ),
        (
            object(
                "MeshIdentity",
                json!({ "name": "identity", "namespace": "shop" }),
                json!({ "selector": { "dataplane": { "matchLabels": {} } } }),
            ),
            "metadata.namespace: must be kuma-system: it is for all",
        ),
        (
            object("Zone", json!({ "name": "west" }), json!({})),
            "metadata.name: must be east: this control plane has no other zone",
        ),
        (object("Zone", json!({ "name": "east" }), json!({ "enabled": true })), ""),
        (
            object("Mesh", json!({ "name": "shop" }), json!({})),
            "a Mesh is written on the global control plane, from where this zone gets it",
        ),
        (
            object("DataplaneInsight", json!({ "name": "a", "namespace": "shop" }), json!({})),
            "a DataplaneInsight is written by control planes only",
        ),
        (
            object(
                "Dataplane",
                json!({ "name": "a", "namespace": "shop" }),
                json!({ "networking": {} }),
            ),
            "spec.networking.address: must not be empty",
        ),
        (
            object("Cart", json!({ "name": "a" }), json!({})),
            r#"this control plane knows no kind "Cart""#,
        ),
    ] {
        assert_eq!(world.created(&object), expected, "{object}");
    }
    let mixed = json!({ "to": [
        { "targetRef": { "kind": "Mesh" }, "default": { "idleTimeout": "1s" } },
        {
            "targetRef": { "kind": "MeshService", "labels": { "kuma.io/display-name": "cart" } },
            "default": { "idleTimeout": "1s" },
        },
    ] });
    let mixed = object("MeshTimeout", json!({ "name": "a", "namespace": "shop" }), mixed);
    let expected = "spec.to: producer and consumer items cannot be mixed in one policy";
    assert_eq!(world.created(&mixed), expected);
}

#[test]
fn what_others_wrote_stays_as_it_is() {
    let world = World::new(true);
    let copy = |labels: Value| {
        let metadata = json!({ "name": "a", "namespace": "kuma-system", "labels": labels });
        let spec = json!({ "to": [{
            "targetRef": { "kind": "Mesh" }, "default": { "idleTimeout": "1s" },
        }] });
        object("MeshTimeout", metadata, spec)
    };
    let of_global = copy(json!({ "kuma.io/mesh": "default", "kuma.io/origin": "global" }));
    let origin = "metadata.labels[kuma.io/origin]: the origin label must be set to 'zone'";
    assert_eq!(world.updated(&of_global, &of_global), origin);
    assert_eq!(world.deleted(&of_global), origin);
    let claimed = copy(json!({ "kuma.io/mesh": "default", "kuma.io/origin": "zone" }));
    let immutable =
        "metadata.labels[kuma.io/origin]: is immutable: this is a copy, written elsewhere (global)";
    assert_eq!(world.updated(&claimed, &of_global), immutable);
    assert_eq!(world.deleted(&claimed), "");
    let moved = copy(json!({ "kuma.io/mesh": "other", "kuma.io/origin": "zone" }));
    let expected = r#"metadata.labels[kuma.io/mesh]: is immutable (was "default")"#;
    assert_eq!(world.updated(&moved, &claimed), expected);
    assert_eq!(world.updated(&claimed, &claimed), "");
}

#[test]
fn a_mesh_with_proxies_stays() {
    let world = World::new(false);
    let mesh = |name: &str| object("Mesh", json!({ "name": name }), json!({}));
    assert_eq!(world.deleted(&mesh("default")), "");
    let key = ResourceKey::in_mesh(&MeshName::new("default").unwrap(), "cart-1.shop");
    let spec = json!({ "networking": { "address": "10.0.0.1" } });
    world.has(kinds::dataplane::KIND, key, spec);
    let expected = "unable to delete mesh, there are still some dataplanes attached";
    assert_eq!(world.deleted(&mesh("default")), expected);
    assert_eq!(world.deleted(&mesh("empty")), "");
}

#[test]
fn control_planes_and_kubernetes_do_what_they_must() {
    let world = World::new(true);
    let mesh = object("Mesh", json!({ "name": "shop" }), json!({}));
    let as_user = |operation: &str, user: &str| {
        let question = question(operation, &mesh, &mesh, user);
        let request = Review::read(question.to_string().as_bytes()).unwrap();
        said(&world.judge.rules.check(&request)).is_empty()
    };
    assert!(as_user("CREATE", "system:serviceaccount:kuma-system:atoll-zone-cp"));
    assert!(as_user("DELETE", "system:serviceaccount:kube-system:generic-garbage-collector"));
    assert!(as_user("DELETE", "system:serviceaccount:kube-system:namespace-controller"));
    assert!(!as_user("CREATE", "system:serviceaccount:kube-system:namespace-controller"));
    assert!(!as_user("CREATE", "system:serviceaccount:shop:atoll-zone-cp"));
    assert!(!as_user("DELETE", "kubernetes-admin"));
}

#[test]
fn a_status_is_no_business_of_users_rules() {
    let world = World::new(true);
    let mesh = object("Mesh", json!({ "name": "shop" }), json!({}));
    let asked = |part: &str| {
        let mut question = question("UPDATE", &mesh, &mesh, "alice");
        question["request"]["subResource"] = part.into();
        let request = Review::read(question.to_string().as_bytes()).unwrap();
        said(&world.judge.rules.check(&request))
    };
    assert_eq!(asked("status"), "");
    assert_ne!(asked(""), "");
}

#[test]
fn a_role_that_does_not_follow_from_what_is_selected_is_refused() {
    let world = World::new(true);
    let policy = |role: &str| {
        let labels = json!({ "kuma.io/mesh": "default", "kuma.io/policy-role": role });
        let metadata = json!({ "name": "quick", "namespace": "shop", "labels": labels });
        let to = json!({
            "targetRef": { "kind": "MeshService", "labels": { "kuma.io/display-name": "cart" } },
            "default": { "connectionTimeout": "1s" },
        });
        object("MeshTimeout", metadata, json!({ "to": [to] }))
    };
    let checked =
        |role| said(&world.judge.rules.check(&request("CREATE", &policy(role), &Value::Null)));
    assert_eq!(checked("producer"), "");
    let refused = checked("system");
    assert!(refused.contains(r#"must be "producer", by what it selects"#), "{refused}");
}
