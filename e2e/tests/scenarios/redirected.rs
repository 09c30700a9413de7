//! Workloads that know nothing of their sidecars: the kernel hands their connections over.

use super::{
    Scenario,
    calls::{at, permit},
    interception::{APPLICATION, PROXY},
};
use anyhow::{Context, Result, bail};
use e2e::{
    PATIENCE,
    lab::{Lab, PORT, envoy},
    namespace::Host,
    process::{Process, programs, run},
    wait,
};
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

pub(crate) const ALL: &[Scenario] = &[(
    "a_workload_calls_and_is_called_without_knowing_its_sidecar_and_leaves_the_mesh_as_policies_say",
    a_workload_calls_and_is_called_without_knowing_its_sidecar_and_leaves_the_mesh_as_policies_say,
)];

const OUTBOUND: &str = "self_transparentproxy_passthrough_outbound_ipv4";
const INBOUND: &str = "self_transparentproxy_passthrough_inbound_ipv4";
/// A host outside of the mesh, by name.
const NAMED: &str = "outside.example";
/// Of the application, but not of the mesh.
const ASIDE: u16 = 9000;

/// A machine with an application, and a sidecar that runs as a user of its own.
struct Machine {
    host: Host,
    /// The same machine, at another address.
    v6: String,
    workdir: PathBuf,
    sidecar: Process,
    _apps: Vec<Process>,
}

impl Machine {
    /// Starts all of it, and hands connections over as `atoll` does. `outside` is the host with the
    /// name.
    fn start(lab: &mut Lab, folder: &Path, workload: &str, outside: &Host) -> Result<Self> {
        let host = lab.host("west")?;
        let namespace = &*host.namespace;
        let hosts = Path::new("/etc/netns").join(namespace).join("hosts");
        fs::write(hosts, format!("127.0.0.1 localhost\n{} {NAMED}\n", outside.address))?;
        // These addresses are bound by other tests; here they are outside, as on any machine.
        run(&["ip", "-n", namespace, "route", "delete", "local", "241.0.0.0/8", "dev", "lo"])?;
        let v6 = v6(&host)?;
        let folder = folder.join(workload);
        fs::create_dir_all(&folder)?;
        let peer = programs()?.join("peer").display().to_string();
        // At every address, as programs listen that were written without a mesh in mind.
        let apps = [(PORT, workload), (ASIDE, "aside")].map(|(port, name)| {
            let command = [&*peer, "http", &format!("[::]:{port}"), name];
            Process::start(&format!("app-{port}"), &folder, Some(namespace), &command)
        });
        let apps = apps.into_iter().collect::<Result<Vec<_>>>()?;

        let workdir = folder.join("envoy");
        let settings = settings(lab, &folder, workload, &host, &workdir)?;
        let program = programs()?.join("sidecar").display().to_string();
        let user = format!("--reuid={PROXY}");
        let settings = settings.display().to_string();
        let command = ["setpriv", &user, "--clear-groups", &program, "--config", &settings];
        let sidecar = Process::start("sidecar", &folder, Some(namespace), &command)?;
        let atoll = programs()?.join("atoll").display().to_string();
        // The machine's resolver asks the zone.
        let install = [&*atoll, "install", "transparent-proxy", "--no-redirect-dns"];
        let by = ["--proxy-user", &PROXY.to_string()];
        run(&[&["ip", "netns", "exec", namespace], &install[..], &by].concat())?;
        Ok(Self { v6, workdir, sidecar, _apps: apps, host })
    }

    /// Calls a URL as the application would: the body of the answer.
    fn curl(&self, words: &[&str]) -> Result<String> {
        let user = format!("--reuid={APPLICATION}");
        let as_user = ["setpriv", &user, "--clear-groups"];
        curl(&self.host, &[&as_user[..], &["curl"], words].concat())
    }

    /// A number that its Envoy counts; 0 if it does not know it.
    fn stat(&self, name: &str) -> Result<u64> {
        let socket = self.workdir.join("envoy-admin.sock").display().to_string();
        let url = "http://envoy/stats?usedonly";
        let text = run(&["curl", "-sS", "--unix-socket", &socket, url])?;
        let mut values = text.lines().filter_map(|line| line.split_once(": "));
        let found = values.find(|(it, _)| *it == name);
        Ok(found.map(|(_, value)| value.trim().parse()).transpose()?.unwrap_or_default())
    }
}

/// Gives a host an address of IPv6.
fn v6(host: &Host) -> Result<String> {
    let [.., last] = host.address.octets();
    let v6 = format!("fd00:a8::{last}");
    let (add, dev) = (format!("{v6}/64"), ["dev", "eth0", "nodad"]);
    run(&[&["ip", "-n", &host.namespace, "-6", "address", "add", &add], &dev[..]].concat())?;
    Ok(v6)
}

/// Runs `words`, which call `curl`, on a host.
fn curl(host: &Host, words: &[&str]) -> Result<String> {
    let inside = ["ip", "netns", "exec", &*host.namespace];
    run(&[&inside[..], words, &["-sS", "--fail-with-body", "-m", "10"]].concat())
}

/// Writes what the sidecar of a workload needs, where its user can read it.
fn settings(
    lab: &mut Lab,
    folder: &Path,
    workload: &str,
    host: &Host,
    workdir: &Path,
) -> Result<PathBuf> {
    let token = lab.global.dataplane_token(&json!({ "mesh": "default", "workload": workload }))?;
    let control_plane = lab.zone("west")?;
    let (token_file, ca_file) = (folder.join("token"), folder.join("ca.pem"));
    fs::write(&token_file, token)?;
    fs::copy(control_plane.ca(), &ca_file)?;
    let settings = json!({
        "zone": {
            "address": format!("https://{}:5678", control_plane.address),
            "caFile": ca_file,
        },
        "tokenFile": token_file,
        "resource": {
            "type": "Dataplane", "mesh": "default", "name": format!("{workload}-1"),
            "labels": { "kuma.io/workload": workload },
            "networking": {
                "address": host.address.to_string(),
                "inbound": [{ "name": "http", "port": PORT, "protocol": "http" }],
                "transparentProxying": {
                    "redirectPortOutbound": 15001, "redirectPortInbound": 15006,
                },
            },
        },
        "envoy": { "path": envoy()?, "concurrency": 1, "drainTime": "1s" },
        "workdir": workdir,
        "readiness": { "address": format!("{}:9902", host.address) },
    });
    let file = folder.join("settings.json");
    fs::write(&file, settings.to_string())?;
    for path in [folder, &token_file, &ca_file, &file] {
        chown(path, Some(PROXY), None)?;
    }
    Ok(file)
}

/// Writes what applications may reach outside the mesh.
fn passthrough(lab: &Lab, conf: Value) -> Result<()> {
    let policy = json!({
        "type": "MeshPassthrough", "mesh": "default", "name": "outside",
        "spec": { "targetRef": { "kind": "Mesh" }, "default": conf },
    });
    lab.global.put("/meshes/default/meshpassthroughs/outside", &policy)
}

/// Waits until a call is answered by `name`, and returns the answer.
fn answered(what: &str, name: &str, call: impl Fn() -> Result<String>) -> Result<Value> {
    wait::until(&format!("{what} is answered by {name}"), PATIENCE, || {
        let body: Value = serde_json::from_str(&call()?)?;
        if body.get("name") == Some(&name.into()) { Ok(body) } else { bail!("{body}") }
    })
}

/// Waits until a call is not answered any more.
fn refused(what: &str, call: impl Fn() -> Result<String>) -> Result<()> {
    wait::until(&format!("{what} is refused"), PATIENCE, || match call() {
        Ok(body) => bail!("{body}"),
        // No answer at all: neither HTTP nor TLS.
        Err(error) if format!("{error:#}").contains("(28)") => Err(error),
        Err(_) => Ok(()),
    })
}

/// By its name and virtual address, through both sidecars with the identities of both ends; what is
/// of the mesh cannot be reached past its sidecar; what is not can, both ways, as long as policies
/// let it.
fn a_workload_calls_and_is_called_without_knowing_its_sidecar_and_leaves_the_mesh_as_policies_say()
-> Result<()> {
    let mut lab = Lab::start(&["west"])?;
    let folder = tempfile::tempdir()?;
    // The sidecars run as somebody else.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let outside = lab.host("west")?;
    let peer = programs()?.join("peer").display().to_string();
    let mut servers = Vec::new();
    for port in [80, 8443] {
        let command = [&*peer, "http", &format!("{}:{port}", outside.address), "outside"];
        let name = format!("outside-{port}");
        servers.push(Process::start(&name, folder.path(), Some(&outside.namespace), &command)?);
    }
    v6(&outside)?;
    let web = Machine::start(&mut lab, folder.path(), "web", &outside)?;
    let mut cart = Machine::start(&mut lab, folder.path(), "cart", &outside)?;

    // Inbound, what is not of the mesh: readiness, and another port, at both addresses.
    let ready = format!("http://{}:9902/ready", cart.host.address);
    wait::until("cart is ready", PATIENCE, || {
        cart.sidecar.check()?;
        curl(&outside, &["curl", &ready]).with_context(|| cart.sidecar.tail())
    })?;
    let cart_v4 = cart.host.address;
    for at in [format!("http://{cart_v4}:{ASIDE}/"), format!("http://[{}]:{ASIDE}/", cart.v6)] {
        answered(&at, "aside", || curl(&outside, &["curl", &at]))?;
    }

    // Through both sidecars.
    permit(&lab, "cart", "allow", "web")?;
    let by_name = format!("http://{}/", at("cart", "west"));
    let body = answered(&by_name, "cart", || web.curl(&[&by_name]))?;
    let seen = body.pointer("/headers/x-forwarded-client-cert").and_then(Value::as_str);
    let seen = seen.context("the application was not told who calls")?;
    if !seen.contains("URI=spiffe://default.west.mesh.local/workload/web") {
        bail!("{seen}");
    }
    // Past the sidecar: without TLS, and at an address that no inbound has.
    for at in [format!("http://{cart_v4}:{PORT}/"), format!("http://[{}]:{PORT}/", cart.v6)] {
        refused(&at, || curl(&outside, &["curl", &at]))?;
    }
    if cart.stat(&format!("tcp.{INBOUND}.downstream_cx_total"))? == 0 {
        bail!("what was not of the mesh did not go through the sidecar");
    }

    leave(&lab, &web, &outside)?;
    // Nothing of this concerned the mesh.
    answered(&by_name, "cart", || web.curl(&[&by_name]))?;
    Ok(())
}

/// Everything, nothing, and places.
fn leave(lab: &Lab, web: &Machine, outside: &Host) -> Result<()> {
    let [http, other] = [80, 8443].map(|port| format!("http://{}:{port}/", outside.address));
    let named = format!("http://{NAMED}/");
    for at in [&http, &other, &named] {
        answered(at, "outside", || web.curl(&[at]))?;
    }
    let passed = web.stat(&format!("cluster.{OUTBOUND}.upstream_cx_total"))?;
    if passed < 3 {
        bail!("{passed} connections went out through the sidecar");
    }

    passthrough(lab, json!({ "passthroughMode": "None" }))?;
    refused(&http, || web.curl(&[&http]))?;
    if web.stat(&format!("tcp.{OUTBOUND}.downstream_cx_no_route"))? == 0 {
        bail!("what was refused is not counted");
    }

    let place = json!({ "type": "IP", "value": outside.address.to_string(), "port": 8443 });
    let host = json!({ "type": "Domain", "value": NAMED, "port": 80, "protocol": "http" });
    passthrough(lab, json!({ "passthroughMode": "Matched", "appendMatch": [place, host] }))?;
    answered(&other, "outside", || web.curl(&[&other]))?;
    answered(&named, "outside", || web.curl(&[&named]))?;
    // The address is the same, but the request does not name the host.
    match web.curl(&[&http]) {
        Err(error) if format!("{error:#}").contains("503") => {}
        other => bail!("a host that no place names: {other:?}"),
    }
    lab.global.delete("/meshes/default/meshpassthroughs/outside")?;
    answered(&http, "outside", || web.curl(&[&http])).map(drop)
}
