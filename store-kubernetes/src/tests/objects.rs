//! Resources become objects and come back.

use crate::{
    object::Foreign,
    place::{ObjectName, Place},
};
use kube::core::DynamicObject;
use proptest::{collection::btree_map, prelude::*};
use resource::{Kind, Labels, MeshName, Peer, Resource, ResourceKey, Scope};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn place(kind: Kind) -> Place {
    Place::of(&kind, Peer::Global, &"kuma-system".into()).unwrap()
}

fn sample() -> Place {
    place(store::conformance::kinds().list[0])
}

fn row(
    place: &Place,
    key: ResourceKey,
    labels: Labels,
    spec: Value,
    status: &'static str,
) -> Resource {
    let kind = place.kind;
    let spec = kind.encode(&kind.from_json(spec).unwrap()).unwrap();
    kind.resource(key, labels, spec, status.into(), place.peer).unwrap()
}

/// What the API server answers: it sorts.
fn stored(object: &DynamicObject) -> DynamicObject {
    let mut json = serde_json::to_value(object).unwrap();
    json.sort_all_objects();
    json["metadata"]["uid"] = "u".into();
    json["metadata"]["resourceVersion"] = "7".into();
    json["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
    serde_json::from_value(json).unwrap()
}

/// Writes a resource and reads it back.
fn through(place: &Place, row: &Resource) -> (ObjectName, DynamicObject, Resource) {
    let at = place.home(&row.head.key, &row.head.labels);
    let settled = place.settle(row, &at, None).unwrap();
    let wanted = settled.row.head.version;
    let object = stored(&place.object(settled, &at, None, None));
    let key = place.key(&object).unwrap();
    assert_eq!(key, row.head.key);
    let back = place.read(&key, &object).unwrap();
    assert_eq!(back.head.version, wanted, "{back:?} of {object:?}");
    // And nothing would be written again.
    assert_eq!(place.settle(&back, &at, None).unwrap().row.head.version, wanted);
    assert_eq!(place.settle(row, &at, None).unwrap().row.head.version, wanted);
    (at, object, back)
}

fn name() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,8}){0,2}(\\.[a-z0-9]{1,8}){0,2}"
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    let key = prop_oneof![
        "[a-z]{1,5}",
        "[a-z]{1,5}\\.io/[a-zA-Z._-]{1,9}",
        Just("kuma.io/display-name".to_owned()),
        Just("kuma.io/workload".to_owned()),
        Just("kuma.io/zone".to_owned()),
        Just("k8s.kuma.io/namespace".to_owned()),
        ".{0,70}",
    ];
    let value = prop_oneof!["[a-z0-9]{0,63}", "[a-z]{60,90}", ".{0,9}"];
    let mut labels = btree_map(key, value, 0..6).boxed();
    labels = (labels, prop_oneof![Just(None), Just(Some("zone")), Just(Some("global"))])
        .prop_map(|(mut labels, origin)| {
            labels.extend(origin.map(|origin| ("kuma.io/origin".into(), origin.into())));
            // A display name must be a name.
            let named = labels.get("kuma.io/display-name");
            if named.is_some_and(|it| resource::NameRule::Subdomain.check(it).is_err()) {
                labels.remove("kuma.io/display-name");
            }
            labels
        })
        .boxed();
    labels
}

proptest! {
    #[test]
    fn what_is_written_comes_back(
        name in name(),
        labels in labels(),
        value in ".{1,20}",
        status in prop_oneof![Just(""), Just(r#"{"seen":true}"#)],
    ) {
        let place = sample();
        let labels: Labels = labels.iter().map(|(key, value)| (&**key, &**value)).collect();
        let row = row(&place, ResourceKey::global(&name), labels.clone(), json!({ "value": value }), status);
        let (_, object, back) = through(&place, &row);
        for (key, value) in labels.iter().filter(|(key, _)| *key != "k8s.kuma.io/namespace") {
            prop_assert_eq!(back.head.labels.get(key), Some(value));
        }
        for (key, value) in object.metadata.labels.iter().flatten() {
            prop_assert!(key.len() <= 317 && value.len() <= 63 && value.is_ascii());
        }
        prop_assert_eq!(&back.spec, &row.spec);
    }

    /// Whatever stands in an object, nothing breaks.
    #[test]
    fn any_object_is_read_or_refused(
        name in ".{0,9}", namespace in ".{0,9}", labels in labels(), held in ".{0,20}",
        content in prop_oneof![
            Just(json!(null)), Just(json!([1])), Just(json!("x")), Just(json!({ "value": 1 })),
            Just(json!({ "value": "x", "more": [{}] })),
        ],
    ) {
        for kind in [kinds::dataplane::KIND, kinds::secret::KIND, kinds::config::KIND,
            kinds::mesh_service::KIND, store::conformance::kinds().list[0]] {
            let place = place(kind);
            let object = json!({
                "metadata": { "name": name, "namespace": namespace, "labels": labels,
                    "annotations": { "atoll.io/labels": held, "atoll.io/name": held } },
                "mesh": content, "spec": content, "status": content,
                "data": { "value": content, "config": content },
            });
            let object: DynamicObject = serde_json::from_value(object).unwrap();
            if let Ok(key) = place.key(&object) {
                place.placeholder(&key, &object);
                if let Ok(row) = place.read(&key, &object) {
                    prop_assert_eq!(&row.head.key, &key);
                }
            }
        }
    }
}

#[test]
fn a_resource_goes_where_its_labels_say_if_its_name_agrees() {
    let place = sample();
    let at = |name: &str, labels: &[(&str, &str)]| {
        place.home(&ResourceKey::global(name), &labels.iter().copied().collect()).to_string()
    };
    let zone = ("kuma.io/origin", "zone");
    let shop = ("k8s.kuma.io/namespace", "shop");
    assert_eq!(at("web.shop", &[zone, shop]), "shop/web");
    assert_eq!(at("web.shop", &[shop]), "kuma-system/web.shop");
    assert_eq!(at("web.shop", &[zone]), "kuma-system/web.shop");
    assert_eq!(at("web", &[zone, shop]), "kuma-system/web");
    assert_eq!(at(".shop", &[zone, shop]), "kuma-system/.shop");
    assert_eq!(at("webshop", &[zone, shop]), "kuma-system/webshop");
    let system = ("k8s.kuma.io/namespace", "kuma-system");
    assert_eq!(at("web.kuma-system", &[zone, system]), "kuma-system/web.kuma-system");
    let mesh = Place::of(&kinds::mesh::KIND, Peer::Global, &"kuma-system".into()).unwrap();
    assert_eq!(mesh.home(&ResourceKey::global("m"), &Labels::default()).to_string(), "m");
}

#[test]
fn every_kind_has_the_form_that_kuma_gives_it() {
    let mesh = MeshName::new("other").unwrap();
    let shown = |kind: Kind, spec: Value| {
        let place = place(kind);
        let key = match kind.scope {
            Scope::Mesh => ResourceKey::in_mesh(&mesh, "it"),
            Scope::Global => ResourceKey::global("it"),
        };
        let (at, object, back) = through(&place, &row(&place, key, Labels::default(), spec, ""));
        let mut json = serde_json::to_value(&object).unwrap();
        for field in ["uid", "resourceVersion", "creationTimestamp"] {
            json["metadata"].as_object_mut().unwrap().remove(field);
        }
        assert_eq!(back.head.times.created.to_string(), "2026-01-01T00:00:00Z");
        (at.to_string(), json)
    };
    let named = json!({ "kuma.io/display-name": "it" });
    let (at, secret) = shown(kinds::secret::KIND, json!({ "data": "b25l" }));
    assert_eq!(at, "kuma-system/it");
    assert_eq!(
        secret,
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "system.kuma.io/secret",
            "metadata": { "name": "it", "namespace": "kuma-system", "annotations": named,
                "labels": { "kuma.io/mesh": "other", "k8s.kuma.io/namespace": "kuma-system" } },
            "data": { "value": "b25l" },
        })
    );
    let (_, config) = shown(kinds::config::KIND, json!({ "config": "x" }));
    assert_eq!(config["metadata"]["labels"]["atoll.io/kind"], "Config");
    assert_eq!(config["data"], json!({ "config": "x" }));
    let (at, of_mesh) = shown(kinds::mesh::KIND, json!({}));
    assert_eq!((&*at, &of_mesh["spec"], of_mesh.get("mesh")), ("it", &json!({}), None));
    let insight = json!({ "subscriptions": [] });
    let (_, insight) = shown(kinds::dataplane_insight::KIND, insight);
    assert_eq!((&insight["mesh"], insight.get("spec")), (&json!("other"), None));
    assert!(insight["status"].is_object());
}

#[test]
fn what_others_put_on_an_object_is_told_from_what_is_ours() {
    let meta = json!({
        "name": "a",
        "labels": { "ours": "1", "theirs": "2", "kuma.io/mesh": "m" },
        "annotations": { "kuma.io/display-name": "x", "atoll.io/name": "y", "note": "z" },
        "managedFields": [
            { "manager": "kubectl", "fieldsV1": { "f:metadata": { "f:labels": { "f:theirs": {} } } } },
            { "manager": "atoll", "fieldsV1": { "f:metadata": { "f:labels": { ".": {}, "f:ours": {} } } } },
        ],
    });
    let place = sample();
    let foreign = Foreign::of(&serde_json::from_value(meta).unwrap()).unwrap();
    let row = row(&place, ResourceKey::global("a"), Labels::default(), json!({ "value": "v" }), "");
    let at = place.home(&row.head.key, &row.head.labels);
    let settled = place.settle(&row, &at, Some(&foreign)).unwrap();
    assert_eq!(
        (settled.row.head.labels.get("theirs"), settled.row.head.labels.get("ours")),
        (Some("2"), None)
    );
    let object = place.object(settled, &at, Some(&foreign), Some(("uid", "7")));
    let meta = serde_json::to_value(&object.metadata).unwrap();
    assert_eq!(meta["annotations"], json!({ "kuma.io/display-name": "a", "note": "z" }));
    assert_eq!(meta["labels"], json!({ "theirs": "2", "k8s.kuma.io/namespace": "kuma-system" }));
    assert_eq!((&meta["uid"], &meta["resourceVersion"]), (&json!("uid"), &json!("7")));
}

#[test]
fn a_name_that_is_taken_gets_a_suffix_and_says_its_own() {
    let place = place(kinds::secret::KIND);
    let long = "n".repeat(253);
    for name in ["key", &long] {
        let key = ResourceKey::in_mesh(&MeshName::new("two").unwrap(), name);
        let row = row(&place, key.clone(), Labels::default(), json!({ "data": "" }), "");
        let at = place.otherwise(&key, &place.home(&key, &row.head.labels));
        assert!(at.name.len() <= 253 && at.name.starts_with(name.get(..3).unwrap()), "{at}");
        let settled = place.settle(&row, &at, None).unwrap();
        let wanted = settled.row.head.version;
        let object = stored(&place.object(settled, &at, None, None));
        assert_eq!(place.key(&object), Ok(key.clone()));
        assert_eq!(place.read(&key, &object).unwrap().head.version, wanted);
    }
}
