//! A global control plane, zones on subnets of their own, and workloads in network namespaces.
//!
//! Every workload is a host: its application, its sidecar and its client share nothing with others
//! but the wire, and names are resolved by the system's resolver.

mod machine;
mod plan;

pub use self::{
    machine::{APPLICATION, Inbound, MachinePlan, SIDECAR},
    plan::{App, Plan},
};
use crate::{
    PATIENCE,
    cluster::{self, Cluster, Images},
    control_plane::{self, ControlPlane, set},
    namespace::{Host, Network},
    peer::Client,
    process::{Process, as_user, programs, run},
    wait,
};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// The port of services.
pub const PORT: u16 = 8080;

/// The port of ingresses, the only one of a zone that others reach.
pub const INGRESS: u16 = 10001;

/// Where the first proxy of a host says whether it is ready.
const READINESS: u16 = 9902;

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
    /// Unless it is in a cluster.
    control_plane: Option<ControlPlane>,
    next: u8,
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
    /// The user that its program runs as; unset: that of the test.
    user: Option<u32>,
    readiness: u16,
    /// The application beside it.
    pub app: Option<Process>,
}

/// A process that was stopped, and goes on when this value goes.
#[derive(Debug)]
pub struct Frozen(String);

impl Drop for Frozen {
    fn drop(&mut self) {
        // It may have been ended.
        run(&["kill", "-CONT", &self.0]).ok();
    }
}

impl Lab {
    /// Starts a global control plane and one for each of `zones`, and waits until they are ready.
    pub fn start(zones: &[&'static str]) -> Result<Self> {
        let network = Network::new()?;
        let folder = network.folder()?;
        let at = folder.path().join("global");
        fs::create_dir_all(&at)?;
        let mut global = ControlPlane::global(&at, network.here())?;
        global.start()?;
        let mut lab = Self { global, zones: Vec::new(), network, folder, envoy: envoy()? };
        for name in zones {
            lab.join(name)?;
        }
        Ok(lab)
    }

    /// Starts the control plane of one more zone, and waits until it is ready.
    pub fn join(&mut self, name: &'static str) -> Result<()> {
        let number = u8::try_from(self.zones.len())?;
        self.network.subnet(number)?;
        let host = self.network.host(number, 2)?;
        self.network.open_to_global(host.address)?;
        let zone =
            control_plane::Zone { name, address: host.address, namespace: Some(&host.namespace) };
        let folder = self.folder.path().join(name);
        let mut control_plane = ControlPlane::zone(&folder, zone, &self.global)?;
        control_plane.start()?;
        self.zones.push(Zone { name, control_plane: Some(control_plane), next: 3 });
        Ok(())
    }

    /// Starts the clusters that are to become these zones, with nothing of ours in them.
    pub fn clusters(&mut self, names: &[&'static str], images: &Images) -> Result<Vec<Cluster>> {
        let numbers = self.zones.len()..;
        let mut starts = Vec::new();
        for (&name, number) in names.iter().zip(numbers) {
            let number = u8::try_from(number)?;
            self.network.subnet(number)?;
            self.zones.push(Zone { name, control_plane: None, next: cluster::HOST + 1 });
            starts.push((number, self.folder.path().join(name)));
        }
        let clusters = cluster::start_all(&self.network, &starts, images)?;
        for cluster in &clusters {
            self.network.open_to_global(cluster.host.address)?;
        }
        Ok(clusters)
    }

    /// Lets other zones reach the ingress of a cluster.
    pub fn open(&self, cluster: &Cluster) -> Result<()> {
        self.network.open(cluster.host.address, INGRESS)
    }

    /// The folder of its files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What joins the zones.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The control plane of a zone.
    pub fn zone(&mut self, name: &str) -> Result<&mut ControlPlane> {
        let found = self.zones.iter_mut().find(|zone| zone.name == name);
        let zone = found.with_context(|| format!("zone {name}"))?;
        zone.control_plane.as_mut().with_context(|| format!("zone {name} is a cluster"))
    }

    /// A new host of a zone, whose resolver asks the zone's control plane, and which can bind the
    /// virtual addresses.
    pub fn host(&mut self, zone: &str) -> Result<Host> {
        let host = self.plain_host(zone)?;
        host.take_vips()?;
        Ok(host)
    }

    fn plain_host(&mut self, zone: &str) -> Result<Host> {
        let mut zones = (0..).zip(&mut self.zones);
        let (number, zone) =
            zones.find(|(_, it)| it.name == zone).with_context(|| format!("zone {zone}"))?;
        let host = self.network.host(number, zone.next)?;
        zone.next += 1;
        if let Some(control_plane) = &zone.control_plane {
            host.resolve_at(control_plane.address)?;
        }
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
        let token = self.global.dataplane_token(&plan.claims())?;
        self.launch_at(host, plan, &token)
    }

    /// Starts a workload on a host, with a token, and does not wait.
    pub fn launch_at(&mut self, host: Host, plan: &Plan, token: &str) -> Result<Proxy> {
        let protocol = match plan.app {
            App::Http => "http",
            App::Tcp => "tcp",
        };
        let mut labels = json!({ "kuma.io/workload": plan.workload });
        for (key, value) in plan.labels {
            set(&mut labels, key, (*value).into());
        }
        let resource = json!({
            "type": "Dataplane",
            "mesh": plan.mesh,
            "name": plan.name,
            "labels": labels,
            "networking": {
                "address": host.address.to_string(),
                "inbound": [{
                    "name": protocol, "port": plan.port, "protocol": protocol,
                    "serviceAddress": "127.0.0.1", "servicePort": plan.port + 11_000,
                }],
            },
        });
        let mut own = json!({ "bindVips": true, "resource": resource });
        for (key, value) in plan.settings.as_object().into_iter().flatten() {
            set(&mut own, key, value.clone());
        }
        let mut proxy = self.proxy(host, plan.zone, plan.mesh, &plan.name, token)?;
        proxy.program = "sidecar";
        proxy.readiness += plan.port - PORT;
        let readiness = format!("{}:{}", proxy.host.address, proxy.readiness);
        set(&mut own, "readiness", json!({ "address": readiness }));
        proxy.write(own)?;
        proxy.serve(protocol, plan.port + 11_000)?;
        proxy.start()?;
        Ok(proxy)
    }

    /// Starts a workload whose sidecar answers the names of the mesh and asks the zone's control
    /// plane about others, and waits until it is ready.
    pub fn resolving(&mut self, plan: &Plan) -> Result<Proxy> {
        let host = self.host(plan.zone)?;
        host.resolve_at(Ipv4Addr::LOCALHOST)?;
        let mut plan = plan.clone();
        if plan.settings.get("dns").is_none() {
            let upstreams = [self.zone(plan.zone)?.address.to_string()];
            set(&mut plan.settings, "dns", json!({ "upstreams": upstreams }));
        }
        if let Some(dns) = plan.settings.get_mut("dns") {
            set(dns, "enabled", true.into());
            set(dns, "listen", "127.0.0.1:53".into());
        }
        let token = self.global.dataplane_token(&plan.claims())?;
        let proxy = self.launch_at(host, &plan, &token)?;
        proxy.wait()?;
        Ok(proxy)
    }

    /// Starts a zone ingress and waits until it is ready.
    pub fn ingress(&mut self, zone: &str, name: &str) -> Result<Proxy> {
        self.ingress_of(zone, "default", name)
    }

    /// Starts an ingress for the services of a mesh and waits until it is ready.
    pub fn ingress_of(&mut self, zone: &str, mesh: &str, name: &str) -> Result<Proxy> {
        let claims = json!({ "mesh": mesh, "workload": "ingress", "type": "ingress" });
        let token = self.global.dataplane_token(&claims)?;
        let host = self.host(zone)?;
        let proxy = self.launch_ingress_at(host, (zone, mesh, name), &token)?;
        proxy.wait()?;
        Ok(proxy)
    }

    /// Starts a zone ingress on a host, with a token, and does not wait. Its zone, its mesh, and
    /// its own name are said in this order.
    pub fn launch_ingress_at(
        &mut self,
        host: Host,
        (zone, mesh, name): (&str, &str, &str),
        token: &str,
    ) -> Result<Proxy> {
        let address = host.address.to_string();
        let resource = json!({
            "type": "Dataplane",
            "mesh": mesh,
            "name": name,
            "labels": { "kuma.io/workload": "ingress" },
            "networking": {
                "address": address,
                "listeners": [
                    { "type": "ZoneIngress", "name": "ingress", "address": address, "port": INGRESS },
                ],
            },
        });
        let advertised = json!({ "address": address, "port": INGRESS });
        self.network.open(host.address, INGRESS)?;
        let mut proxy = self.proxy(host, zone, mesh, name, token)?;
        proxy.program = "zone-ingress";
        proxy.write(json!({ "resource": resource, "advertised": advertised }))?;
        proxy.start()?;
        Ok(proxy)
    }

    fn proxy(
        &mut self,
        host: Host,
        zone: &str,
        mesh: &str,
        name: &str,
        token: &str,
    ) -> Result<Proxy> {
        let folder = self.folder.path().join(format!("proxies/{zone}/{mesh}/{name}"));
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
            "readiness": { "address": format!("{}:{READINESS}", host.address) },
        });
        fs::write(folder.join("settings.json"), settings.to_string())?;
        let name = name.to_owned();
        let (process, user, app, readiness) = (None, None, None, READINESS);
        Ok(Proxy { host, process, name, folder, program: "", user, readiness, app })
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

    fn serve(&mut self, protocol: &str, port: u16) -> Result<()> {
        let peer = programs()?.join("peer").display().to_string();
        let command = [&*peer, protocol, &format!("127.0.0.1:{port}"), &self.name];
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
        let user = self.user.map(as_user).unwrap_or_default();
        let command = user.iter().map(String::as_str).chain([&*program, "--config", &settings]);
        let command: Vec<&str> = command.collect();
        let process = Process::start(&self.name, &self.folder, self.namespace(), &command)?;
        self.process = Some(process);
        Ok(())
    }

    /// Waits until it is ready.
    pub fn wait(&self) -> Result<()> {
        wait::until(&format!("{} is ready", self.name), PATIENCE, || {
            let (ready, text) = self.readiness().with_context(|| self.log())?;
            if ready { Ok(()) } else { bail!("{text}\n{}", self.log()) }
        })
    }

    /// Whether it says that it is ready, and what else it says.
    pub fn readiness(&self) -> Result<(bool, String)> {
        let url = format!("http://{}:{}/ready", self.host.address, self.readiness);
        let answer = reqwest::blocking::get(&url)?;
        Ok((answer.status().is_success(), answer.text()?))
    }

    /// Gives it another token.
    pub fn give(&self, token: &str) -> Result<()> {
        Ok(fs::write(self.folder.join("token"), token)?)
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

    /// What its Envoy's admin interface says at `path`.
    pub fn admin(&self, path: &str) -> Result<String> {
        self.asker(path)?()
    }

    /// Asks its Envoy's admin interface for `path`, whenever it is called, elsewhere too.
    pub fn asker(&self, path: &str) -> Result<impl Fn() -> Result<String> + Send + use<>> {
        let socket = self.folder.join("envoy/envoy-admin.sock");
        let client = reqwest::blocking::Client::builder().no_proxy().unix_socket(socket);
        let (client, url) = (client.build()?, format!("http://envoy{path}"));
        Ok(move || Ok(client.get(&url).send()?.error_for_status()?.text()?))
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

    /// Stops its Envoy until the value that is returned goes: it holds its connections and says
    /// nothing.
    pub fn freeze_envoy(&self) -> Result<Frozen> {
        let pid = self.envoy()?.to_string();
        run(&["kill", "-STOP", &pid])?;
        Ok(Frozen(pid))
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
