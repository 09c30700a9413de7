//! A global control plane by itself.

use super::Scenario;
use anyhow::{Result, bail};
use e2e::{
    PATIENCE,
    control_plane::{ControlPlane, Zone},
    wait,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
};

pub(crate) const ALL: &[Scenario] = &[
    ("what_cannot_start_says_why", what_cannot_start_says_why),
    ("a_damaged_store_is_named_and_kept", a_damaged_store_is_named_and_kept),
    ("nobody_is_anonymous", nobody_is_anonymous),
    ("who_waits_for_an_api_server_ends_when_told", who_waits_for_an_api_server_ends_when_told),
    (
        "who_speaks_something_else_is_named_in_the_log",
        who_speaks_something_else_is_named_in_the_log,
    ),
];

/// A MeshTimeout that changes nothing else.
pub(crate) fn timeout(name: &str) -> Value {
    json!({
        "type": "MeshTimeout", "mesh": "default", "name": name,
        "spec": { "to": [{
            "targetRef": { "kind": "Mesh" },
            "default": { "connectionTimeout": "1s" },
        }] },
    })
}

fn global(folder: &Path, last: u8) -> Result<ControlPlane> {
    ControlPlane::global(folder, Ipv4Addr::new(127, 77, 0, last))
}

/// The files of a control plane, with their content, but for its log.
fn files(folder: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let (mut files, mut folders) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                files.insert(path.clone(), Vec::new());
                folders.push(path);
            } else if path.extension().is_none_or(|it| it != "log") {
                files.insert(path.clone(), fs::read(path)?);
            }
        }
    }
    Ok(files)
}

/// That of a cluster, whose API server does not answer.
fn who_waits_for_an_api_server_ends_when_told() -> Result<()> {
    let folder = tempfile::tempdir()?;
    // It takes connections, and never says anything.
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let kubeconfig = folder.path().join("kubeconfig");
    let document = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{ "name": "c", "cluster": {
            "server": format!("https://{}", server.local_addr()?),
            "insecure-skip-tls-verify": true,
        } }],
        "users": [{ "name": "c", "user": {} }],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "c" } }],
    });
    fs::write(&kubeconfig, document.to_string())?;
    let address = Ipv4Addr::new(127, 77, 0, 20);
    let zone = Zone { name: "k8s-1", address, namespace: None };
    let cp = ControlPlane::of_cluster(&folder.path().join("zone"), zone, &kubeconfig, None)?;
    let process = cp.launch()?;
    wait::until("it lives", PATIENCE, || {
        let mut stream = TcpStream::connect((address, 5680))?;
        stream.write_all(b"GET /live HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        if said.starts_with("HTTP/1.1 200") { Ok(()) } else { bail!("{said}") }
    })?;
    let ended = process.stop(PATIENCE)?;
    if ended.success() { Ok(()) } else { bail!("{ended}") }
}

/// What is wrong is named, the exit code is 1, and nothing is changed.
fn what_cannot_start_says_why() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut cp = global(folder.path(), 2)?;
    for (times, ran_before) in [(1, false), (2, true)] {
        if ran_before {
            cp.start()?;
            cp.stop()?;
        }
        let before = files(folder.path())?;
        let taken = TcpListener::bind("127.77.0.2:5681")?;
        let mut process = cp.launch()?;
        let status = process.ended(PATIENCE)?;
        let said = process.lines_with(&["api.http.address"]);
        if status.code() != Some(1) || said != times {
            bail!("{status}: {}", process.tail());
        }
        drop(taken);
        if files(folder.path())? != before || (before.len() > 1) != ran_before {
            bail!("files were changed: {:?}", files(folder.path())?.keys());
        }
    }
    // A file where the folder should be.
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("data"), "mine")?;
    let mut process = global(folder.path(), 2)?.launch()?;
    let status = process.ended(PATIENCE)?;
    if status.code() != Some(1) || !process.said("dataDir") {
        bail!("{status}: {}", process.tail());
    }
    if fs::read_to_string(folder.path().join("data"))? != "mine" {
        bail!("the file was changed");
    }
    Ok(())
}

/// A store that was damaged, and one that is gone: the process says which file and ends, and
/// whatever is there stays as it is.
fn a_damaged_store_is_named_and_kept() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut global = global(folder.path(), 6)?;
    global.start()?;
    global.put("/meshes/default/meshtimeouts/kept", &timeout("kept"))?;
    global.stop()?;
    let store = global.folder.join("data/store.redb");
    let refused = |why: &str| {
        let mut process = global.launch()?;
        let status = process.ended(PATIENCE)?;
        if status.code() != Some(1) || !process.said("store.redb") || !process.said(why) {
            bail!("{status}: {}", process.tail());
        }
        anyhow::Ok(())
    };
    let whole = fs::read(&store)?;
    let mut damaged = whole.clone();
    // Much of it: a part of the file may be free.
    let (from, count) = (damaged.len() / 4, damaged.len() / 2);
    for byte in damaged.iter_mut().skip(from).take(count) {
        *byte ^= 0x5a;
    }
    fs::write(&store, &damaged)?;
    refused("damaged")?;
    if fs::read(&store)? != damaged {
        bail!("the file was changed");
    }
    fs::remove_file(&store)?;
    refused("missing")?;
    fs::write(&store, &whole)?;
    global.start()?;
    global.get("/meshes/default/meshtimeouts/kept").map(drop)
}

/// Without a token there is nothing but `/` and readiness.
fn nobody_is_anonymous() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut global = global(folder.path(), 3)?;
    global.start()?;
    let token = global.token()?;
    let asked =
        [("/", None), ("/meshes", None), ("/meshes", Some("x.y.z")), ("/meshes", Some(&*token))];
    let mut seen = Vec::new();
    for (path, token) in asked {
        seen.push(global.status(path, token)?.as_u16());
    }
    if seen != [200, 401, 401, 200] {
        bail!("{seen:?}");
    }
    Ok(())
}

/// Once, however often it tries; and who speaks as it should is answered meanwhile.
fn who_speaks_something_else_is_named_in_the_log() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut global = global(folder.path(), 10)?;
    global.start()?;
    for _ in 0..3 {
        let mut stranger = TcpStream::connect((global.address, 5685))?;
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
        // What it is told does not matter, but that it is over.
        stranger.set_read_timeout(Some(PATIENCE))?;
        stranger.read_to_end(&mut Vec::new()).ok();
    }
    let metrics = format!("http://{}:5680/metrics", global.address);
    wait::until("strangers are counted", PATIENCE, || {
        let text = reqwest::blocking::get(&metrics)?.text()?;
        if text.contains("tls_connections_refused_total 3") { Ok(()) } else { bail!("{text}") }
    })?;
    let token = global.token()?;
    let status = global.status("/meshes", Some(&token))?;
    let said = global.process()?.lines_with(&["a connection was refused", "TLS handshake failed"]);
    if (status.as_u16(), said) != (200, 1) {
        bail!("{status}, {said}\n{}", global.tail());
    }
    Ok(())
}
