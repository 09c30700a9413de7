use super::*;
use resource::Flow;
use std::collections::BTreeSet;

#[test]
fn every_folder_is_a_listed_kind() {
    let src = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    let folders: BTreeSet<String> = std::fs::read_dir(src)
        .unwrap()
        .map(Result::unwrap)
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap().replace('_', ""))
        .collect();
    let listed: BTreeSet<String> = all().map(|kind| kind.name.to_lowercase()).collect();
    assert_eq!(folders, listed);
}

#[test]
fn names_are_unique() {
    for (what, name_of) in [
        ("kind", (|kind| kind.name) as fn(Kind) -> &'static str),
        ("plural", |kind| kind.plural),
        ("path", |kind| kind.path),
        ("short", |kind| kind.short),
    ] {
        let names: Vec<&str> = all().map(name_of).filter(|name| !name.is_empty()).collect();
        let unique: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(unique.len(), names.len(), "a {what} is used twice: {names:?}");
    }
}

/// What peers ask for, of the kinds that exist here so far.
#[test]
fn peers_ask_for_what_the_protocol_lists() {
    let asked = |by: fn(Flow) -> bool| -> Vec<&str> {
        let mut names: Vec<_> = all().filter(|kind| by(kind.flow)).map(|kind| kind.name).collect();
        names.sort_unstable();
        names
    };
    let zone = [
        "Config",
        "GlobalSecret",
        "HostnameGenerator",
        "Mesh",
        "MeshIdentity",
        "MeshService",
        "MeshTimeout",
        "MeshTrafficPermission",
        "MeshTrust",
        "MeshZoneAddress",
        "Secret",
    ];
    assert_eq!(asked(Flow::requested_by_zones), zone);
    let global = [
        "Dataplane",
        "DataplaneInsight",
        "HostnameGenerator",
        "MeshIdentity",
        "MeshService",
        "MeshTimeout",
        "MeshTrafficPermission",
        "MeshTrust",
        "MeshZoneAddress",
        "Workload",
    ];
    assert_eq!(asked(Flow::requested_by_global), global);
}

#[test]
fn protobuf_kinds_have_the_type_urls_of_the_protocol() {
    let urls: Vec<_> = all().map(|kind| kind.type_url()).filter(|url| !url.is_empty()).collect();
    let expected = [
        "kuma.mesh.v1alpha1.Mesh",
        "kuma.system.v1alpha1.Zone",
        "kuma.system.v1alpha1.ZoneInsight",
        "kuma.system.v1alpha1.Secret",
        "kuma.system.v1alpha1.Secret",
        "kuma.system.v1alpha1.Config",
        "kuma.mesh.v1alpha1.Dataplane",
        "kuma.mesh.v1alpha1.DataplaneInsight",
    ];
    assert_eq!(urls, expected.map(|name| format!("type.googleapis.com/{name}")));
}

#[test]
fn what_is_no_spec_is_refused_without_panic() {
    for kind in all() {
        assert!(kind.decode(&[0xff; 7]).is_err(), "{kind:?}");
        assert!(kind.from_json(serde_json::json!([1])).is_err(), "{kind:?}");
    }
}
