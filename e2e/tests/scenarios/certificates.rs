//! Certificates are exchanged while everything runs.

use super::Scenario;
use anyhow::{Context, Result, bail, ensure};
use e2e::{
    PATIENCE,
    control_plane::{ControlPlane, Zone},
    tls::{Authority, Open},
    wait,
};
use serde_json::{Value, json};
use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

pub(crate) const ALL: &[Scenario] = &[(
    "certificates_are_exchanged_while_connections_stay_open",
    certificates_are_exchanged_while_connections_stay_open,
)];

/// The certificate of a control plane, and its key.
struct Files([PathBuf; 2]);

impl Files {
    fn of(control_plane: &ControlPlane) -> Self {
        Self(["server.pem", "server.key"].map(|name| control_plane.folder.join(name)))
    }

    fn issue(&self, authority: &Authority, address: Ipv4Addr) -> Result<()> {
        let Self([certificate, key]) = self;
        let (chain, private) = authority.server(IpAddr::V4(address))?;
        fs::write(certificate, chain)?;
        Ok(fs::write(key, private)?)
    }

    fn settings(&self) -> Value {
        let Self([certificate, key]) = self;
        json!({ "certFile": certificate, "keyFile": key })
    }
}

/// How often a control plane said that it cannot use what is in a file of its certificate.
fn complaints(control_plane: &mut ControlPlane) -> Result<usize> {
    let what = ["ERROR", "are not usable, the last ones stay", "tls.certFile", "no certificate"];
    Ok(control_plane.process()?.lines_with(&what))
}

/// The connections of the zone that global knows of.
fn connections(global: &ControlPlane) -> Result<(usize, bool)> {
    let overview = global.get("/zones/east/_overview")?;
    let all = overview.pointer("/zoneInsight/subscriptions").and_then(Value::as_array);
    let state = overview.pointer("/status/state").and_then(Value::as_str);
    Ok((all.context("subscriptions")?.len(), state == Some("Online")))
}

fn online(global: &ControlPlane, times: usize) -> Result<()> {
    wait::until("east is online", PATIENCE, || {
        let known = connections(global)?;
        if known == (times, true) { Ok(()) } else { bail!("{known:?}") }
    })
}

/// Both control planes, and what they are told of themselves and of each other.
struct Scene {
    global: ControlPlane,
    east: ControlPlane,
    /// Whom the zone believes.
    trusted: PathBuf,
    /// The ports of global and of the zone that have TLS.
    ports: [SocketAddr; 4],
}

impl Scene {
    fn start(folder: &Path, authority: &Authority) -> Result<Self> {
        let [here, there] = [1, 2].map(|last| Ipv4Addr::new(127, 77, 2, last));
        let (at, trusted) = (folder.join("global"), folder.join("trusted.pem"));
        fs::create_dir_all(&at)?;
        let mut global = ControlPlane::global(&at, here)?;
        let files = Files::of(&global);
        files.issue(authority, here)?;
        global.configure("tls", files.settings())?;
        global.start()?;

        fs::write(&trusted, authority.pem())?;
        let zone = Zone { name: "east", address: there, namespace: None };
        let mut east = ControlPlane::zone(&folder.join("east"), zone, &global)?;
        let files = Files::of(&east);
        files.issue(authority, there)?;
        east.configure("tls", files.settings())?;
        let at_global = json!({
            "address": format!("https://{here}:5685"),
            "caFile": trusted,
            "tokenFile": east.folder.join("token"),
        });
        east.configure("global", at_global)?;
        east.start()?;
        let ports = [(here, 5682), (here, 5685), (there, 5682), (there, 5678)];
        let ports = ports.map(|(address, port)| SocketAddr::from((address, port)));
        Ok(Self { global, east, trusted, ports })
    }

    fn both(&mut self) -> [&mut ControlPlane; 2] {
        [&mut self.global, &mut self.east]
    }
}

/// What is open goes on; what comes gets the new certificate, once the whole of it is there. The zone
/// believes another authority for its next connection.
fn certificates_are_exchanged_while_connections_stay_open() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let [old, new] = [Authority::new("old.example")?, Authority::new("new.example")?];
    let mut scene = Scene::start(folder.path(), &old)?;
    online(&scene.global, 1)?;
    let mut open = scene.ports.iter().map(|port| Open::to(*port)).collect::<Result<Vec<_>>>()?;

    for control_plane in scene.both() {
        let Files([certificate, _]) = Files::of(control_plane);
        fs::write(certificate, "-----BEGIN CERTIFICATE-----\nhalf")?;
    }
    wait::until("both say that a file is broken", PATIENCE, || {
        for (port, open) in scene.ports.iter().zip(&open) {
            ensure!(Open::to(*port)?.certificate == open.certificate, "{port} shows another one");
        }
        let said = scene.both().map(complaints);
        if said.iter().all(|said| matches!(said, Ok(1))) { Ok(()) } else { bail!("{said:?}") }
    })?;

    fs::write(&scene.trusted, format!("{}{}", old.pem(), new.pem()))?;
    for control_plane in scene.both() {
        Files::of(control_plane).issue(&new, control_plane.address)?;
    }
    let ports = scene.ports;
    for (port, open) in ports.iter().zip(&mut open) {
        wait::until(&format!("{port} shows the new certificate"), PATIENCE, || {
            let mut next = Open::to(*port)?;
            next.ask()?;
            if next.certificate == open.certificate { bail!("the old one") } else { Ok(()) }
        })?;
        open.ask().with_context(|| format!("{port}, on the connection from before"))?;
    }
    for control_plane in scene.both() {
        ensure!(complaints(control_plane)? == 1, "it is said once");
    }
    ensure!(connections(&scene.global)? == (1, true), "the zone had to connect again");

    // Only the new authority's certificate is accepted now, and that is what there is.
    fs::write(&scene.trusted, new.pem())?;
    scene.global.kill()?;
    scene.global.start()?;
    online(&scene.global, 2)
}
