//! A global that lost its store gets back from a zone what that still has.

use super::{
    Scenario,
    alone::timeout,
    away::{arrives, put_timeout},
};
use anyhow::{Context, Result, bail, ensure};
use e2e::{
    PATIENCE,
    control_plane::{ControlPlane, Zone},
    process::programs,
    wait,
};
use serde_json::{Value, json};
use std::{fs, net::Ipv4Addr, path::Path, process::Command};

pub(crate) const ALL: &[Scenario] = &[(
    "a_zone_hands_its_state_back_to_the_global_that_lost_it",
    a_zone_hands_its_state_back_to_the_global_that_lost_it,
)];

/// Runs `atoll` at a zone: its exit code, and what it says.
fn atoll(home: &Path, zone: &ControlPlane, arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let output = Command::new(programs()?.join("atoll"))
        .env_clear()
        .env("HOME", home)
        .args(["--address", &format!("http://{}:5681", zone.address), "--token-file"])
        .arg(zone.folder.join("data/admin-token"))
        .args(arguments)
        .output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&text).into_owned()))
}

/// What a zone has of global, by path and name, with what it says.
fn of_global(zone: &ControlPlane) -> Result<Vec<(String, Value)>> {
    let mut all = Vec::new();
    for path in ["/meshes", "/meshtimeouts", "/secrets"] {
        let list = zone.get(&format!("{path}?filter[labels.kuma.io/origin]=global"))?;
        for item in list.get("items").and_then(Value::as_array).context("items")? {
            let name = item.get("name").and_then(Value::as_str).context("name")?;
            all.push((format!("{path}/{name}"), item.clone()));
        }
    }
    Ok(all)
}

fn is_held(zone: &ControlPlane) -> Result<()> {
    wait::until("nothing of global is applied", PATIENCE, || {
        let state = zone.get("/_global")?;
        if state.get("state") == Some(&"Held".into()) { Ok(()) } else { bail!("{state}") }
    })
}

fn a_zone_hands_its_state_back_to_the_global_that_lost_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut global = ControlPlane::global(folder.path(), Ipv4Addr::new(127, 77, 0, 40))?;
    global.start()?;
    let east = Zone { name: "east", address: Ipv4Addr::new(127, 77, 0, 41), namespace: None };
    let mut east = ControlPlane::zone(&folder.path().join("east"), east, &global)?;
    east.start()?;
    global.put("/meshes/shop", &json!({ "type": "Mesh", "name": "shop" }))?;
    let secret = json!({ "type": "Secret", "mesh": "default", "name": "s", "data": "b2xk" });
    global.put("/meshes/default/secrets/s", &secret)?;
    for name in ["first", "second"] {
        put_timeout(&global, name)?;
        arrives(&east, name)?;
    }
    let labels = json!({ "kuma.io/origin": "zone" });
    let spec = timeout("own").get("spec").cloned();
    let own = json!({
        "type": "MeshTimeout", "mesh": "default", "name": "own", "labels": labels, "spec": spec,
    });
    east.put("/meshes/default/meshtimeouts/own", &own)?;
    let before = of_global(&east)?;

    global.stop()?;
    for file in ["store.redb", "store.redb.mark", "admin-token"] {
        fs::remove_file(global.folder.join("data").join(file))?;
    }
    global.start()?;
    // Its old token is of a key that is gone.
    let token = global.zone_token("east")?;
    fs::write(east.folder.join("token"), token)?;
    is_held(&east)?;
    ensure!(of_global(&east)? == before, "it keeps what it has");

    let say = |arguments: &[&str]| atoll(folder.path(), &east, arguments);
    let (code, said) = say(&["zone", "adopt", "--dry-run"])?;
    ensure!(code == Some(0) && said.contains("it would delete Mesh shop\n"), "{said}");
    let to_address = format!("http://{}:5681", global.address);
    let to_token = global.folder.join("data/admin-token").display().to_string();
    let restore = ["zone", "restore", "--to-address", &to_address, "--to-token-file", &to_token];
    let lost =
        ["lacks   Mesh shop", "lacks   MeshTimeout default/first", "lacks   Secret default/s"];
    for (more, expected) in [("--dry-run", Some(0)), ("", Some(1))] {
        let more = [more].into_iter().filter(|it| !it.is_empty());
        let (code, said) = say(&restore.into_iter().chain(more).collect::<Vec<_>>())?;
        ensure!(code == expected && lost.iter().all(|line| said.contains(line)), "{said}");
        ensure!(!said.contains("b2xk") && !said.contains("MeshTimeout default/own"), "{said}");
    }
    ensure!(global.get("/meshes/shop").is_err(), "nothing was done yet");

    let (code, said) = say(&[&restore[..], &["--yes"]].concat())?;
    ensure!(code == Some(0) && said.contains("the zone follows global"), "{said}");
    let shown = global.get("/meshes/default/secrets/s")?;
    ensure!(shown.get("data") == secret.get("data"), "the secret is back");
    for name in ["first", "second"] {
        let path = format!("/meshes/default/meshtimeouts/{name}");
        let (now, written) = (global.get(&path)?, timeout(name));
        ensure!(now.get("spec") == written.get("spec"), "{now}");
    }
    let after = of_global(&east)?;
    ensure!(after == before, "nothing changed in the zone: {before:#?} {after:#?}");
    put_timeout(&global, "third")?;
    arrives(&east, "third")
}
