//! What a control plane may do in its cluster: all that it does, and nothing else.

use super::rival::Rival;
use anyhow::{Context, Result, bail, ensure};
use e2e::{
    PATIENCE,
    clustered::{Asked, Clustered, SYSTEM},
    control_plane::{ControlPlane, Zone, set},
    lab::envoy,
    process::{Process, programs},
    wait,
};
use kinds::{dataplane_insight, service_insight, zone};
use resource::{Access, Flow, Kind, Peer, Resource, ResourceKey, Scope};
use rustix::process::Signal;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeSet, fs, net::Ipv4Addr, sync::Arc};
use store::{Backend as _, Expected, Item, Kinds, view::Edit};

const ACCESS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/helm/atoll/access.yaml");
const GOOD: &str = include_str!("../../../kinds/testdata/manifests/good.yaml");
const ZONE: &str = "k8s-1";
const ACCOUNT: &str = "system:serviceaccount:kuma-system:atoll-zone-cp";

const fn at(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 81, 0, last)
}

/// What the chart gives the control plane.
#[derive(Deserialize)]
struct Roles {
    cluster: Vec<Rule>,
    namespace: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    api_groups: Vec<String>,
    resources: Vec<String>,
    verbs: Vec<String>,
}

/// Group, plural, verb.
type Right = (String, String, String);

fn rights() -> Result<BTreeSet<Right>> {
    let Roles { cluster, namespace } = serde_saphyr::from_str(&fs::read_to_string(ACCESS)?)?;
    let mut all = BTreeSet::new();
    for Rule { api_groups, resources, verbs } in cluster.iter().chain(&namespace) {
        for (group, resource) in
            api_groups.iter().flat_map(|it| resources.iter().map(move |to| (it, to)))
        {
            let of = |verb: &String| (group.clone(), resource.clone(), verb.clone());
            all.extend(verbs.iter().map(of));
        }
    }
    Ok(all)
}

pub(crate) fn a_control_plane_may_do_what_it_does_and_nothing_else() -> Result<()> {
    let mut world = World::start()?;
    let done = world.do_everything();
    let used = world.used()?;
    let refused: BTreeSet<&Asked> = used.iter().filter(|it| it.code == 403).collect();
    ensure!(refused.is_empty(), "it may not do what it must: {refused:?}");
    done.with_context(|| world.zone.control_plane.tail())?;
    let unused = || -> Result<()> {
        let used: BTreeSet<Right> =
            world.used()?.into_iter().map(|it| (it.group, it.resource, it.verb)).collect();
        let unused: Vec<Right> = rights()?.difference(&used).cloned().collect();
        ensure!(unused.is_empty(), "it may do what it never does: {unused:?}");
        Ok(())
    };
    wait::until("every right is used", PATIENCE, unused)
}

struct World {
    zone: Clustered,
    global: ControlPlane,
    /// A zone without a global.
    alone: Option<Clustered>,
    rival: Rival,
    _folder: tempfile::TempDir,
}

impl World {
    /// A cluster that is a zone of a global. Whatever the control plane writes first, somebody else
    /// writes before.
    fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut global = ControlPlane::global(folder.path(), at(1))?;
        global.start()?;
        let zone = Zone { name: ZONE, address: at(2), namespace: None };
        let mut zone = Clustered::new(zone, Some(&global))?;
        let rival = Rival::start((at(3), 8443).into())?;
        zone.create(&rival.webhook(ACCOUNT))?;
        zone.control_plane.start()?;
        Ok(Self { zone, global, alone: None, rival, _folder: folder })
    }

    fn used(&self) -> Result<Vec<Asked>> {
        let alone = self.alone.as_ref().map(Clustered::asked).transpose()?;
        Ok(self.zone.asked()?.into_iter().chain(alone.into_iter().flatten()).collect())
    }

    /// Waits until the control plane did something.
    fn until(&self, verb: &str, kind: Kind) -> Result<()> {
        let is = |it: &Asked| (it.verb.as_str(), it.resource.as_str()) == (verb, plural(kind));
        wait::until(&format!("{verb} {}", plural(kind)), PATIENCE, || {
            let done = self.used()?.iter().any(|it| is(it) && it.code < 300);
            ensure!(done, "not yet: {}", self.global.tail());
            Ok(())
        })
    }

    fn do_everything(&mut self) -> Result<()> {
        self.pods().context("pods")?;
        self.copies().context("copies")?;
        self.own().context("its own")?;
        self.insights().context("insights")?;
        self.definitions().context("definitions")?;
        self.without_global().context("alone")
    }

    /// A pod with a proxy comes and goes, and with it what is made of it.
    fn pods(&self) -> Result<()> {
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": { "name": "shop", "labels": { "kuma.io/sidecar-injection": "enabled" } },
        });
        self.zone.create(&namespace)?;
        let object = |kind: &str, name: &str, rest: Value| {
            let mut object = json!({
                "apiVersion": "v1", "kind": kind, "metadata": { "name": name, "namespace": "shop" },
            });
            for (key, value) in rest.as_object().into_iter().flatten() {
                set(&mut object, key, value.clone());
            }
            object
        };
        let port = |protocol: &str| json!([{ "port": 8080, "protocol": protocol }]);
        let service = |name: &str, protocol: &str| {
            let spec = json!({ "selector": { "app": "cart" }, "ports": port(protocol) });
            object("Service", name, json!({ "spec": spec }))
        };
        let metadata = json!({
            "name": "cart-1", "namespace": "shop", "labels": { "app": "cart" },
            "annotations": { "kuma.io/transparent-proxying": "disabled" },
        });
        let spec = json!({
            "serviceAccountName": "default", "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "app", "image": "app", "ports": [{ "containerPort": 8080 }] }],
        });
        for object in [
            object("ServiceAccount", "default", json!({})),
            service("cart", "TCP"),
            // That is nothing for the mesh, and it is told so.
            service("names", "UDP"),
            object("Pod", "cart-1", json!({ "metadata": metadata, "spec": spec })),
        ] {
            self.zone.create(&object)?;
        }
        self.until("create", kinds::mesh_service::KIND)?;
        let ip = at(5).to_string();
        let status = json!({ "status": {
            "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }],
            "conditions": [{ "type": "Ready", "status": "True" }],
        } });
        let kubectl = |words: &[&str]| self.zone.server.kubectl(words);
        let status = format!("--patch={status}");
        kubectl(&["patch", "pod/cart-1", "--namespace=shop", "--subresource=status", &status])?;
        self.until("create", kinds::dataplane::KIND)?;
        self.proxy()?;
        kubectl(&["delete", "pod/cart-1", "service/cart", "--namespace=shop"])?;
        self.until("delete", dataplane_insight::KIND)
    }

    /// Runs the proxy of the pod until it has a configuration.
    fn proxy(&self) -> Result<()> {
        let folder = self.zone.folder().join("cart-1");
        fs::create_dir_all(&folder)?;
        let token = self.zone.server.kubectl(&[
            "create",
            "token",
            "default",
            "--namespace=shop",
            "--audience=atoll",
            "--bound-object-kind=Pod",
            "--bound-object-name=cart-1",
        ])?;
        fs::write(folder.join("token"), token.trim())?;
        let path = "--output=go-template={{index .data \"ca.crt\" | base64decode}}";
        let ca = self.zone.server.kubectl(&[
            "get",
            "secret/atoll-zone-cp-tls",
            "--namespace",
            SYSTEM,
            path,
        ])?;
        let address = format!("https://{}:5678", at(2));
        let settings = json!({
            // It has no name here by which it could be called.
            "zone": { "address": address, "ca": ca, "serverName": "localhost" },
            "tokenFile": folder.join("token"),
            "mesh": "default",
            "name": "cart-1.shop",
            "envoy": { "path": envoy()?, "concurrency": 1, "drainTime": "0s" },
            "workdir": folder.join("envoy"),
            "readiness": { "address": format!("{}:9902", at(5)) },
        });
        let file = folder.join("settings.json");
        fs::write(&file, settings.to_string())?;
        let program = programs()?.join("sidecar").display().to_string();
        let command = [&*program, "--config", &file.display().to_string()];
        let mut proxy = Process::start("cart-1", &folder, None, &command)?;
        let seen = self.until("create", dataplane_insight::KIND);
        let seen = seen.and_then(|()| self.until("update", dataplane_insight::KIND));
        proxy.signal(Signal::TERM);
        proxy.ended(PATIENCE)?;
        seen.with_context(|| proxy.tail())
    }

    /// What global has comes, changes and goes.
    fn copies(&self) -> Result<()> {
        let written = |kind: &Kind| {
            let by_zones =
                matches!(kind.flow, Flow::Local | Flow::ZoneToGlobal | Flow::ZoneToZones);
            kind.access != Access::ReadOnly && kind.flow.requested_by_zones() && !by_zones
        };
        let all: Vec<Kind> = kinds::all().filter(written).collect();
        // Some of them make others of their name.
        let documents =
            || all.iter().map(|kind| document(*kind, &format!("copied-{}", kind.plural)));
        for document in documents() {
            let (path, document) = document?;
            self.global.put(&path, &document)?;
        }
        all.iter().try_for_each(|kind| self.until("create", *kind))?;
        for document in documents() {
            let (path, document) = document?;
            self.global.put(&path, &changed(document))?;
        }
        all.iter().try_for_each(|kind| self.until("update", *kind))?;
        for document in documents() {
            self.global.delete(&document?.0)?;
        }
        all.iter().try_for_each(|kind| self.until("delete", *kind))
    }

    /// What the zone's administrator writes comes, changes and goes.
    fn own(&self) -> Result<()> {
        let written = |kind: &Kind| {
            let served = !kind.path.is_empty();
            served && kind.access == Access::Users && kind.flow.written_in_zones()
        };
        for kind in kinds::all().filter(written) {
            let own = format!("own-{}", kind.plural);
            let name = if kind.name == zone::KIND.name { ZONE } else { &own };
            let (path, mut document) = document(kind, name)?;
            set(&mut document, "labels", json!({ "kuma.io/origin": "zone" }));
            let zone = &self.zone.control_plane;
            zone.put(&path, &document)?;
            zone.put(&path, &changed(document))?;
            zone.delete(&path)?;
        }
        Ok(())
    }

    /// A Kuma global makes ServiceInsights; ours has one that was left by it.
    fn insights(&mut self) -> Result<()> {
        for (verb, services) in
            [("create", Some("web")), ("update", Some("cart")), ("delete", None)]
        {
            self.global.stop()?;
            keep(&self.global, services)?;
            self.global.start()?;
            self.until(verb, service_insight::KIND)?;
        }
        Ok(())
    }

    /// A zone without a global makes what belongs to its meshes, and remembers what it made.
    fn without_global(&mut self) -> Result<()> {
        let zone = Zone { name: "k8s-2", address: at(12), namespace: None };
        let zone = self.alone.insert(Clustered::new(zone, None)?);
        zone.create(&self.rival.webhook(ACCOUNT))?;
        zone.control_plane.start()?;
        let (path, mesh) = document(kinds::mesh::KIND, "shop")?;
        zone.control_plane.put(&path, &mesh)?;
        wait::until("the mesh has an insight", PATIENCE, || {
            zone.server.kubectl(&["get", "meshinsight", "shop"])
        })?;
        zone.control_plane.delete(&path)?;
        self.until("delete", kinds::config::KIND)
    }

    /// A definition goes and comes again.
    fn definitions(&self) -> Result<()> {
        let name = "customresourcedefinition/meshtraces.kuma.io";
        let kubectl = |words: &[&str]| self.zone.server.kubectl(words);
        let mut definition: Value =
            serde_json::from_str(&kubectl(&["get", name, "--output=json"])?)?;
        let metadata = json!({ "name": "meshtraces.kuma.io" });
        set(&mut definition, "metadata", metadata);
        let lists = || -> Result<usize> {
            let used = self.used()?;
            let is =
                |it: &&Asked| it.resource == "meshtraces" && it.verb == "watch" && it.code == 200;
            Ok(used.iter().filter(is).count())
        };
        let before = lists()?;
        kubectl(&["delete", name])?;
        self.zone.create(&definition)?;
        wait::until("the kind is watched again", PATIENCE, || {
            ensure!(lists()? > before, "not yet: {}", self.zone.control_plane.tail());
            Ok(())
        })
    }
}

/// How a kind is called in the cluster.
fn plural(kind: Kind) -> &'static str {
    match (kind.custom, kind.name) {
        (None, "Secret" | "GlobalSecret") => "secrets",
        (None, "Config") => "configmaps",
        _ => kind.plural,
    }
}

/// Where a resource of a kind is in the API, and what it says.
fn document(kind: Kind, name: &str) -> Result<(String, Value)> {
    let mesh = (kind.scope == Scope::Mesh).then_some("default");
    let path = match mesh {
        Some(mesh) => format!("/meshes/{mesh}/{}/{name}", kind.path),
        None => format!("/{}/{name}", kind.path),
    };
    let mut document = match kind.access {
        Access::Admins => json!({ "data": "YQ==" }),
        Access::Users | Access::ReadOnly => {
            let all: Vec<Value> = serde_saphyr::from_multiple(GOOD)?;
            let is = |it: &&Value| it.get("kind").is_some_and(|it| it == kind.name);
            let manifest = all.iter().find(is).with_context(|| format!("no {}", kind.name))?;
            let content = kind.custom.map_or("spec", |custom| custom.content);
            let content = manifest.get(content).cloned().unwrap_or_else(|| json!({}));
            if kind.inline { content } else { json!({ "spec": content }) }
        }
    };
    set(&mut document, "type", kind.name.into());
    set(&mut document, "name", name.into());
    if let Some(mesh) = mesh {
        set(&mut document, "mesh", mesh.into());
    }
    Ok((path, document))
}

/// The same document that says something else.
fn changed(mut document: Value) -> Value {
    if document.get("data").is_some() {
        set(&mut document, "data", "Yg==".into());
        return document;
    }
    let mut labels = document.get("labels").cloned().unwrap_or_else(|| json!({}));
    set(&mut labels, "changed", "yes".into());
    set(&mut document, "labels", labels);
    document
}

/// Puts a ServiceInsight of `service` into the store of a global that does not run, or takes it away.
fn keep(global: &ControlPlane, service: Option<&str>) -> Result<()> {
    let kinds = Kinds { list: kinds::all().collect(), peer: Peer::Zone };
    let kind = service_insight::KIND;
    let id = kinds.id_of(kind.name).context("the kind")?;
    let key = ResourceKey::in_mesh(&resource::MeshName::new("default")?, "all-services-default");
    let edit = match service {
        None => Edit::Delete(key),
        Some(service) => {
            let spec =
                kind.from_json(json!({ "services": { service: { "status": "online" } } }))?;
            let (labels, status) = (resource::Labels::default(), bytes::Bytes::new());
            let row: Resource =
                kind.resource(key, labels, kind.encode(&spec)?, status, Peer::Zone)?;
            Edit::Put(Arc::new(row))
        }
    };
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let clock = daemon::Clock::system();
        let config = store::Config::default();
        let (store, writing) = config.open(&global.folder.join("data"), &kinds, &clock).await?;
        let item = Item { kind: id, expected: Expected::Anything, edit };
        let write = async move {
            let committed = store.commit(vec![item]).await?;
            match &*committed.outcomes {
                [store::Outcome::Done] => Ok(()),
                other => bail!("{other:?}"),
            }
        };
        let (written, ended) = tokio::join!(write, writing);
        written.and(Ok(ended?))
    })
}
