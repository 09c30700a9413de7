use super::*;
use crate::{
    args::{Args, Command},
    install::Install,
};
use clap::Parser;

fn asked(arguments: &[&str]) -> ControlPlane {
    let all = ["atoll", "install", "control-plane"].iter().chain(arguments);
    let Command::Install { what: Install::ControlPlane(asked) } =
        Args::try_parse_from(all).unwrap().command
    else {
        panic!("another command")
    };
    asked
}

fn printed(arguments: &[&str]) -> Vec<Value> {
    let mut text = Vec::new();
    asked(arguments).print(&mut Output::new(&mut text)).unwrap();
    serde_saphyr::from_multiple(&String::from_utf8(text).unwrap()).unwrap()
}

fn refusal(arguments: &[&str]) -> String {
    format!("{:#}", asked(arguments).print(&mut Output::new(&mut Vec::new())).unwrap_err())
}

/// What the chart makes of `name`, and what is printed for the same values; without what may differ.
fn both(name: &str) -> [Vec<Value>; 2] {
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/helm/testdata");
    let golden = fs::read_to_string(format!("{data}/{name}.golden.yaml")).unwrap();
    let golden: Vec<Value> = serde_saphyr::from_multiple(&golden).unwrap();
    let printed = printed(&["--values", &format!("{data}/{name}.values.yaml")]);
    let printed = printed.into_iter().filter(|object| {
        !matches!(object["kind"].as_str(), Some("CustomResourceDefinition" | "Namespace"))
    });
    [golden, printed.collect()].map(|mut objects| {
        objects.retain(|object| !object.is_null());
        for object in &mut objects {
            for labels in ["/metadata/labels", "/spec/template/metadata/labels"] {
                if let Some(labels) = object.pointer_mut(labels) {
                    let manager = labels["app.kubernetes.io/managed-by"].take();
                    assert!(["Helm", "atoll"].iter().any(|it| manager == *it), "{manager}");
                }
            }
            if let Some(mark) =
                object.pointer_mut("/spec/template/metadata/annotations/atoll.io~1settings")
            {
                assert!(mark.as_str().is_some_and(|mark| mark.len() == 16), "{mark}");
                *mark = Value::Null;
            }
        }
        objects.sort_by_key(|object| format!("{}/{}", object["kind"], object["metadata"]["name"]));
        objects
    })
}

#[test]
fn what_is_printed_is_what_the_chart_makes() {
    for name in ["zone", "zone-alone", "zone-ports", "global"] {
        let [chart, printed] = both(name);
        assert!(!chart.is_empty());
        for (chart, printed) in chart.iter().zip(&printed) {
            assert_eq!(printed, chart, "{name}");
        }
        assert_eq!(printed.len(), chart.len(), "{name}");
    }
}

const ZONE_K8S: [&str; 6] = [
    "--set",
    "zone.name=k8s-1",
    "--set",
    "zone.global.address=https://192.0.2.1:5685",
    "--set",
    "zone.global.secret=credential",
];

#[test]
fn no_place_is_left_unfilled() {
    let zone: Vec<&str> = ZONE_K8S.into_iter().chain(["--set", "meshes[0].name=shop"]).collect();
    let alone = vec!["--set", "zone.name=k8s-1", "--set", "meshes[0].name=shop"];
    for arguments in
        [zone, alone, vec!["--mode", "global", "--set", "global.names[0]=global.example"]]
    {
        let printed = printed(&arguments);
        let namespace = printed.iter().position(|object| object["kind"] == "Namespace").unwrap();
        let objects = serde_json::to_string(&printed[namespace..]).unwrap();
        for place in ["namespace", "registry", "tag", "zone", "address", "secret", "mesh", "name"] {
            assert!(!objects.contains(&format!("the-{place}")), "the-{place} in {objects}");
        }
        assert!(!objects.contains("Helm"), "{objects}");
        let global = arguments.contains(&"global");
        let definitions = if global { 0 } else { kinds::crd::manifests().len() };
        assert_eq!(namespace, definitions);
    }
}

#[test]
fn an_option_wins_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("values.yaml");
    fs::write(&file, "zone: {name: east}\nimage: {tag: \"1\"}\n").unwrap();
    let file = file.to_str().unwrap();
    let mut arguments = vec!["--values", file, "--set", "image.registry=registry.example"];
    arguments.extend(ZONE_K8S);
    let text = serde_json::to_string(&printed(&arguments)).unwrap();
    assert!(text.contains("name: k8s-1") && !text.contains("name: east"), "{text}");
    assert!(text.contains("registry.example/zone-cp:1\""), "{text}");
}

#[test]
fn there_may_be_one_that_stands_by() {
    let arguments = [&ZONE_K8S[..], &["--set", "controlPlane.replicas=2"]].concat();
    let replicas = |object: &Value| {
        let it = name(object) == "atoll-zone-cp" && object["kind"] == "Deployment";
        it.then(|| object["spec"]["replicas"].clone())
    };
    assert_eq!(printed(&arguments).iter().find_map(replicas), Some(2.into()));
}

#[test]
fn other_settings_are_other_pods() {
    let mark = |name: &str| {
        let mut arguments = ZONE_K8S.to_vec();
        arguments.extend(["--set", name]);
        let deployment = |object: &&Value| object["kind"] == "Deployment";
        let found = printed(&arguments);
        let found = found.iter().find(deployment).unwrap();
        found["spec"]["template"]["metadata"]["annotations"]["atoll.io/settings"].clone()
    };
    assert_eq!(mark("zone.name=a"), mark("zone.name=a"));
    assert_ne!(mark("zone.name=a"), mark("zone.name=b"));
}

#[test]
fn what_is_wrong_is_named() {
    let with = |more: &'static [&'static str]| refusal(&[&ZONE_K8S, more].concat());
    for (refused, expected) in [
        (refusal(&[]), "zone.name: "),
        (
            refusal(&["--set", "zone.name=a", "--set", "zone.global.address=http://b"]),
            "zone.global.address: must be where global is",
        ),
        (
            refusal(&["--set", "zone.name=a", "--set", "zone.global.secret=b"]),
            "zone.global.secret: must not be set without zone.global.address",
        ),
        (with(&["--set", "zone.global.secret="]), "zone.global.secret: "),
        (with(&["--set", "zone.name=East"]), "zone.name: "),
        (with(&["--set", "zone.nome=a"]), "unknown field `nome`"),
        (with(&["--set", "controlPlane.replicas=3"]), "controlPlane.replicas: must be 1, or 2"),
        (with(&["--mode", "global", "--set", "controlPlane.replicas=2"]), "global is one process"),
        (with(&["--set", "controlPlane.settings.a=2"]), "the Helm chart in deploy/helm takes"),
        (with(&["--set", "meshes[0].name=-"]), "meshes[0].name: "),
        (with(&["--set", "meshes[x].name=a"]), "--set meshes[x].name: "),
        (with(&["--set", "meshes[99999999].name=a"]), "must be a number"),
        (with(&["--set", "meshes[0].ingress.service.type=X"]), "meshes[0].ingress.service.type: "),
        (with(&["--set", ".=a"]), "is no key"),
        (with(&["--namespace", "A"]), "--namespace: "),
        (with(&["--values", "/nowhere/values.yaml"]), "/nowhere/values.yaml"),
        (
            refusal(&["--mode", "global", "--set", "meshes[0].name=a"]),
            "meshes: only a zone has ingresses",
        ),
    ] {
        assert!(refused.contains(expected), "{expected} in {refused}");
    }
    let long = format!("meshes[0].name={}", "a".repeat(50));
    let refused = refusal(&[&ZONE_K8S[..], &["--set", &long]].concat());
    assert!(refused.contains("at most 49 characters"), "{refused}");
}
