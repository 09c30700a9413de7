//! Where everything is, and what each program is told.

use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A zone of the demo, on addresses of its own of this machine's loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Zone {
    pub(crate) name: &'static str,
    net: u8,
}

impl Zone {
    pub(crate) const WEST: Self = Self { name: "west", net: 1 };
    pub(crate) const EAST: Self = Self { name: "east", net: 2 };

    /// An address of this zone.
    pub(crate) fn address(self, last: u8) -> String {
        format!("127.{}.0.{last}", self.net)
    }

    /// Where its control plane is.
    pub(crate) fn control_plane(self) -> String {
        self.address(1)
    }

    /// Where its services get virtual addresses.
    fn vips(self) -> String {
        format!("127.{}.0.0/16", 240 + self.net)
    }
}

/// Where global's API is.
pub(crate) const GLOBAL: &str = "http://127.0.0.1:5681";

/// A workload of the demo, with its sidecar.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) zone: Zone,
    last: u8,
    /// Whether it calls others by their virtual addresses.
    calls: bool,
}

impl Workload {
    pub(crate) const WEB: Self = Self { name: "web", zone: Zone::WEST, last: 5, calls: true };
    pub(crate) const CART: Self = Self { name: "cart", zone: Zone::EAST, last: 7, calls: false };

    /// Where the application itself listens.
    pub(crate) fn application(self) -> String {
        format!("{}:19080", self.zone.address(self.last))
    }

    /// Where its sidecar says whether it is ready.
    pub(crate) fn readiness(self) -> String {
        format!("{}:9902", self.zone.address(self.last))
    }
}

/// Where an ingress says whether it is ready.
pub(crate) fn ingress_readiness(zone: Zone) -> String {
    format!("{}:9902", zone.address(10))
}

/// Where files are.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    folder: PathBuf,
    envoy: String,
}

impl Places {
    pub(crate) const fn new(folder: PathBuf, envoy: String) -> Self {
        Self { folder, envoy }
    }

    /// The logs of all processes.
    pub(crate) fn logs(&self) -> PathBuf {
        self.folder.join("logs")
    }

    /// A file of the demo.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The data of a control plane.
    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.folder.join("data").join(name)
    }

    /// What the global control plane is told.
    pub(crate) fn global(&self) -> Value {
        json!({
            "dataDir": self.data("global"),
            "api": { "http": { "address": "127.0.0.1:5681" }, "https": { "address": "127.0.0.1:5682" } },
            "kds": { "listen": "127.0.0.1:5685" },
            "admin": { "listen": "127.0.0.1:5680" },
        })
    }

    /// What a zone's control plane is told.
    pub(crate) fn zone(&self, zone: Zone) -> Value {
        let ip = zone.control_plane();
        let at = |port: u16| format!("{ip}:{port}");
        json!({
            "zone": { "name": zone.name },
            "global": {
                "address": "https://127.0.0.1:5685",
                "caFile": self.data("global").join("tls/ca.crt"),
                "tokenFile": self.file(&format!("{}.token", zone.name)),
            },
            "dataDir": self.data(zone.name),
            "tls": { "names": [ip] },
            "api": {
                "http": { "address": at(5681) },
                "https": { "address": at(5682) },
                "hosts": [ip],
            },
            "proxies": { "listen": at(5678) },
            "dns": { "listen": at(5653) },
            "vips": { "meshService": zone.vips() },
            "admin": { "listen": at(5680) },
        })
    }

    fn proxy(&self, name: &str, zone: Zone, last: u8, own: Value) -> Value {
        let mut settings = json!({
            "zone": {
                "address": format!("https://{}:5678", zone.control_plane()),
                "caFile": self.data(zone.name).join("tls/ca.crt"),
            },
            "tokenFile": self.file(&format!("{name}.token")),
            "envoy": { "path": self.envoy, "concurrency": 1, "drainTime": "2s" },
            "workdir": self.data(name),
            "readiness": { "address": format!("{}:9902", zone.address(last)) },
        });
        if let (Some(all), Value::Object(own)) = (settings.as_object_mut(), own) {
            all.extend(own);
        }
        settings
    }

    /// What a sidecar is told.
    pub(crate) fn sidecar(&self, workload: Workload) -> Value {
        let Workload { name, zone, last, calls } = workload;
        let address = zone.address(last);
        let resource = json!({
            "type": "Dataplane",
            "mesh": "default",
            "name": format!("{name}-1"),
            "labels": { "kuma.io/workload": name },
            "networking": {
                "address": address,
                "inbound": [{
                    "name": "http", "port": 8080, "protocol": "http",
                    "serviceAddress": address, "servicePort": 19080,
                }],
            },
        });
        self.proxy(name, zone, last, json!({ "bindVips": calls, "resource": resource }))
    }

    /// What a zone ingress is told.
    pub(crate) fn ingress(&self, zone: Zone) -> Value {
        let address = zone.address(10);
        let name = format!("ingress-{}", zone.name);
        let advertised = json!({ "address": address, "port": 10001 });
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
        self.proxy(&name, zone, 10, json!({ "advertised": advertised, "resource": resource }))
    }
}

/// A policy that says of `caller` whether it may call cart; nobody else may.
pub(crate) fn permission(caller: &str, verdict: &str) -> Value {
    json!({
        "type": "MeshTrafficPermission",
        "mesh": "default",
        "name": "cart-callers",
        "spec": {
            "targetRef": { "kind": "Dataplane", "labels": { "kuma.io/workload": "cart" } },
            "rules": [{ "default": {
                verdict: [{ "spiffeID": { "type": "Exact", "value": caller } }],
            } }],
        },
    })
}

/// Writes what a program is told.
pub(crate) fn write(path: &Path, settings: &Value) -> anyhow::Result<()> {
    Ok(std::fs::write(path, serde_saphyr::to_string(settings)?)?)
}
