//! Global, the zones west and east, and their proxies, on addresses of this machine's loopback.

use anyhow::{Context, Result};
use e2e::{
    PATIENCE,
    control_plane::{ControlPlane, Zone},
    lab::envoy,
    process::{Process, programs},
    wait,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{
    fs,
    net::Ipv4Addr,
    path::PathBuf,
    sync::mpsc::{self, Receiver, SyncSender},
    time::Instant,
};
use tempfile::TempDir;

/// More than may ever be unread.
const UNREAD: usize = 100_000;

/// An Envoy took what its zone sent it.
#[derive(Clone, Debug)]
pub(crate) struct Ack {
    /// When its zone had read that.
    pub(crate) at: Instant,
    /// Whose.
    pub(crate) dataplane: String,
    /// The type of the resources.
    pub(crate) kind: String,
    /// Their names, as a list in text.
    pub(crate) resources: String,
}

/// A zone, and what its Envoys take.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) control_plane: ControlPlane,
    pub(crate) acks: Receiver<Ack>,
}

/// Everything, which ends with this value.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) global: ControlPlane,
    pub(crate) west: Observed,
    pub(crate) east: Observed,
    proxies: Vec<Process>,
    folder: TempDir,
}

/// A zone's number in addresses.
#[derive(Clone, Copy, Debug)]
enum Net {
    West = 1,
    East = 2,
}

impl Net {
    const fn at(self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, 78, self as u8, last)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::West => "west",
            Self::East => "east",
        }
    }
}

impl World {
    /// Starts everything and waits until it is ready.
    pub(crate) fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let at = folder.path().join("global");
        fs::create_dir_all(&at)?;
        let mut global = ControlPlane::global(&at, Ipv4Addr::new(127, 78, 0, 1))?;
        global.start()?;
        let west = zone(Net::West, &global, folder.path().join("west"))?;
        let east = zone(Net::East, &global, folder.path().join("east"))?;
        let mut world = Self { global, west, east, proxies: Vec::new(), folder };
        for net in [Net::West, Net::East] {
            world.ingress(net)?;
        }
        world.sidecar(Net::West, "web")?;
        world.sidecar(Net::East, "cart")?;
        Ok(world)
    }

    fn ingress(&mut self, net: Net) -> Result<()> {
        let address = net.at(10).to_string();
        let listener = json!({
            "type": "ZoneIngress", "name": "ingress", "address": address, "port": 10001,
        });
        let networking = json!({ "address": address, "listeners": [listener] });
        let name = format!("ingress-{}", net.name());
        let own = json!({ "advertised": { "address": address, "port": 10001 } });
        self.proxy(("zone-ingress", net, 10), (&name, "ingress"), networking, own)
    }

    fn sidecar(&mut self, net: Net, workload: &str) -> Result<()> {
        let address = net.at(5).to_string();
        // Nobody calls its application, so there is none.
        let inbound = json!({ "name": "http", "port": 8080, "protocol": "http" });
        let networking = json!({ "address": address, "inbound": [inbound] });
        let name = format!("{workload}-1");
        self.proxy(("sidecar", net, 5), (&name, workload), networking, json!({ "bindVips": true }))
    }

    fn proxy(
        &mut self,
        (program, net, last): (&str, Net, u8),
        (name, workload): (&str, &str),
        networking: Value,
        own: Value,
    ) -> Result<()> {
        let folder = self.folder.path().join(name);
        fs::create_dir_all(&folder)?;
        let kind = if program == "sidecar" { "" } else { "ingress" };
        let claims = json!({ "workload": workload, "type": kind });
        fs::write(folder.join("token"), self.global.dataplane_token(&claims)?)?;
        let zone = match net {
            Net::West => &self.west.control_plane,
            Net::East => &self.east.control_plane,
        };
        let mut settings = json!({
            "zone": { "address": format!("https://{}:5678", zone.address), "caFile": zone.ca() },
            "tokenFile": folder.join("token"),
            "envoy": { "path": envoy()?, "concurrency": 1, "drainTime": "0s" },
            "workdir": folder.join("envoy"),
            "readiness": { "address": format!("{}:9902", net.at(last)) },
            "resource": {
                "type": "Dataplane", "mesh": "default", "name": name,
                "labels": { "kuma.io/workload": workload },
                "networking": networking,
            },
        });
        if let (Some(all), Value::Object(own)) = (settings.as_object_mut(), own) {
            all.extend(own);
        }
        let file = folder.join("settings.json");
        fs::write(&file, settings.to_string())?;
        let program = programs()?.join(program).display().to_string();
        let command = [&*program, "--config", &file.display().to_string()];
        self.proxies.push(Process::start(name, &folder, None, &command)?);
        let url = format!("http://{}:9902/ready", net.at(last));
        wait::until(&format!("{name} is ready"), PATIENCE, || {
            let answer = reqwest::blocking::get(&url).and_then(|it| it.error_for_status());
            answer
                .map(drop)
                .with_context(|| self.proxies.last().map(Process::tail).unwrap_or_default())
        })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Asked, not killed: an Envoy outlives its program.
        self.proxies.iter().for_each(|proxy| proxy.signal(Signal::TERM));
        for mut proxy in self.proxies.drain(..) {
            proxy.ended(PATIENCE).ok();
        }
    }
}

impl Observed {
    /// The next thing that an Envoy of this zone takes.
    pub(crate) fn next(&self) -> Result<Ack> {
        let next = self.acks.recv_timeout(PATIENCE);
        next.with_context(|| format!("no Envoy took anything\n{}", self.control_plane.tail()))
    }

    /// Waits until nothing more comes.
    pub(crate) fn settle(&self) {
        while self.acks.recv_timeout(std::time::Duration::from_secs(1)).is_ok() {}
    }
}

fn zone(net: Net, global: &ControlPlane, folder: PathBuf) -> Result<Observed> {
    let zone = Zone { name: net.name(), address: net.at(1), namespace: None };
    let mut control_plane = ControlPlane::zone(&folder, zone, global)?;
    let log = json!({ "level": "info,zone_cp::dataplanes::registry=debug", "format": "json" });
    control_plane.configure("log", log)?;
    let vips = format!("127.{}.0.0/16", 244 + net as u8);
    control_plane.configure("vips", json!({ "meshService": vips }))?;
    let (sender, acks) = mpsc::sync_channel(UNREAD);
    control_plane.start_heard(move |line| hear(line, &sender))?;
    Ok(Observed { control_plane, acks })
}

#[expect(clippy::disallowed_methods, reason = "real time of other processes is what is measured")]
fn hear(line: &str, acks: &SyncSender<Ack>) {
    let at = Instant::now();
    let Ok(event) = serde_json::from_str::<Value>(line) else { return };
    let text = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    if text("message") != "Envoy took its configuration" {
        return;
    }
    let ack =
        Ack { at, dataplane: text("dataplane"), kind: text("kind"), resources: text("resources") };
    // Who waited has gone: nothing is measured any more.
    acks.send(ack).ok();
}
