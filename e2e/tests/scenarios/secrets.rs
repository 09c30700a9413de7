//! What is secret is told to nobody who did not ask for it by name.

use super::{Scenario, note};
use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use e2e::{
    PATIENCE,
    control_plane::ControlPlane,
    lab::{Lab, Plan},
    process::programs,
    wait,
};
use reqwest::{Method, blocking::Client};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs, process::Command};

pub(crate) const ALL: &[Scenario] =
    &[("secrets_are_in_no_log_list_dump_or_error", secrets_are_in_no_log_list_dump_or_error)];

const PLANTED: &str = "pl4nted-s3cret-of-a-user";

/// Texts that nobody may be told, and what they are.
#[derive(Default)]
struct Secrets(BTreeMap<String, String>);

impl Secrets {
    fn add(&mut self, what: &str, text: &str) {
        self.0.insert(text.trim().to_owned(), what.to_owned());
    }

    /// A token, of which the signature alone is as good: the rest can be read from its holder.
    fn token(&mut self, what: &str, token: &str) {
        self.add(what, token);
        if let Some((_, signature)) = token.trim().rsplit_once('.') {
            self.add(what, signature);
        }
    }

    /// A private key as PEM: the longest of its lines.
    fn key(&mut self, what: &str, pem: &str) {
        let line = pem.lines().filter(|line| !line.starts_with('-')).max_by_key(|line| line.len());
        line.into_iter().for_each(|line| self.add(what, line));
    }

    /// What a control plane keeps secret for its administrators, and shows to them one by one.
    fn stored(&mut self, of: &ControlPlane) -> Result<()> {
        for list in ["/globalsecrets?size=1000", "/secrets?size=1000"] {
            let list = of.get(list)?;
            for item in list.get("items").and_then(Value::as_array).context("items")? {
                let name = item.get("name").and_then(Value::as_str).context("name")?;
                let path = match item.get("mesh").and_then(Value::as_str) {
                    Some(mesh) => format!("/meshes/{mesh}/secrets/{name}"),
                    None => format!("/globalsecrets/{name}"),
                };
                let one = of.get(&path)?;
                let data = one.get("data").and_then(Value::as_str).context(path)?;
                // The half of a key that is public, and lists of IDs, are no secret.
                let text = String::from_utf8_lossy(&STANDARD.decode(data)?).into_owned();
                if text.contains("PRIVATE KEY") {
                    self.key(name, &text);
                    let middle = data.get(data.len() / 2..data.len() / 2 + 60);
                    self.add(name, middle.context("a key is long")?);
                }
            }
        }
        for file in ["tls/ca.key", "tls/server.key"] {
            let file = of.folder.join("data").join(file);
            self.key(&file.display().to_string(), &fs::read_to_string(&file)?);
        }
        self.token("administrator's token", &of.token()?);
        Ok(())
    }

    /// Fails if `text`, which was said at `place`, has one of them.
    fn check(&self, place: &str, text: &str) -> Result<()> {
        ensure!(!text.trim().is_empty(), "{place} says nothing");
        for (secret, what) in &self.0 {
            if let Some(line) = text.lines().position(|line| line.contains(&**secret)) {
                bail!("{place} shows {what} in line {}", line + 1);
            }
        }
        // "PRIVATE KEY" in base64, at any offset.
        for key in ["PRIVATE KEY", "UFJJVkFURSBLRV", "BSSVZBVEUgS0VZ", "QUklWQVRFIEtFW"] {
            ensure!(!text.contains(key), "{place} shows a private key");
        }
        Ok(())
    }
}

/// Everything that can be read of a control plane, but for secrets by their names.
fn readable(control_plane: &ControlPlane) -> Result<Vec<String>> {
    let resources = control_plane.get("/_resources")?;
    let kinds = resources.get("resources").and_then(Value::as_array).context("resources")?;
    let mut paths: Vec<String> =
        ["/", "/config", "/who-am-i", "/global-insight", "/_resources", "/zones/_overview"]
            .into_iter()
            .chain(["/dataplanes/_overview", "/policies"])
            .map(str::to_owned)
            .collect();
    for kind in kinds {
        let path = kind.get("path").and_then(Value::as_str).context("path")?;
        if path.is_empty() {
            continue;
        }
        paths.push(format!("/{path}?size=1000"));
        if kind.get("scope").and_then(Value::as_str) == Some("Mesh") {
            paths.push(format!("/meshes/default/{path}?size=1000&format=k8s"));
        }
    }
    Ok(paths)
}

/// Requests that are refused, with a secret where it should not be.
fn mistakes(control_plane: &ControlPlane, secrets: &Secrets, user: &str) -> Result<()> {
    let client = Client::builder().no_proxy().build()?;
    let admin = control_plane.token()?;
    let bad_signature = format!("{}AAAA", admin.get(..admin.len() - 4).context("a token")?);
    let encoded = STANDARD.encode(PLANTED);
    let path = "/meshes/default/secrets/bad";
    let secret =
        |data: Value| json!({"type": "Secret", "mesh": "default", "name": "bad", "data": data});
    let half = format!(r#"{{"type": "Secret", "name": "bad", "data": "{PLANTED}"#);
    for (token, method, path, body) in [
        (&*admin, Method::PUT, path, secret(json!([PLANTED])).to_string()),
        (&*admin, Method::PUT, path, secret(json!({ "inline": PLANTED })).to_string()),
        (&*admin, Method::PUT, path, secret(json!(format!("!{PLANTED}"))).to_string()),
        (&*admin, Method::PUT, path, half),
        (&*admin, Method::PUT, path, PLANTED.to_owned()),
        (&*admin, Method::PUT, "/globalsecrets/bad", secret(json!(encoded)).to_string()),
        (user, Method::PUT, path, secret(json!(encoded)).to_string()),
        (user, Method::GET, "/meshes/default/secrets/planted", String::new()),
        (user, Method::GET, "/config", String::new()),
        (&*bad_signature, Method::GET, "/meshes", String::new()),
        (PLANTED, Method::GET, "/meshes", String::new()),
    ] {
        let request = client.request(method.clone(), control_plane.url(path));
        let request = request.bearer_auth(token).header("content-type", "application/json");
        let answer = request.body(body).send()?;
        let (status, text) = (answer.status(), answer.text()?);
        ensure!(status.is_client_error(), "{method} {path}: {status}");
        secrets.check(&format!("{method} {path}, {status}"), &text)?;
    }
    Ok(())
}

/// What a program prints of its settings.
fn printed(program: &str, control_plane: &ControlPlane) -> Result<String> {
    let settings = control_plane.folder.join("settings.yaml");
    let printed = Command::new(programs()?.join(program))
        .arg("--print")
        .arg("--config")
        .arg(settings)
        .output()?;
    ensure!(printed.status.success(), "{program} --print: {printed:?}");
    Ok(format!(
        "{}{}",
        String::from_utf8_lossy(&printed.stdout),
        String::from_utf8_lossy(&printed.stderr)
    ))
}

/// Global, a zone and a proxy say all they can, also about requests that make no sense, and none of
/// it has a token, a key or a Secret's content.
fn secrets_are_in_no_log_list_dump_or_error() -> Result<()> {
    let mut lab = Lab::start(&["east"])?;
    lab.global.configure("log", json!({ "level": "trace" }))?;
    lab.global.stop()?;
    lab.global.start()?;
    let east = lab.zone("east")?;
    east.configure("log", json!({ "level": "trace" }))?;
    east.stop()?;
    east.start()?;

    let mut secrets = Secrets::default();
    secrets.add("a user's Secret", PLANTED);
    secrets.add("a user's Secret", &STANDARD.encode(PLANTED));
    let data = STANDARD.encode(PLANTED);
    let body = json!({"type": "Secret", "mesh": "default", "name": "planted", "data": data});
    lab.global.put("/meshes/default/secrets/planted", &body)?;
    let body = json!({"type": "GlobalSecret", "name": "planted", "data": data});
    lab.global.put("/globalsecrets/planted", &body)?;

    let loud = json!({ "log": { "level": "trace" } });
    let web = lab.workload(&Plan { settings: loud, ..Plan::new("east", "web", 1) })?;
    secrets.token("a dataplane token", &fs::read_to_string(web.folder().join("token"))?);
    let east = lab.zone("east")?;
    let zone_token = fs::read_to_string(east.folder.join("token"))?;
    secrets.token("the zone's token", &zone_token);
    wait::until("the zone has the secret", PATIENCE, || {
        east.get("/meshes/default/secrets/planted")?;
        east.get("/globalsecrets/planted").map(drop)
    })?;
    secrets.stored(east)?;
    secrets.stored(&lab.global)?;
    let user = lab.global.user_token("ann", &["mesh:default:writer"])?;
    secrets.token("a user's token", &user);
    note(&format!("{} secrets", secrets.0.len()));

    let on_global = format!("/meshes/default/dataplanes/{}", name_of(&lab.global, "web-1")?);
    for (who, program, dataplane) in [
        ("global", "global-cp", on_global),
        ("east", "zone-cp", "/meshes/default/dataplanes/web-1".into()),
    ] {
        let control_plane = if who == "global" { &lab.global } else { &*lab.zone("east")? };
        let mut paths = readable(control_plane)?;
        for what in ["xds?include_eds=true", "stats?usedonly=false", "clusters", "_overview"] {
            paths.push(format!("{dataplane}/{what}"));
        }
        paths.push(format!("{dataplane}/clusters?format=json"));
        let asked = paths.len();
        for path in paths {
            let (status, text) = control_plane.answer(&path)?;
            ensure!(status.is_success(), "{who} {path}: {status}: {text}");
            secrets.check(&format!("{who} {path}"), &text)?;
        }
        for path in ["/meshes/default/secrets/planted", "/globalsecrets/planted"] {
            let (_, text) = control_plane.answer(&format!("{path}/_propagation"))?;
            secrets.check(&format!("{who} {path}/_propagation"), &text)?;
        }
        note(&format!("{asked} answers of {who}"));
        mistakes(control_plane, &secrets, &user)?;
        for path in ["ready", "metrics", "live"] {
            let url = format!("http://{}:5680/{path}", control_plane.address);
            secrets.check(&format!("{who} {path}"), &reqwest::blocking::get(url)?.text()?)?;
        }
        secrets.check(&format!("{program} --print"), &printed(program, control_plane)?)?;
    }
    // A zone that is refused says why, and so does global.
    let east = lab.zone("east")?;
    fs::write(east.folder.join("token"), format!("{}AAAA", zone_token.trim()))?;
    east.stop()?;
    let process = east.launch()?;
    wait::until("the zone is refused", PATIENCE, || {
        if process.said("Unauthenticated") { Ok(()) } else { bail!("{}", process.tail()) }
    })?;
    let logs = [process.log.clone(), lab.global.process()?.log.clone()];
    let proxy = web.process.as_ref().context("it runs")?.log.clone();
    for log in logs.iter().chain([&proxy]) {
        let text = fs::read_to_string(log)?;
        ensure!(text.contains("TRACE"), "{} is not at trace", log.display());
        note(&format!("{}: {} lines", log.display(), text.lines().count()));
        secrets.check(&log.display().to_string(), &text)?;
    }
    Ok(())
}

/// What a Dataplane of a zone is called on global.
fn name_of(global: &ControlPlane, name: &str) -> Result<String> {
    wait::until(&format!("{name} is known"), PATIENCE, || {
        let filter = format!("filter[labels.kuma.io/display-name]={name}");
        let list = global.get(&format!("/meshes/default/dataplanes?{filter}"))?;
        let name = list.pointer("/items/0/name").and_then(Value::as_str);
        Ok(name.context("not known")?.to_owned())
    })
}
