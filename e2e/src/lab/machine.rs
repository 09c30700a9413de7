//! Machines that hand every connection to their sidecar. What runs there knows nothing of a mesh: it
//! listens at its port, asks the nameserver of its network, and calls by name.
//!
//! Application and sidecar are two users, and neither is root.

use super::{Lab, Proxy};
use crate::{
    control_plane::set,
    namespace::Host,
    peer::Client,
    process::{Process, as_user, programs, run},
};
use anyhow::Result;
use serde_json::{Value, json};
use std::{
    fs::{self, Permissions},
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt,
    path::Path,
};

/// The user of applications.
pub const APPLICATION: u32 = 61_001;

/// The user of sidecars.
pub const SIDECAR: u32 = 61_002;

/// The nameserver of every machine. Nobody is there: who gets an answer got it from the sidecar.
const NAMESERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);

/// A port where an application of a machine listens.
#[derive(Clone, Copy, Debug)]
pub struct Inbound {
    /// What it speaks: `http`, `grpc` or `tcp`; also the name of the inbound.
    pub protocol: &'static str,
    /// Its number.
    pub port: u16,
}

/// A machine to start.
#[derive(Clone, Debug)]
pub struct MachinePlan {
    /// Its zone.
    pub zone: &'static str,
    /// Its service; the label `kuma.io/workload`.
    pub workload: &'static str,
    /// Which of its service's machines it is.
    pub number: u8,
    /// Where its applications listen.
    pub inbounds: &'static [Inbound],
    /// Services whose machines it calls at their own addresses.
    pub direct: &'static [&'static str],
    /// Which servers its sidecar asks about names that are not of the mesh.
    pub upstreams: Vec<String>,
    /// Whether it has IPv6.
    pub ipv6: bool,
}

impl MachinePlan {
    /// A machine with the applications at `inbounds`.
    #[must_use]
    pub fn new(zone: &'static str, workload: &'static str, inbounds: &'static [Inbound]) -> Self {
        let (number, direct, upstreams) = (1, &[], Vec::new());
        Self { zone, workload, number, inbounds, direct, upstreams, ipv6: true }
    }

    fn name(&self) -> String {
        format!("{}-{}", self.workload, self.number)
    }

    fn dataplane(&self, host: &Host) -> Value {
        let inbound = |&Inbound { protocol, port }: &Inbound| json!({ "name": format!("{protocol}-{port}"), "port": port, "protocol": protocol });
        json!({
            "type": "Dataplane",
            "mesh": "default",
            "name": self.name(),
            "labels": { "kuma.io/workload": self.workload },
            "networking": {
                "address": host.address.to_string(),
                "inbound": self.inbounds.iter().map(inbound).collect::<Vec<_>>(),
                "transparentProxying": { "directAccessServices": self.direct },
            },
        })
    }
}

impl Lab {
    /// Starts a machine without its applications, and waits until its sidecar is ready.
    pub fn machine(&mut self, plan: &MachinePlan) -> Result<Proxy> {
        let host = self.plain_host(plan.zone)?;
        host.resolve_at(NAMESERVER)?;
        if !plan.ipv6 {
            host.run(&["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"])?;
        }
        let claims = json!({ "mesh": "default", "workload": plan.workload });
        let token = self.global.dataplane_token(&claims)?;
        let dataplane = plan.dataplane(&host);
        let name = plan.name();
        let mut proxy = self.proxy(host, plan.zone, "default", &name, &token)?;
        proxy.program = "sidecar";
        proxy.user = Some(SIDECAR);
        let control_plane = self.zone(plan.zone)?;
        let ca = proxy.folder.join("zone-ca.crt");
        fs::copy(control_plane.ca(), &ca)?;
        let address = format!("https://{}:5678", control_plane.address);
        let mut own = json!({
            "transparentProxy": { "enabled": true },
            "resource": dataplane,
            "zone": { "address": address, "caFile": ca },
        });
        if !plan.upstreams.is_empty() {
            set(&mut own, "dns", json!({ "upstreams": plan.upstreams }));
        }
        proxy.write(own)?;
        self.own(&proxy.folder, SIDECAR)?;
        let (sidecar, readiness) = (SIDECAR.to_string(), format!("22,{}", proxy.readiness));
        proxy.atoll(&[
            "install",
            "transparent-proxy",
            "--proxy-user",
            &sidecar,
            "--exclude-inbound-ports",
            &readiness,
        ])?;
        proxy.start()?;
        proxy.wait()?;
        Ok(proxy)
    }

    /// Gives a folder of this lab to a user.
    pub fn own(&self, folder: &Path, user: u32) -> Result<()> {
        // Whoever owns something below must get there.
        fs::set_permissions(self.folder.path(), Permissions::from_mode(0o711))?;
        run(&["chown", "-R", &format!("{user}:{user}"), &folder.display().to_string()]).map(drop)
    }
}

impl Proxy {
    /// Runs `atoll` as root on its machine.
    pub fn atoll(&self, words: &[&str]) -> Result<String> {
        let atoll = programs()?.join("atoll").display().to_string();
        self.host.run(&[&[&*atoll], words].concat())
    }

    /// Runs a command on its machine as the application's user, to its end.
    pub fn run(&self, command: &[&str]) -> Result<String> {
        self.run_as(APPLICATION, command)
    }

    /// The same as another user.
    pub fn run_as(&self, user: u32, command: &[&str]) -> Result<String> {
        let user = as_user(user);
        let user: Vec<&str> = user.iter().map(String::as_str).collect();
        self.host.run(&[&*user, command].concat())
    }

    /// Starts an application of `peer` at a port of its machine.
    pub fn application(&self, kind: &str, port: u16) -> Result<Process> {
        let peer = programs()?.join("peer").display().to_string();
        let command = [&*peer, kind, &format!("0.0.0.0:{port}"), &self.name];
        self.start_as(APPLICATION, &format!("{kind}-{port}"), &command)
    }

    /// Starts a command on its machine as a user; its log has the name `name`.
    pub fn start_as(&self, user: u32, name: &str, command: &[&str]) -> Result<Process> {
        let user = as_user(user);
        let user: Vec<&str> = user.iter().map(String::as_str).collect();
        Process::start(name, &self.folder, self.namespace(), &[&*user, command].concat())
    }

    /// A client on its machine that runs as the application's user.
    pub fn caller(&self) -> Result<Client> {
        Client::start_as(&self.host.namespace, APPLICATION)
    }
}
