//! A global control plane, zones on subnets of their own, and workloads in network namespaces.
//!
//! Every workload is a host: its application, its sidecar and its client share nothing with others
//! but the wire, and names are resolved by the system's resolver.

use crate::{
    PATIENCE,
    control_plane::{self, ControlPlane, set},
    namespace::{Host, Network},
    peer::Client,
    process::{Process, programs, run},
    wait,
};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// The port of services.
pub const PORT: u16 = 8080;

/// The Envoy on PATH, which `make` put there.
pub fn envoy() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").context("PATH")?;
    let mut found = std::env::split_paths(&path).map(|folder| folder.join("envoy"));
    found
        .find(|file| file.is_file())
        .context("no envoy on PATH; `make e2e` and `make test` fetch it")
}

/// Everything, which ends with this value.
#[derive(Debug)]
pub struct Lab {
    /// The global control plane.
    pub global: ControlPlane,
    zones: Vec<Zone>,
    network: Network,
    folder: TempDir,
    envoy: PathBuf,
}

#[derive(Debug)]
struct Zone {
    name: &'static str,
    control_plane: ControlPlane,
    next: u8,
}

/// What its inbound speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum App {
    /// It answers with what it was sent.
    Http,
    /// It greets and echoes.
    Tcp,
}

/// A workload to start.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its zone.
    pub zone: &'static str,
    /// Its service; the label `kuma.io/workload`.
    pub workload: &'static str,
    /// The name of its Dataplane.
    pub name: String,
    /// Its application.
    pub app: App,
    /// What the program's settings have besides; see its configuration.
    pub settings: Value,
}

impl Plan {
    /// The replica `number` of `workload`, with an HTTP application.
    #[must_use]
    pub fn new(zone: &'static str, workload: &'static str, number: u8) -> Self {
        let name = format!("{workload}-{number}");
        Self { zone, workload, name, app: App::Http, settings: json!({}) }
    }

    /// The same, with a TCP application.
    #[must_use]
    pub fn tcp(self) -> Self {
        Self { app: App::Tcp, ..self }
    }
}

/// A proxy, sidecar or ingress, on a host of its own.
#[derive(Debug)]
pub struct Proxy {
    /// Where it runs.
    pub host: Host,
    /// The program that runs its Envoy; `None` once it was stopped or killed.
    pub process: Option<Process>,
    name: String,
    folder: PathBuf,
    program: &'static str,
    /// The application beside it.
    pub app: Option<Process>,
}

impl Lab {
    /// Starts a global control plane and one for each of `zones`, and waits until they are ready.
    pub fn start(zones: &[&'static str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let count = u8::try_from(zones.len())?;
        let network = Network::new(count)?;
        let at = folder.path().join("global");
        fs::create_dir_all(&at)?;
        let mut global = ControlPlane::global(&at, network.here())?;
        global.start()?;
        let mut lab = Self { global, zones: Vec::new(), network, folder, envoy: envoy()? };
        for (number, name) in (0..count).zip(zones) {
            let host = lab.network.host(number, 2)?;
            let zone = control_plane::Zone {
                name,
                address: host.address,
                namespace: Some(&host.namespace),
            };
            let folder = lab.folder.path().join(name);
            let mut control_plane = ControlPlane::zone(&folder, zone, &lab.global)?;
            control_plane.start()?;
            lab.zones.push(Zone { name, control_plane, next: 3 });
        }
        Ok(lab)
    }

    /// The control plane of a zone.
    pub fn zone(&mut self, name: &str) -> Result<&mut ControlPlane> {
        let found = self.zones.iter_mut().find(|zone| zone.name == name);
        Ok(&mut found.with_context(|| format!("zone {name}"))?.control_plane)
    }

    /// A new host of a zone, whose resolver asks the zone's control plane.
    pub fn host(&mut self, zone: &str) -> Result<Host> {
        let mut zones = (0..).zip(&mut self.zones);
        let (number, zone) =
            zones.find(|(_, it)| it.name == zone).with_context(|| format!("zone {zone}"))?;
        let host = self.network.host(number, zone.next)?;
        zone.next += 1;
        host.resolve_at(zone.control_plane.address)?;
        Ok(host)
    }

    /// Starts a workload and waits until its sidecar is ready.
    pub fn workload(&mut self, plan: &Plan) -> Result<Proxy> {
        let proxy = self.launch(plan)?;
        proxy.wait()?;
        Ok(proxy)
    }

    /// Starts a workload and does not wait.
    pub fn launch(&mut self, plan: &Plan) -> Result<Proxy> {
        let host = self.host(plan.zone)?;
        let token = self.global.dataplane_token(&json!({ "workload": plan.workload }))?;
        self.launch_at(host, plan, &token)
    }

    /// Starts a workload on a host, with a token, and does not wait.
    pub fn launch_at(&mut self, host: Host, plan: &Plan, token: &str) -> Result<Proxy> {
        let protocol = match plan.app {
            App::Http => "http",
            App::Tcp => "tcp",
        };
        let resource = json!({
            "type": "Dataplane",
            "mesh": "default",
            "name": plan.name,
            "labels": { "kuma.io/workload": plan.workload },
            "networking": {
                "address": host.address.to_string(),
                "inbound": [{
                    "name": protocol, "port": PORT, "protocol": protocol,
                    "serviceAddress": "127.0.0.1", "servicePort": 19080,
                }],
            },
        });
        let mut own = json!({ "bindVips": true, "resource": resource });
        for (key, value) in plan.settings.as_object().into_iter().flatten() {
            set(&mut own, key, value.clone());
        }
        let mut proxy = self.proxy(host, plan.zone, &plan.name, token)?;
        proxy.program = "sidecar";
        proxy.write(own)?;
        proxy.serve(protocol)?;
        proxy.start()?;
        Ok(proxy)
    }

    /// Starts a zone ingress and waits until it is ready.
    pub fn ingress(&mut self, zone: &str, name: &str) -> Result<Proxy> {
        let host = self.host(zone)?;
        let claims = json!({ "workload": "ingress", "type": "ingress" });
        let token = self.global.dataplane_token(&claims)?;
        let address = host.address.to_string();
        let resource = json!({
            "type": "Dataplane",
            "mesh": "default",
            "name": name,
            "labels": { "kuma.io/workload": "ingress" },
            "networking": {
                "address": address,
                "listeners": [
                    { "type": "ZoneIngress", "name": "ingress", "address": address, "port": 10001 },
                ],
            },
        });
        let advertised = json!({ "address": address, "port": 10001 });
        let mut proxy = self.proxy(host, zone, name, &token)?;
        proxy.program = "zone-ingress";
        proxy.write(json!({ "resource": resource, "advertised": advertised }))?;
        proxy.start()?;
        proxy.wait()?;
        Ok(proxy)
    }

    fn proxy(&mut self, host: Host, zone: &str, name: &str, token: &str) -> Result<Proxy> {
        let folder = self.folder.path().join(name);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("token"), token)?;
        let control_plane = self.zone(zone)?;
        let settings = json!({
            "zone": {
                "address": format!("https://{}:5678", control_plane.address),
                "caFile": control_plane.ca(),
            },
            "tokenFile": folder.join("token"),
            "envoy": { "path": self.envoy, "concurrency": 1, "drainTime": "2s" },
            "workdir": folder.join("envoy"),
            "readiness": { "address": format!("{}:9902", host.address) },
        });
        fs::write(folder.join("settings.json"), settings.to_string())?;
        let name = name.to_owned();
        Ok(Proxy { host, process: None, name, folder, program: "", app: None })
    }
}

impl Proxy {
    /// Adds settings to those that every proxy has.
    fn write(&self, own: Value) -> Result<()> {
        let file = self.settings();
        let mut settings: Value = serde_json::from_str(&fs::read_to_string(&file)?)?;
        if let Value::Object(own) = own {
            for (key, value) in own {
                set(&mut settings, &key, value);
            }
        }
        // Every JSON document is a YAML document.
        Ok(fs::write(file, settings.to_string())?)
    }

    fn settings(&self) -> PathBuf {
        self.folder.join("settings.json")
    }

    fn serve(&mut self, protocol: &str) -> Result<()> {
        let peer = programs()?.join("peer").display().to_string();
        let command = [&*peer, protocol, "127.0.0.1:19080", &self.name];
        let name = format!("{}-app", self.name);
        self.app = Some(Process::start(&name, &self.folder, self.namespace(), &command)?);
        Ok(())
    }

    fn namespace(&self) -> Option<&str> {
        Some(&self.host.namespace)
    }

    /// Starts its program, and with it Envoy; does not wait.
    pub fn start(&mut self) -> Result<()> {
        let program = programs()?.join(self.program).display().to_string();
        let settings = self.settings().display().to_string();
        let command = [&*program, "--config", &settings];
        let process = Process::start(&self.name, &self.folder, self.namespace(), &command)?;
        self.process = Some(process);
        Ok(())
    }

    /// Waits until it is ready.
    pub fn wait(&self) -> Result<()> {
        let url = format!("http://{}:9902/ready", self.host.address);
        wait::until(&format!("{} is ready", self.name), PATIENCE, || {
            let answer = reqwest::blocking::get(&url).and_then(|it| it.error_for_status());
            answer.map(drop).with_context(|| self.log())
        })
    }

    /// Asks it to end, and waits: Envoy drains.
    pub fn stop(&mut self) -> Result<()> {
        self.process.take().context("it does not run")?.stop(PATIENCE).map(drop)
    }

    /// The process id of its Envoy.
    pub fn envoy(&self) -> Result<u32> {
        let file = self.folder.join("envoy/envoy.pid");
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        Ok(text.trim().parse()?)
    }

    /// What the admin interface of its Envoy answers.
    pub fn admin(&self, path: &str) -> Result<String> {
        let socket = self.folder.join("envoy/envoy-admin.sock");
        let client = reqwest::blocking::Client::builder().unix_socket(socket).build()?;
        let answer = client.get(format!("http://admin{path}")).send()?;
        Ok(answer.error_for_status()?.text()?)
    }

    /// A number that its Envoy counts; 0 if it does not know it.
    pub fn stat(&self, name: &str) -> Result<u64> {
        let text = self.admin("/stats?usedonly")?;
        let mut values = text.lines().filter_map(|line| line.split_once(": "));
        let found = values.find(|(it, _)| *it == name);
        Ok(found.map(|(_, value)| value.trim().parse()).transpose()?.unwrap_or_default())
    }

    /// Ends its program at once; its Envoy stays.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("it does not run")?.kill()
    }

    /// Ends its Envoy at once; its program stays.
    pub fn kill_envoy(&self) -> Result<()> {
        run(&["kill", "-9", &self.envoy()?.to_string()]).map(drop)
    }

    /// Everything on its host ends at once.
    pub fn lose_power(&mut self) -> Result<()> {
        self.host.end();
        self.kill()
    }

    /// The end of its log.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::tail).unwrap_or_default()
    }

    /// The folder of its files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A client where its application runs.
    pub fn client(&self) -> Result<Client> {
        Client::start(self.namespace())
    }
}
