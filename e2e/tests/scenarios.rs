//! End-to-end scenarios: real programs, real Envoys.

use anyhow::{Context, Result, bail};
use e2e::{
    process::{Process, programs},
    wait,
};
use libtest_mimic::{Arguments, Failed, Trial};
use reqwest::blocking::Client;
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    // Set already when several clients are made.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let mut arguments = Arguments::from_args();
    // They share the machine's ports.
    arguments.test_threads = Some(1);
    let trial = |name: &str, run: fn() -> Result<()>| {
        Trial::test(name, move || run().map_err(|error| Failed::from(format!("{error:?}"))))
    };
    let trials = vec![
        trial("the_demo_does_what_it_shows", the_demo_does_what_it_shows),
        trial("what_was_acknowledged_survives_kill_9", what_was_acknowledged_survives_kill_9),
        trial("what_cannot_start_says_why", what_cannot_start_says_why),
        trial("nobody_is_anonymous", nobody_is_anonymous),
        trial("a_zone_starts_while_global_is_away", a_zone_starts_while_global_is_away),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The Envoy on PATH, which `make` put there.
fn envoy() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").context("PATH")?;
    let found = std::env::split_paths(&path).map(|folder| folder.join("envoy"));
    found
        .into_iter()
        .find(|file| file.is_file())
        .context("no envoy on PATH; `make e2e` and `make test` fetch it")
}

/// Two zones, real Envoys: the cross-zone call, permissions by change on an open connection, global
/// away and back. The demo fails where a step does not do what it shows.
#[expect(clippy::print_stdout, reason = "the steps are the report")]
fn the_demo_does_what_it_shows() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let demo = Command::new(programs()?.join("atoll"))
        .args(["demo", "--check", "--envoy-path"])
        .arg(envoy()?)
        .arg("--dir")
        .arg(folder.path().join("demo"))
        .output()?;
    let said = String::from_utf8_lossy(&demo.stdout);
    println!("{said}");
    if !demo.status.success() {
        bail!("{said}\n{}", String::from_utf8_lossy(&demo.stderr));
    }
    Ok(())
}

/// A global control plane on an address of its own.
struct Global {
    folder: PathBuf,
    address: &'static str,
    process: Process,
    client: Client,
}

impl Global {
    fn settings(folder: &Path, address: &str) -> Result<PathBuf> {
        let at = |port: u16| format!("{address}:{port}");
        let settings = json!({
            "dataDir": folder.join("data"),
            "tls": { "names": [address] },
            "api": {
                "http": { "address": at(5681) },
                "https": { "address": at(5682) },
                "hosts": [address],
            },
            "kds": { "listen": at(5685) },
            "admin": { "listen": at(5680) },
        });
        let file = folder.join("global.yaml");
        fs::write(&file, serde_saphyr::to_string(&settings)?)?;
        Ok(file)
    }

    fn launch(folder: &Path, address: &str) -> Result<Process> {
        let file = Self::settings(folder, address)?.display().to_string();
        let program = programs()?.join("global-cp").display().to_string();
        Process::start("global", folder, None, &[&program, "--config", &file])
    }

    fn start(folder: &Path, address: &'static str) -> Result<Self> {
        let process = Self::launch(folder, address)?;
        let client = Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
        let mut global = Self { folder: folder.to_owned(), address, process, client };
        global.wait()?;
        Ok(global)
    }

    fn wait(&mut self) -> Result<()> {
        let url = format!("http://{}:5680/ready", self.address);
        wait::until("global is ready", PATIENCE, || {
            self.process.check()?;
            Ok(self.client.get(&url).send()?.error_for_status().map(drop)?)
        })
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}:5681{path}", self.address)
    }

    fn token(&self) -> Result<String> {
        Ok(fs::read_to_string(self.folder.join("data/admin-token"))?.trim().to_owned())
    }
}

fn timeout(name: &str) -> serde_json::Value {
    json!({
        "type": "MeshTimeout", "mesh": "default", "name": name,
        "spec": { "to": [{
            "targetRef": { "kind": "Mesh" },
            "default": { "connectionTimeout": "1s" },
        }] },
    })
}

/// Every write that was answered is there after the process was killed in the middle of others.
fn what_was_acknowledged_survives_kill_9() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut global = Global::start(folder.path(), "127.77.0.1")?;
    let token = global.token()?;
    let (client, url) = (global.client.clone(), global.url("/meshes/default/meshtimeouts"));
    let writer = {
        let (url, token) = (url.clone(), token.clone());
        std::thread::spawn(move || {
            let mut acknowledged = Vec::new();
            for n in 0.. {
                let name = format!("t-{n}");
                let put =
                    client.put(format!("{url}/{name}")).bearer_auth(&token).json(&timeout(&name));
                match put.send() {
                    Ok(answer) if answer.status().is_success() => acknowledged.push(name),
                    Ok(answer) => return Err(anyhow::anyhow!("{}", answer.status())),
                    // Killed.
                    Err(_) => break,
                }
            }
            Ok(acknowledged)
        })
    };
    let written = || global.client.get(format!("{url}?size=1")).bearer_auth(&token).send();
    wait::until("some writes", PATIENCE, || {
        let list: serde_json::Value = written()?.json()?;
        let total = list.get("total").and_then(serde_json::Value::as_u64);
        if total > Some(100) { Ok(()) } else { bail!("{total:?} written") }
    })?;
    let Global { process, .. } = global;
    process.kill()?;
    let Ok(acknowledged) = writer.join() else { bail!("the writer panicked") };
    let acknowledged = acknowledged?;
    global = Global::start(folder.path(), "127.77.0.1")?;
    for name in &acknowledged {
        let get = global.client.get(format!("{url}/{name}")).bearer_auth(&token).send()?;
        get.error_for_status().with_context(|| format!("{name} was acknowledged"))?;
    }
    if acknowledged.len() < 50 {
        bail!("only {} writes were acknowledged", acknowledged.len());
    }
    Ok(())
}

/// What is wrong is named, the exit code is 1, and nothing is changed.
fn what_cannot_start_says_why() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let taken = std::net::TcpListener::bind("127.77.0.2:5681")?;
    let mut process = Global::launch(folder.path(), "127.77.0.2")?;
    let status = process.ended(PATIENCE)?;
    if status.code() != Some(1) || !process.said("api.http.address") {
        bail!("{status}: {}", process.tail());
    }
    drop(taken);
    // A file where the folder should be.
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("data"), "mine")?;
    let mut process = Global::launch(folder.path(), "127.77.0.2")?;
    let status = process.ended(PATIENCE)?;
    if status.code() != Some(1) || !process.said("dataDir") {
        bail!("{status}: {}", process.tail());
    }
    if fs::read_to_string(folder.path().join("data"))? != "mine" {
        bail!("the file was changed");
    }
    Ok(())
}

/// Without a token there is nothing but `/` and readiness.
fn nobody_is_anonymous() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let global = Global::start(folder.path(), "127.77.0.3")?;
    let status = |path: &str, token: Option<&str>| {
        let mut request = global.client.get(global.url(path));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        anyhow::Ok(request.send()?.status().as_u16())
    };
    let token = global.token()?;
    let seen = [
        status("/", None)?,
        status("/meshes", None)?,
        status("/meshes", Some("x.y.z"))?,
        status("/meshes", Some(&token))?,
    ];
    if seen != [200, 401, 401, 200] {
        bail!("{seen:?}");
    }
    Ok(())
}

/// The control plane of zone `east`, of the global in the same folder.
struct East {
    folder: PathBuf,
    address: &'static str,
    process: Process,
    client: Client,
}

impl East {
    fn start(global: &Path, (global_address, address): (&str, &'static str)) -> Result<Self> {
        let folder = global.join("east");
        fs::create_dir_all(&folder)?;
        let at = |port: u16| format!("{address}:{port}");
        let settings = json!({
            "zone": { "name": "east" },
            "global": {
                "address": format!("https://{global_address}:5685"),
                "caFile": global.join("data/tls/ca.crt"),
                "tokenFile": global.join("east.token"),
            },
            "dataDir": folder.join("data"),
            "tls": { "names": [address] },
            "api": {
                "http": { "address": at(5681) },
                "https": { "address": at(5682) },
                "hosts": [address],
            },
            "proxies": { "listen": at(5678) },
            "dns": { "listen": at(5653) },
            "admin": { "listen": at(5680) },
        });
        let file = folder.join("zone.yaml");
        fs::write(&file, serde_saphyr::to_string(&settings)?)?;
        let program = programs()?.join("zone-cp").display().to_string();
        let command = [&program, "--config", &file.display().to_string()];
        let process = Process::start("east", &folder, None, &command)?;
        let client = Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
        let mut east = Self { folder, address, process, client };
        let url = format!("http://{address}:5680/ready");
        wait::until("the zone is ready", PATIENCE, || {
            east.process.check()?;
            let answer = east.client.get(&url).send()?;
            let status = answer.status();
            if status.is_success() {
                Ok(())
            } else {
                bail!("{status}: {}{}", answer.text()?, east.process.tail())
            }
        })?;
        Ok(east)
    }

    /// Waits until it has a MeshTimeout that global calls `name`.
    fn wait_for(&self, name: &str) -> Result<()> {
        let token = fs::read_to_string(self.folder.join("data/admin-token"))?;
        let url = format!("http://{}:5681/meshes/default/meshtimeouts", self.address);
        wait::until(name, PATIENCE, || {
            let answer = self.client.get(&url).bearer_auth(token.trim()).send()?;
            let list: serde_json::Value = answer.error_for_status()?.json()?;
            let items = list.get("items").and_then(serde_json::Value::as_array).context("items")?;
            let wanted = json!({ "kuma.io/display-name": name, "kuma.io/origin": "global" });
            let found = items.iter().filter_map(|item| item.get("labels")).any(|labels| {
                ["kuma.io/display-name", "kuma.io/origin"]
                    .iter()
                    .all(|label| labels.get(label) == wanted.get(label))
            });
            if found { Ok(()) } else { bail!("not among {list}") }
        })
    }
}

fn put_timeout(global: &Global, name: &str) -> Result<()> {
    let put = global.client.put(global.url(&format!("/meshes/default/meshtimeouts/{name}")));
    put.bearer_auth(global.token()?).json(&timeout(name)).send()?.error_for_status()?;
    Ok(())
}

/// A zone that was complete once starts, ready for proxies and names, while global is away; what
/// changes on global arrives when that is back.
fn a_zone_starts_while_global_is_away() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    let addresses = ("127.77.0.4", "127.77.0.5");
    let global = Global::start(folder, addresses.0)?;
    let asked = global.client.post(global.url("/tokens/zone")).bearer_auth(global.token()?);
    let asked = asked.json(&json!({ "zone": "east", "scope": ["cp"], "validFor": "24h" }));
    fs::write(folder.join("east.token"), asked.send()?.error_for_status()?.text()?)?;
    let east = East::start(folder, addresses)?;
    for name in ["first", "before"] {
        put_timeout(&global, name)?;
        east.wait_for(name)?;
    }

    global.process.stop(PATIENCE)?;
    east.process.stop(PATIENCE)?;
    let east = East::start(folder, addresses)?;
    east.wait_for("before")?;

    let global = Global::start(folder, addresses.0)?;
    put_timeout(&global, "after")?;
    east.wait_for("after")
}
