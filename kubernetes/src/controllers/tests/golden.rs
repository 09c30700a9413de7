//! Objects of a cluster in `testdata/*.yaml`, and what is made of them. `make bless` writes that anew.

use super::{super::tables::Owner, tables};
use crate::controllers::{Complaint, Weight, complaint::Verdict};
use kinds::mesh_service;
use resource::{Kind, Labels, Peer, ResourceKey, Spec};
use serde_json::{Map, Value, json};
use std::{fs, path::PathBuf, sync::Arc};

#[test]
fn a_deployment_with_its_service() {
    check("deployment");
}

#[test]
fn ports_by_name_and_number_and_what_is_spoken_on_them() {
    check("ports");
}

#[test]
fn each_pod_of_a_stateful_set_is_a_service() {
    check("stateful-set");
}

#[test]
fn how_far_a_pod_is_decides_about_its_inbounds() {
    check("states");
}

#[test]
fn an_ingress_and_where_other_zones_reach_it() {
    check("ingress");
}

#[test]
fn annotations_of_pods_and_namespaces() {
    check("annotations");
}

#[test]
fn what_is_not_in_the_mesh_and_why() {
    check("outside");
}

fn check(name: &str) {
    let file = |suffix: &str| -> PathBuf {
        let name = format!("{name}{suffix}.yaml");
        [env!("CARGO_MANIFEST_DIR"), "src/controllers/testdata", &name].iter().collect()
    };
    let text = fs::read_to_string(file("")).unwrap();
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let owners: Vec<Owner> = objects.iter().filter_map(owner).collect();
    let tables = tables(objects);
    let mut made = Vec::new();
    for owner in owners {
        let id = owner.id();
        match &owner {
            Owner::Pod(_) => {
                let verdict = tables.dataplane(id);
                made.push(told(&owner, &verdict));
                for row in verdict.shall.into_iter().flatten() {
                    made.push(shown(kinds::dataplane::KIND, &row.key, &row.labels, row.spec));
                }
            }
            Owner::Service(_) => {
                let verdict = tables.mesh_services(id);
                made.push(told(&owner, &verdict));
                for row in verdict.shall.into_iter().flatten() {
                    let (spec, status) = row.on(None);
                    let mut shown = shown(mesh_service::KIND, &row.key, &row.labels, spec);
                    shown["status"] = json!({ "vips": status.vips, "addresses": status.addresses });
                    made.push(shown);
                }
                let verdict = tables.zone_addresses(id);
                if let Some(complaint) = &verdict.complaint {
                    made.push(complained(&owner, complaint));
                }
                for row in verdict.shall.into_iter().flatten() {
                    let kind = kinds::mesh_zone_address::KIND;
                    made.push(shown(kind, &row.key, &row.labels, row.spec));
                }
            }
        }
    }
    made.retain(|it| !it.is_null());
    let made: Vec<String> = made.iter().map(|it| serde_saphyr::to_string(it).unwrap()).collect();
    let made = made.join("---\n");
    if bless() {
        fs::write(file(".made"), &made).unwrap();
    }
    let golden = fs::read_to_string(file(".made")).unwrap_or_default();
    assert!(made == golden, "{} is not what is made:\n{made}", file(".made").display());
}

#[expect(clippy::disallowed_methods, reason = "a test, and `make` says so by a variable")]
fn bless() -> bool {
    std::env::var("BLESS").is_ok()
}

fn owner(object: &Value) -> Option<Owner> {
    let text = |pointer: &str| object.pointer(pointer)?.as_str().map(str::to_owned);
    let namespace = text("/metadata/namespace").unwrap_or_default();
    let id = crate::controllers::cluster::Id { namespace, name: text("/metadata/name")? };
    match text("/kind")?.as_str() {
        "Pod" => Some(Owner::Pod(id)),
        "Service" => Some(Owner::Service(id)),
        _ => None,
    }
}

fn told<T>(owner: &Owner, verdict: &Verdict<T>) -> Value {
    verdict.complaint.as_ref().map_or(Value::Null, |complaint| complained(owner, complaint))
}

fn complained(owner: &Owner, complaint: &Complaint) -> Value {
    let Complaint { weight, reason, note } = complaint;
    let weight = match weight {
        Weight::Normal => "Normal",
        Weight::Warning => "Warning",
    };
    let about = match owner {
        Owner::Pod(id) => format!("Pod {}/{}", id.namespace, id.name),
        Owner::Service(id) => format!("Service {}/{}", id.namespace, id.name),
    };
    json!({ "type": "Event", "about": about, "weight": weight, "reason": reason, "note": note })
}

/// A resource as the API has it. It must be valid.
fn shown<S: Spec>(kind: Kind, key: &ResourceKey, labels: &Labels, spec: S) -> Value {
    let bytes = kind.encode(&(Arc::new(spec) as resource::AnySpec)).unwrap();
    let status = bytes::Bytes::new();
    kind.resource(key.clone(), labels.clone(), bytes.clone(), status, Peer::Global).unwrap();
    let labels: Map<String, Value> =
        labels.iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
    json!({
        "type": kind.name,
        "mesh": key.mesh.as_ref().map(ToString::to_string),
        "name": &*key.name,
        "labels": labels,
        "spec": kind.to_json(&bytes).unwrap(),
    })
}
