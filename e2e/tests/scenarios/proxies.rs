//! What the programs of proxies say when they cannot start, and what their Envoys start with.

use super::Scenario;
use anyhow::{Context, Result, bail};
use base64::{Engine as _, prelude::*};
use e2e::{
    PATIENCE,
    lab::{Lab, Plan, Proxy},
    process::programs,
    wait,
};
use serde_json::{Value, json};
use std::{
    fs::{self, Permissions},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::Command,
};

pub(crate) const ALL: &[Scenario] = &[
    ("what_a_proxy_cannot_have_is_named_by_its_setting", named_by_its_setting),
    ("an_envoy_keeps_what_its_bootstrap_promises", an_envoy_keeps_what_its_bootstrap_promises),
];

const CA: &str = include_str!("ca.pem");
/// Says of itself what an Envoy says.
const ENVOY: &str = "#!/bin/sh\necho 'envoy  version: 0/1.40.0/Clean/RELEASE/BoringSSL'\n";
const DATAPLANE: &str = "
type: Dataplane
mesh: shop
name: a-1
networking:
  address: 127.0.0.1
";

/// A folder with everything that a program needs.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(serves: &str) -> Result<Self> {
        let folder = Self(tempfile::tempdir()?);
        let dataplane = format!("{DATAPLANE}  {serves}\n");
        for (name, content) in
            [("ca.crt", CA), ("token", "a.b.c"), ("dataplane.yaml", &dataplane), ("envoy", ENVOY)]
        {
            fs::write(folder.path(name), content)?;
        }
        fs::write(folder.path("empty"), "")?;
        fs::set_permissions(folder.path("envoy"), Permissions::from_mode(0o755))?;
        Ok(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What is in it, with its content.
    fn files(&self) -> Result<Vec<(PathBuf, Vec<u8>)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(self.0.path())? {
            let path = entry?.path();
            let content = if path.is_dir() { Vec::new() } else { fs::read(&path)? };
            files.push((path, content));
        }
        files.sort();
        Ok(files)
    }

    /// Runs the program with one setting that is wrong. Its exit code, and what it says.
    fn run(&self, program: &str, wrong: (&str, &str)) -> Result<(Option<i32>, String)> {
        let file = |name: &str| self.path(name).display().to_string();
        let mut settings = vec![
            ("ATOLL_ZONE_ADDRESS".to_owned(), "https://127.0.0.1:9".to_owned()),
            ("ATOLL_ZONE_CA_FILE".to_owned(), file("ca.crt")),
            ("ATOLL_TOKEN_FILE".to_owned(), file("token")),
            ("ATOLL_DATAPLANE".to_owned(), file("dataplane.yaml")),
            ("ATOLL_WORKDIR".to_owned(), file("workdir")),
            ("ATOLL_ENVOY_PATH".to_owned(), file("envoy")),
            ("ATOLL_READINESS_ADDRESS".to_owned(), "127.0.0.1:0".to_owned()),
        ];
        if program == "zone-ingress" {
            settings.push(("ATOLL_ADVERTISED_ADDRESS".to_owned(), "203.0.113.10".to_owned()));
        }
        settings.push((format!("ATOLL_{}", wrong.0), wrong.1.to_owned()));
        let mut command = Command::new(programs()?.join(program));
        let output = command.env_clear().envs(settings).output()?;
        Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
    }
}

/// The exit code is 1, and nothing is changed.
fn named_by_its_setting() -> Result<()> {
    let listener = "listeners: [{type: ZoneIngress, address: 127.0.0.1, port: 10001}]";
    for (program, serves) in
        [("sidecar", "inbound: [{name: http, port: 8080}]"), ("zone-ingress", listener)]
    {
        refuses(program, &Folder::new(serves)?)?;
    }
    Ok(())
}

fn refuses(program: &str, folder: &Folder) -> Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let taken = taken.local_addr()?.to_string();
    let text = |path: PathBuf| path.display().to_string();
    let (nowhere, not_pem) = (text(folder.path("nowhere")), text(folder.path("token")));
    let empty = text(folder.path("empty"));
    // A folder that nobody could make, whoever runs this.
    let below_a_file = text(folder.path("token").join("workdir"));
    let before = folder.files()?;
    for (setting, value, said) in [
        ("READINESS_ADDRESS", &taken, format!("readiness.address: cannot listen on {taken}")),
        ("ZONE_CA_FILE", &nowhere, format!("zone.caFile: {nowhere}: No such file")),
        ("ZONE_CA_FILE", &not_pem, format!("zone.caFile: {not_pem}: ")),
        ("WORKDIR", &below_a_file, format!("workdir: {not_pem}")),
        ("ENVOY_PATH", &nowhere, format!("envoy.path: cannot run {nowhere:?}")),
        ("TOKEN_FILE", &nowhere, format!("tokenFile: {nowhere}: No such file")),
        ("TOKEN_FILE", &empty, format!("tokenFile: {empty} holds no token")),
        ("DATAPLANE", &nowhere, format!("dataplane: {nowhere}: No such file")),
    ] {
        let (code, text) = folder.run(program, (setting, value))?;
        if code != Some(1) || !text.contains(&said) || folder.files()? != before {
            bail!("{program}, {setting}: {code:?} {text}");
        }
    }
    Ok(())
}

/// The ID of a token.
fn id(token: &str) -> Result<String> {
    let claims = token.split('.').nth(1).context("a JWT")?;
    let claims: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims)?)?;
    Ok(claims.get("jti").and_then(Value::as_str).context("jti")?.to_owned())
}

/// Whether the control plane answered this Envoy on a stream that is open.
fn is_connected(proxy: &Proxy) -> Result<()> {
    let state = proxy.stat("control_plane.connected_state")?;
    if state == 1 { Ok(()) } else { bail!("connected: {state}") }
}

/// Its admin interface is its owner's, what it may use is watched, the world outside learns only
/// whether it is ready. A token that is renewed is used without a restart: the old one is revoked, and
/// Envoy gets what is new all the same, while one with the old token does not.
fn an_envoy_keeps_what_its_bootstrap_promises() -> Result<()> {
    const STREAMS: &str = "cluster.system_ads.upstream_rq_total";
    let mut lab = Lab::start(&["west"])?;
    let (renewing, plain) = (Plan::new("west", "web", 1), Plan::new("west", "web", 2));
    let token = lab.global.dataplane_token(&plain.claims())?;
    let mut proxies = Vec::new();
    for plan in [&renewing, &plain] {
        let host = lab.host("west")?;
        proxies.push(lab.launch_at(host, plan, &token)?);
    }
    let [web, other] = &proxies[..] else { bail!("two proxies") };
    for proxy in &proxies {
        proxy.wait()?;
    }

    let socket = fs::metadata(web.folder().join("envoy/envoy-admin.sock"))?;
    if socket.permissions().mode() & 0o777 != 0o600 {
        bail!("the admin socket has mode {:o}", socket.permissions().mode());
    }
    let watched = "overload.envoy.resource_monitors.fixed_heap.pressure";
    if !web.admin("/stats")?.contains(watched) {
        bail!("nobody watches the heap");
    }
    let dump = reqwest::blocking::get(format!("http://{}:9902/config_dump", web.host.address))?;
    if dump.status() != 404 {
        bail!("readiness also answers /config_dump: {}", dump.status());
    }

    let before = (web.envoy()?, web.stat(STREAMS)?);
    web.give(&lab.global.dataplane_token(&renewing.claims())?)?;
    let revoked = json!({
        "type": "Secret", "mesh": "default", "name": "dataplane-token-revocations-default",
        "data": BASE64_STANDARD.encode(id(&token)?),
    });
    lab.global.put("/meshes/default/secrets/dataplane-token-revocations-default", &revoked)?;
    wait::until("the old token counts no more", PATIENCE, || match is_connected(other) {
        Ok(()) => bail!("it is still connected"),
        Err(_) => Ok(()),
    })?;
    wait::until("another stream", PATIENCE, || {
        let streams = web.stat(STREAMS)?;
        if streams > before.1 { is_connected(web) } else { bail!("{streams} streams") }
    })?;
    web.wait()?;
    if web.envoy()? == before.0 { Ok(()) } else { bail!("Envoy was started again") }
}
