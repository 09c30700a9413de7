//! A global and a zone of machines, and clusters that join them.

use super::note;
use anyhow::{Context, Result, bail};
use e2e::{
    PATIENCE,
    cluster::{Cluster, Images, Kubectl, REGISTRY, TAG},
    control_plane::set,
    lab::{Inbound, Lab, MachinePlan, PORT, Proxy},
    peer::{Ask, Client, Told},
    process::{Process, programs, run},
    wait,
};
use serde_json::{Value, json};
use std::{fs, path::PathBuf};

/// The zone of machines.
pub(crate) const MACHINES: &str = "vm";

/// The namespace of pods of the mesh.
pub(crate) const SHOP: &str = "shop";

/// The namespace of the control plane.
pub(crate) const SYSTEM: &str = "kuma-system";

/// Everything; clusters end before what joins them.
pub(crate) struct World {
    pub(crate) zones: Vec<Zone>,
    /// A machine that calls, and answers at the port of services; its workload is `web`.
    pub(crate) machine: Proxy,
    _application: Process,
    _ingress: Proxy,
    pub(crate) lab: Lab,
}

/// A cluster that is a zone.
pub(crate) struct Zone {
    pub(crate) name: &'static str,
    pub(crate) cluster: Cluster,
    /// The values that it was installed with.
    values: PathBuf,
}

impl World {
    /// Starts everything and installs a control plane and an ingress in each cluster; everybody may
    /// call everybody.
    pub(crate) fn start(images: &Images, names: &[&'static str]) -> Result<Self> {
        Self::with_values(images, names, &json!({}))
    }

    /// The same with more values of the installations.
    pub(crate) fn with_values(
        images: &Images,
        names: &[&'static str],
        more: &Value,
    ) -> Result<Self> {
        const INBOUNDS: &[Inbound] = &[Inbound { protocol: "http", port: PORT }];
        let mut lab = Lab::start(&[MACHINES])?;
        let clusters = lab.clusters(names, images)?;
        let all = [&[MACHINES], names].concat();
        allow(&lab, &all.iter().map(|zone| prefix(&domain(zone))).collect::<Vec<_>>())?;
        let mut zones = Vec::new();
        for (cluster, &name) in clusters.into_iter().zip(names) {
            let values = lab.folder().join(format!("{name}.yaml"));
            zones.push(Zone { name, cluster, values });
        }
        for zone in &zones {
            zone.install(&lab, more)?;
        }
        let ingress = lab.ingress(MACHINES, "ingress-1")?;
        let machine = lab.machine(&MachinePlan::new(MACHINES, "web", INBOUNDS))?;
        let application = machine.application("http", PORT)?;
        zones.iter().try_for_each(Zone::installed)?;
        Ok(Self { zones, machine, _application: application, _ingress: ingress, lab })
    }

    /// The same, with two clusters that both have the pods of the shop.
    pub(crate) fn of_two(images: &Images) -> Result<Self> {
        Self::with_shops(images, &["k8s-1", "k8s-2"])
    }

    /// The same, where each cluster has the pods of the shop.
    pub(crate) fn with_shops(images: &Images, names: &[&'static str]) -> Result<Self> {
        let this = Self::start(images, names)?;
        this.open_shops()?;
        Ok(this)
    }

    /// Starts the pods of the shop in each cluster.
    pub(crate) fn open_shops(&self) -> Result<()> {
        for zone in &self.zones {
            zone.kubectl().apply(include_str!("shop.yaml"))?;
        }
        for zone in &self.zones {
            zone.kubectl().rolled_out(SHOP, "deployment/cart")?;
            zone.kubectl().rolled_out(SHOP, "deployment/front")?;
        }
        Ok(())
    }

    /// One of the zones that are clusters.
    pub(crate) fn zone(&self, name: &str) -> Result<&Zone> {
        self.zones.iter().find(|it| it.name == name).with_context(|| name.to_owned())
    }

    /// The cluster of a zone, to stop or start something of it.
    pub(crate) fn cluster(&mut self, name: &str) -> Result<&mut Cluster> {
        let found = self.zones.iter_mut().find(|it| it.name == name);
        Ok(&mut found.with_context(|| name.to_owned())?.cluster)
    }

    /// Waits until the machine reaches a name, and says who answered.
    pub(crate) fn machine_reaches(&self, url: &str) -> Result<Value> {
        wait::until(&format!("the machine reaches {url}"), PATIENCE, || {
            parsed(&self.machine.run(&curl(url))?)
        })
    }
}

/// How the process of the container `front` was started.
pub(crate) const FRONT: &str = "tcp 0.0.0.0:7000 front";

/// Where `cart` of a zone is.
pub(crate) fn cart(zone: &str) -> String {
    format!("cart.shop.svc.{zone}.mesh.local:8080")
}

/// Where the machine is.
pub(crate) const WEB: &str = "web.svc.vm.mesh.local:8080";

/// A Deployment of one pod and its Service, both called `name`.
pub(crate) fn server(name: &str) -> String {
    include_str!("server.yaml").replace("NAME", name)
}

/// How an unmodified program calls.
pub(crate) fn curl(url: &str) -> [&str; 6] {
    ["curl", "-sS", "--fail-with-body", "--max-time", "5", url]
}

/// The command that prints nothing but the status of an answer.
pub(crate) fn status(url: &str) -> [&str; 9] {
    ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "5", url]
}

fn parsed(text: &str) -> Result<Value> {
    serde_json::from_str(text).with_context(|| text.to_owned())
}

/// The trust domain of a zone.
pub(crate) fn domain(zone: &str) -> String {
    format!("spiffe://default.{zone}.mesh.local")
}

/// Everybody whose identity begins so.
pub(crate) fn prefix(value: &str) -> Value {
    json!({ "spiffeID": { "type": "Prefix", "value": value } })
}

/// Says who may call, for the whole mesh.
pub(crate) fn allow(lab: &Lab, who: &[Value]) -> Result<()> {
    let policy = json!({
        "type": "MeshTrafficPermission", "mesh": "default", "name": "callers",
        "spec": {
            "targetRef": { "kind": "Mesh" },
            "rules": [{ "default": { "allow": who } }],
        },
    });
    lab.global.put("/meshes/default/meshtrafficpermissions/callers", &policy)
}

/// Fails unless the application was told that the caller is `who`.
pub(crate) fn called_by(answer: &Value, who: &str) -> Result<()> {
    let seen = answer.pointer("/headers/x-forwarded-client-cert").and_then(Value::as_str);
    if seen.is_some_and(|it| it.split([';', ',']).any(|it| it == format!("URI={who}"))) {
        Ok(())
    } else {
        bail!("not called by {who}: {answer}")
    }
}

impl Zone {
    pub(crate) fn kubectl(&self) -> &Kubectl {
        &self.cluster.kubectl
    }

    /// What `atoll install control-plane` prints.
    pub(crate) fn manifests(&self) -> Result<String> {
        let atoll = programs()?.join("atoll").display().to_string();
        run(&[&atoll, "install", "control-plane", "--values", &self.values.display().to_string()])
    }

    fn install(&self, lab: &Lab, more: &Value) -> Result<()> {
        let service = json!({
            "type": "NodePort",
            "externalIPs": [self.cluster.host.address.to_string()],
        });
        let mut values = json!({
            "image": { "registry": REGISTRY, "tag": TAG },
            "zone": {
                "name": self.name,
                "global": {
                    "address": format!("https://{}:5685", lab.global.address),
                    "secret": "atoll-zone",
                },
            },
            "meshes": [{ "name": "default", "ingress": { "service": service } }],
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            set(&mut values, key, value.clone());
        }
        fs::write(&self.values, values.to_string())?;
        let kubectl = self.kubectl();
        kubectl.run(&["create", "namespace", SYSTEM])?;
        let token = format!("--from-literal=token={}", lab.global.zone_token(self.name)?);
        let authority = format!("--from-file=ca.crt={}", lab.global.ca().display());
        let secret = ["create", "secret", "generic", "atoll-zone", "--namespace", SYSTEM];
        kubectl.run(&[&secret[..], &[&token, &authority]].concat())?;
        kubectl.apply(&self.manifests()?)?;
        lab.open(&self.cluster)
    }

    fn installed(&self) -> Result<()> {
        for each in ["deployment/atoll-zone-cp", "deployment/atoll-ingress-default"] {
            self.kubectl().rolled_out(SYSTEM, each).with_context(|| self.logs(each))?;
        }
        Ok(())
    }

    /// The end of what a workload of the control plane's namespace wrote.
    fn logs(&self, what: &str) -> String {
        let said = self.kubectl().run(&["logs", "--namespace", SYSTEM, what, "--tail=20"]);
        said.unwrap_or_else(|error| format!("{error:#}"))
    }

    /// Waits until a Deployment of the shop has so many pods, all of its last change, and no others.
    pub(crate) fn settles(&self, deployment: &str, pods: usize) -> Result<()> {
        self.kubectl().rolled_out(SHOP, &format!("deployment/{deployment}"))?;
        let selector = format!("--selector=app={deployment}");
        wait::until(&format!("{deployment} has {pods} pods"), PATIENCE, || {
            let names = ["get", "pods", "--namespace", SHOP, &selector, "--output=name"];
            match self.kubectl().run(&names)?.lines().count() {
                found if found == pods => Ok(()),
                other => bail!("{other}"),
            }
        })
    }

    /// Waits until a container of a pod of the mesh reaches a name, and says who answered.
    pub(crate) fn pod_reaches(&self, pod: &str, container: &str, url: &str) -> Result<Value> {
        wait::until(&format!("{pod} reaches {url}"), PATIENCE, || {
            parsed(&self.kubectl().exec(SHOP, pod, container, &curl(url))?)
        })
    }
}

/// Requests one after the other until it is told to end.
pub(crate) struct Load {
    what: &'static str,
    client: Client,
}

impl Load {
    /// Begins once one was answered.
    pub(crate) fn start(what: &'static str, mut client: Client, to: &str) -> Result<Self> {
        wait::until(&format!("{what}: {to} is there"), PATIENCE, || {
            client.connect(to)?;
            let told = client.get("/")?;
            if told.status == Some(200) { Ok(()) } else { bail!("{told:?}") }
        })?;
        client.must(&Ask::Load)?;
        Ok(Self { what, client })
    }

    /// Fails if one of the requests did; says how many each application answered.
    pub(crate) fn end(mut self) -> Result<Told> {
        let told = self.client.must(&Ask::Stop)?;
        let Told { good, bad, by, gap, .. } = &told;
        let (what, by, gap) = (self.what, by.len(), gap / 1000);
        note(&format!("{what}: {good} answered by {by}, {bad} failed, longest gap {gap} ms"));
        if *bad > 0 { bail!("{what}: {told:?}") } else { Ok(told) }
    }
}
