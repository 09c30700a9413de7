//! Hosts that are network namespaces, on the subnets of their zones.
//!
//! A namespace of its own routes between the zones and to the test, so the machine's own network
//! gets one link, and everything goes with the namespaces. From one zone only what was opened is
//! reached in another, and only control planes reach the test.

use crate::{
    cluster::remove_cgroup,
    lab::PORT,
    leftovers::{self, Claim},
    process::{Process, programs, run},
};
use anyhow::{Context, Result};
use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU16, Ordering},
};
use tempfile::TempDir;

/// Why namespaces and rules between them cannot be made here; `None` if they can.
#[must_use]
pub fn missing() -> Option<String> {
    let name = format!("atoll-try-{}", std::process::id());
    let made = run(&["ip", "netns", "add", &name]).and_then(|_| {
        let ruled = run(&["ip", "netns", "exec", &name, "nft", "add", "table", "inet", "try"]);
        run(&["ip", "netns", "delete", &name]).ok();
        ruled
    });
    made.err().map(|error| format!("no right to make network namespaces and rules: {error:#}"))
}

/// Between zones, and from them to the test. What is within a zone does not come here, unless the
/// machine has bridges ask.
const RULES: &str = "
table inet zones {
  set open { type ipv4_addr . inet_service; }
  set control_planes { type ipv4_addr; }
  chain forward {
    type filter hook forward priority 0; policy drop;
    ct state established,related accept
    iifname uplink accept
    oifname uplink ip saddr @control_planes accept
    ip daddr . tcp dport @open accept
    iifname zone0 oifname zone0 accept
    iifname zone1 oifname zone1 accept
    iifname zone2 oifname zone2 accept
    reject with icmpx admin-prohibited
  }
}
";

/// Subnets of zones, joined by a router.
#[derive(Debug)]
pub struct Network {
    id: u16,
    _claim: Claim,
}

/// A host on a zone's subnet.
#[derive(Clone, Debug)]
pub struct Host {
    /// The name of its namespace.
    pub namespace: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// The other end of its link, at the router.
    link: String,
}

impl Host {
    /// Lets the resolver of programs that are started here ask `server`.
    pub fn resolve_at(&self, server: impl Into<IpAddr>) -> Result<()> {
        self.resolve(server.into(), "")
    }

    /// The same, and it asks by TCP.
    pub fn resolve_by_tcp(&self, server: impl Into<IpAddr>) -> Result<()> {
        self.resolve(server.into(), " use-vc")
    }

    fn resolve(&self, server: IpAddr, options: &str) -> Result<()> {
        let folder = resolver(&self.namespace);
        fs::create_dir_all(&folder)?;
        let text = format!("nameserver {server}\noptions timeout:1 attempts:2{options}\n");
        Ok(fs::write(folder.join("resolv.conf"), text)?)
    }

    /// Runs a command here to its end.
    pub fn run(&self, command: &[&str]) -> Result<String> {
        run(&[&["ip", "netns", "exec", &self.namespace], command].concat())
    }

    /// Lets any address of the range of virtual ones be bound, as if each were set.
    pub fn take_vips(&self) -> Result<()> {
        let route = ["route", "add", "local", "241.0.0.0/8", "dev", "lo"];
        run(&[&["ip", "-n", &self.namespace], &route[..]].concat()).map(drop)
    }

    /// Starts what is outside of the mesh: a server of names, which has one answer, this host; and
    /// an application called `outside` at the port of services. Their logs are in `folder`.
    pub fn serve_outside(&self, folder: &Path) -> Result<(Process, Process)> {
        let peer = programs()?.join("peer").display().to_string();
        let (address, namespace) = (self.address.to_string(), Some(&*self.namespace));
        let names = [&*peer, "names", &format!("{address}:53"), &address];
        let names = Process::start("names", folder, namespace, &names)?;
        let http = [&*peer, "http", &format!("{address}:{PORT}"), "outside"];
        Ok((names, Process::start("outside", folder, namespace, &http)?))
    }

    /// Ends all its processes at once, as if it lost its power.
    pub fn end(&self) {
        for pid in run(&["ip", "netns", "pids", &self.namespace]).unwrap_or_default().lines() {
            // It may have ended already.
            run(&["kill", "-9", pid]).ok();
        }
    }
}

/// Where `ip netns exec` finds the files that it mounts over those of `/etc`.
fn resolver(namespace: &str) -> PathBuf {
    Path::new("/etc/netns").join(namespace)
}

/// The namespace that routes between the subnets of a network.
fn router(id: u16) -> String {
    format!("atoll-{id}")
}

/// How many networks may be taken before one is not.
const TRIES: u32 = 16;

/// What stands before the number of a network in the name of the claim on it.
const CLAIM: &str = "network-";

static NEXT: AtomicU16 = AtomicU16::new(0);

impl Network {
    /// A network without subnets, reachable from here.
    pub fn new() -> Result<Self> {
        // Several test programs may run on a machine, and what one of them deletes is not gone at once.
        sweep();
        let pid = u16::try_from(std::process::id() % 64).unwrap_or_default();
        let mut tries = 0;
        loop {
            let id = pid * 64 + NEXT.fetch_add(1, Ordering::Relaxed) % 64;
            let made = Claim::take(&format!("{CLAIM}{id}")).and_then(|claim| {
                run(&["ip", "netns", "add", &router(id)])?;
                // From here on it is ours, and goes with this value.
                let network = Self { id, _claim: claim };
                network.make().map(|()| network)
            });
            tries += 1;
            match made {
                Err(_) if tries < TRIES => {}
                made => return made.context("network namespaces"),
            }
        }
    }

    fn make(&self) -> Result<()> {
        let (router, link) = (self.router(), format!("at{}", self.id));
        run(&[
            "ip", "link", "add", &link, "type", "veth", "peer", "name", "uplink", "netns", &router,
        ])?;
        let here = format!("{}/30", self.place(255, 1));
        let there = format!("{}/30", self.place(255, 2));
        run(&["ip", "address", "add", &here, "dev", &link])?;
        run(&["ip", "link", "set", &link, "up"])?;
        self.in_router(&["ip", "address", "add", &there, "dev", "uplink"])?;
        self.in_router(&["ip", "link", "set", "uplink", "up"])?;
        self.in_router(&["ip", "link", "set", "lo", "up"])?;
        self.in_router(&["sysctl", "-qw", "net.ipv4.ip_forward=1"])?;
        self.in_router(&["nft", RULES]).map(drop)
    }

    /// Lets other zones reach a port of a host.
    pub fn open(&self, address: Ipv4Addr, port: u16) -> Result<()> {
        self.allow("open", &format!("{address} . {port}"))
    }

    /// Lets a control plane of a zone reach the test.
    pub fn open_to_global(&self, address: Ipv4Addr) -> Result<()> {
        self.allow("control_planes", &address.to_string())
    }

    fn allow(&self, set: &str, element: &str) -> Result<()> {
        let element = format!("{{ {element} }}");
        self.in_router(&["nft", "add", "element", "inet", "zones", set, &element]).map(drop)
    }

    /// Makes the subnet of `zone`.
    pub fn subnet(&self, zone: u8) -> Result<()> {
        let bridge = format!("zone{zone}");
        // Without an address of its own it takes that of a port, another one when a host comes, and
        // the other hosts send to the old one for seconds.
        self.in_router(&[
            "ip",
            "link",
            "add",
            &bridge,
            "address",
            "02:00:00:00:00:01",
            "type",
            "bridge",
        ])?;
        let gateway = format!("{}/24", self.place(zone, 1));
        self.in_router(&["ip", "address", "add", &gateway, "dev", &bridge])?;
        self.in_router(&["ip", "link", "set", &bridge, "up"])?;
        let subnet = format!("{}/24", self.place(zone, 0));
        let via = self.place(255, 2).to_string();
        run(&["ip", "route", "add", &subnet, "via", &via]).map(drop)
    }

    /// A new host of `zone`; `last` is the last part of its address, from 2 on.
    pub fn host(&self, zone: u8, last: u8) -> Result<Host> {
        let namespace = format!("atoll-{}-{zone}-{last}", self.id);
        let (address, link) = (self.place(zone, last), format!("h{zone}-{last}"));
        run(&["ip", "netns", "add", &namespace])?;
        self.in_router(&[
            "ip", "link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &namespace,
        ])?;
        self.in_router(&["ip", "link", "set", &link, "master", &format!("zone{zone}"), "up"])?;
        let inside = |command: &[&str]| run(&[&["ip", "-n", &namespace], command].concat());
        inside(&["address", "add", &format!("{address}/24"), "dev", "eth0"])?;
        inside(&["link", "set", "eth0", "up"])?;
        inside(&["link", "set", "lo", "up"])?;
        inside(&["route", "add", "default", "via", &self.place(zone, 1).to_string()])?;
        Ok(Host { namespace, address, link })
    }

    /// A folder for files that are of no use without this network.
    pub fn folder(&self) -> Result<TempDir> {
        Ok(tempfile::Builder::new().prefix(&format!("{}-", self.router())).tempdir()?)
    }

    /// Takes the link of a host down: it is cut off from all others.
    pub fn cut(&self, host: &Host) -> Result<()> {
        self.in_router(&["ip", "link", "set", &host.link, "down"]).map(drop)
    }

    /// Takes its link up again.
    pub fn heal(&self, host: &Host) -> Result<()> {
        self.in_router(&["ip", "link", "set", &host.link, "up"]).map(drop)
    }

    /// The address of this end, where the test listens.
    #[must_use]
    pub fn here(&self) -> Ipv4Addr {
        self.place(255, 1)
    }

    fn place(&self, zone: u8, last: u8) -> Ipv4Addr {
        // 100.64.0.0/10 is for carriers, so nothing of this machine is there. Each network has four
        // subnets of it: three zones, and the way here.
        let [_, _, second, third] = (u32::from(self.id) * 4 + u32::from(zone.min(3))).to_be_bytes();
        Ipv4Addr::new(100, 64 + second, third, last)
    }

    fn router(&self) -> String {
        router(self.id)
    }

    fn in_router(&self, command: &[&str]) -> Result<String> {
        run(&[&["ip", "netns", "exec", &self.router()], command].concat())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        remove(self.id);
    }
}

/// Removes what networks of tests that were killed have left.
fn sweep() {
    for (id, _claim) in Claim::abandoned(CLAIM) {
        if let Ok(id) = id.parse() {
            remove(id);
            leftovers::remove_folders(&format!("{}-", router(id)));
        }
    }
}

/// Removes the namespaces of a network, and what is in them.
fn remove(id: u16) {
    let (router, hosts) = (router(id), format!("{}-", router(id)));
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let named = entries.filter_map(|it| it.file_name().into_string().ok());
    for namespace in named.filter(|it| *it == router || it.starts_with(&hosts)) {
        // Whoever lost its parent, such as the Envoy of a program that was killed.
        for pid in run(&["ip", "netns", "pids", &namespace]).unwrap_or_default().lines() {
            run(&["kill", "-9", pid]).ok();
        }
        // The link to here goes with its other end.
        run(&["ip", "netns", "delete", &namespace]).ok();
        fs::remove_dir_all(resolver(&namespace)).ok();
        remove_cgroup(&namespace).ok();
    }
}
