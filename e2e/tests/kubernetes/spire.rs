//! Pods whose certificates a SPIRE agent has.

use super::{
    Scenario,
    world::{SHOP, SYSTEM, World, Zone, allow, called_by, cart, prefix, server, status},
};
use anyhow::{Context as _, Result, bail};
use e2e::{
    PATIENCE,
    cluster::Images,
    control_plane::set,
    lab::Lab,
    spire::{Attestor, Spire, TRUST_DOMAIN, id},
    wait,
};
use serde_json::{Value, json};
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    time::Duration,
};

pub(crate) const ALL: &[Scenario] = &[(
    "spire_pods_call_each_other_with_certificates_of_spire",
    pods_call_each_other_with_certificates_of_spire,
)];

/// The certificates of pods of the cluster are left to SPIRE; others stay as they are.
fn leave_to_spire(lab: &Lab) -> Result<()> {
    let identity = json!({
        "type": "MeshIdentity", "mesh": "default", "name": "spire",
        "spec": {
            "selector": { "dataplane": { "matchLabels": { "kuma.io/zone": "k8s-1" } } },
            "spiffeID": { "trustDomain": TRUST_DOMAIN },
            "provider": { "type": "Spire" },
        },
    });
    lab.global.put("/meshes/default/meshidentities/spire", &identity)
}

/// Says in the settings of the control plane how pods reach their agent.
fn set_up(zone: &Zone, spire: &Value) -> Result<()> {
    let kubectl = zone.kubectl();
    let mut map = kubectl.get(SYSTEM, "configmap/atoll-zone-cp")?;
    let text = map.pointer_mut("/data/settings.yaml").context("settings")?;
    let mut settings: Value = serde_saphyr::from_str(text.as_str().context("a text")?)?;
    let injector = settings.pointer_mut("/kubernetes/injector").context("injector")?;
    set(injector, "spire", spire.clone());
    *text = settings.to_string().into();
    kubectl.apply(&map.to_string())?;
    // The next one begins when this one is gone, which would inject pods by its own settings until then.
    let ours = "--selector=app.kubernetes.io/component=zone-cp";
    kubectl.run(&["delete", "pods", "--namespace", SYSTEM, ours, "--wait"])?;
    kubectl.rolled_out(SYSTEM, "deployment/atoll-zone-cp")
}

/// The agent is on the node, and asks its kubelet which pod a process is of. Pods get its socket when
/// they are made, but for one that does not want it, whose Dataplane says what it lacks.
fn pods_call_each_other_with_certificates_of_spire(images: &Images) -> Result<()> {
    let folder = tempfile::tempdir()?;
    // Sidecars are another user.
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    let public = folder.path().join("public");
    fs::create_dir(&public)?;
    let world = World::start(images, &["k8s-1"])?;
    let zone = world.zone("k8s-1")?;
    set_up(zone, &json!({ "enabled": true, "hostPath": public, "socketFileName": "api.sock" }))?;
    let life = Duration::from_secs(600);
    let spire = Spire::start(zone.cluster.inside(), Attestor::Kubelet, folder.path(), life)?;
    leave_to_spire(&world.lab)?;
    allow(&world.lab, &[prefix(&id(""))])?;
    world.open_shops()?;

    let url = format!("http://{}/", cart("k8s-1"));
    answered(zone, &url, "503").context("nobody has a certificate")?;
    for account in ["front", "cart"] {
        let selectors = [format!("k8s:ns:{SHOP}"), format!("k8s:sa:{account}")];
        let selectors = selectors.each_ref().map(String::as_str);
        spire.enter(&format!("/ns/{SHOP}/sa/{account}"), &selectors)?;
    }
    let body = zone.pod_reaches("deployment/front", "front", &url)?;
    called_by(&body, &id(&format!("/ns/{SHOP}/sa/front")))?;

    // Who may call still is what policies say.
    allow(&world.lab, &[prefix(&id("/ns/other"))])?;
    answered(zone, &url, "403")?;
    unwanted(zone)
}

fn answered(zone: &Zone, url: &str, expected: &str) -> Result<()> {
    wait::until(&format!("{expected} of {url}"), PATIENCE, || {
        let found = zone.kubectl().exec(SHOP, "deployment/front", "front", &status(url))?;
        if found == expected { Ok(()) } else { bail!("{found}") }
    })
}

/// A pod without the socket.
fn unwanted(zone: &Zone) -> Result<()> {
    let labels = "labels: {app: plain}}";
    let without = "labels: {app: plain, k8s.kuma.io/spire-support: disabled}}";
    let plain = server("plain");
    let changed =
        plain.replacen(&format!("metadata: {{{labels}"), &format!("metadata: {{{without}"), 1);
    if changed == plain {
        bail!("{plain}");
    }
    zone.kubectl().apply(&changed)?;
    wait::until("its Dataplane says what it lacks", PATIENCE, || {
        let all = zone.kubectl().get(SYSTEM, "dataplaneinsights")?;
        let items = all.get("items").and_then(Value::as_array).context("items")?;
        let name =
            |it: &Value| it.pointer("/metadata/name").map(Value::to_string).unwrap_or_default();
        let of_plain = items.iter().find(|it| name(it).contains("plain")).context("none yet")?;
        let text = of_plain.to_string();
        let what = "names no SPIRE agent";
        if text.contains(what) { Ok(()) } else { bail!("{text}") }
    })
}
