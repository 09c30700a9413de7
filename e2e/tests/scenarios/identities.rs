//! Certificates under traffic.

use super::{
    Scenario,
    calls::{answered, at, permit, still},
    changes::drains,
    permissions::allow,
};
use anyhow::{Context, Result, bail};
use e2e::{
    PATIENCE,
    control_plane::{ControlPlane, set},
    lab::{Lab, Plan, Proxy},
    peer::{Ask, Client},
    wait::{self, Limit},
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub(crate) const ALL: &[Scenario] = &[
    ("certificates_are_replaced_under_traffic", certificates_are_replaced_under_traffic),
    ("authorities_are_replaced_under_traffic", authorities_are_replaced_under_traffic),
    (
        "another_trust_domain_is_introduced_under_traffic",
        another_trust_domain_is_introduced_under_traffic,
    ),
];

/// Lets the certificates of the mesh be valid for that long only.
fn valid_for(lab: &Lab, time: &str) -> Result<()> {
    const IDENTITY: &str = "/meshes/default/meshidentities/identity";
    let mut identity = lab.global.get(IDENTITY)?;
    let bundled = identity.pointer_mut("/spec/provider/bundled").context("bundled")?;
    let parameters = json!({ "expiry": time });
    bundled
        .as_object_mut()
        .context("an object")?
        .insert("certificateParameters".into(), parameters);
    lab.global.put(IDENTITY, &identity)
}

/// The serial numbers of the certificates that an Envoy shows: one, or two while one user of the
/// secret has the next one and another has not.
pub(crate) fn serials(proxy: &Proxy) -> Result<BTreeSet<String>> {
    let certs: Value = serde_json::from_str(&proxy.admin("/certs")?)?;
    let all = certs.get("certificates").and_then(Value::as_array).context("certificates")?;
    let chains = all.iter().filter_map(|it| it.pointer("/cert_chain/0/serial_number"));
    let serials: BTreeSet<_> = chains.filter_map(Value::as_str).map(str::to_owned).collect();
    if matches!(serials.len(), 1 | 2) { Ok(serials) } else { bail!("{certs}") }
}

/// Opens a connection to `log` and hears it.
fn greeted(client: &mut Client, to: &str) -> Result<()> {
    client.connect(to)?;
    let told = client.ask(&Ask::Read)?;
    if told.body == "hello from log-1\n" { Ok(()) } else { bail!("{told:?}") }
}

fn echo(client: &mut Client, text: &str) -> Result<()> {
    let told = client.ask(&Ask::Echo { text: text.into() })?;
    if told.error.is_empty() && told.body == text { Ok(()) } else { bail!("{told:?}") }
}

/// How many rounds of calls follow a change.
const AFTER: u32 = 20;

/// What a change may do to connections of bytes that are open.
#[derive(Clone, Copy, Debug)]
enum Open {
    Stay,
    /// Envoy ends them some time after a listener changed.
    MayDrain,
}

/// `web` in west, which calls `cart` and `log` in east.
struct Scene {
    lab: Lab,
    web: Proxy,
    cart: Proxy,
    log: Proxy,
    _ingress: Proxy,
}

impl Scene {
    fn start(valid: &str) -> Result<Self> {
        let mut lab = Lab::start(&["west", "east"])?;
        valid_for(&lab, valid)?;
        let ingress = lab.ingress("east", "ingress-1")?;
        let cart = lab.workload(&Plan::new("east", "cart", 1))?;
        let log = lab.workload(&Plan::new("east", "log", 1).tcp())?;
        let web = lab.workload(&Plan::new("west", "web", 1))?;
        for server in ["cart", "log"] {
            permit(&lab, server, "allow", "web")?;
        }
        Ok(Self { lab, web, cart, log, _ingress: ingress })
    }

    /// Calls on open connections and on new ones, each with a handshake, while `act` is called again
    /// and again until it says that it is done. Nothing fails.
    fn under_traffic(
        &mut self,
        open: Open,
        mut act: impl FnMut(&mut Self) -> Result<bool>,
    ) -> Result<()> {
        let clients = [self.web.client()?, self.web.client()?, self.web.client()?];
        let [mut http, mut steady, mut fresh] = clients;
        answered(&mut http, &at("cart", "east"), 200)?;
        let log = at("log", "east");
        wait::until("an answer of log", PATIENCE, || greeted(&mut steady, &log))?;
        http.ask(&Ask::Load)?;
        let mut another = self.web.client()?;
        let limit = Limit::after(PATIENCE);
        // What `act` did may show in connections that come after it.
        let (mut done, mut after) = (false, 0);
        while after < AFTER {
            done = done || act(self)?;
            after += u32::from(done);
            limit.check(&format!("{done}, and {after} rounds of calls"))?;
            match (open, echo(&mut steady, "still here")) {
                (Open::Stay, told) => told.context("the open connection")?,
                (Open::MayDrain, Ok(())) => {}
                (Open::MayDrain, Err(_)) => greeted(&mut steady, &log)?,
            }
            // Bytes are not pooled: each connection is one between the Envoys.
            greeted(&mut fresh, &log)?;
            another.connect(&at("cart", "east"))?;
            still(&mut another, 200)?;
        }
        let told = http.ask(&Ask::Stop)?;
        if told.bad != 0 || told.good < u64::from(AFTER) { bail!("{told:?}") } else { Ok(()) }
    }
}

/// Both ends get new certificates again and again, and each is shown only as long as it is valid.
/// Nothing fails: not a request on open connections, nor on new ones, each with a handshake.
fn certificates_are_replaced_under_traffic() -> Result<()> {
    const ROTATIONS: usize = 3;
    let mut scene = Scene::start("5s")?;
    let (mut of_web, mut of_cart) = (BTreeSet::new(), BTreeSet::new());
    scene.under_traffic(Open::Stay, |scene| {
        of_web.append(&mut serials(&scene.web)?);
        of_cart.append(&mut serials(&scene.cart)?);
        Ok(of_web.len().min(of_cart.len()) > ROTATIONS)
    })
}

/// How far the replacement of a zone's authority is.
enum Stage {
    Before,
    /// It was replaced; the old certificates of authorities, and those of a proxy.
    Replaced(Vec<String>, BTreeSet<String>),
    /// What was before is trusted no more.
    Withdrawn(Vec<String>),
}

const TRUSTS: &str = "/meshes/default/meshtrusts";

/// The MeshTrust that a zone made.
fn trust_of(control_plane: &ControlPlane, zone: &str) -> Result<Value> {
    let mut all = control_plane.get(TRUSTS)?;
    let items = all.get_mut("items").and_then(Value::as_array_mut).context("items")?;
    let is_own = |it: &Value| it.pointer("/labels/kuma.io~1zone") == Some(&json!(zone));
    items.iter().find(|it| is_own(it)).cloned().with_context(|| format!("none of {zone}"))
}

/// The certificates of authorities that the MeshTrust of a zone has.
fn bundles(trust: &Value) -> Result<Vec<String>> {
    let bundles = trust.pointer("/spec/caBundles").and_then(Value::as_array).context("bundles")?;
    let pem = |bundle: &Value| bundle.pointer("/pem/value")?.as_str().map(str::to_owned);
    bundles.iter().map(|bundle| pem(bundle).context("a PEM")).collect()
}

/// Whether an Envoy trusts one of those.
fn trusts_any(proxy: &Proxy, certificates: &[String]) -> Result<bool> {
    let secrets = proxy.admin("/config_dump?resource=dynamic_active_secrets")?;
    if !secrets.contains("BEGIN CERTIFICATE") {
        bail!("nothing is trusted: {secrets}");
    }
    // The first line after the header has the serial number.
    let mut serials = certificates.iter().filter_map(|pem| pem.lines().nth(1));
    Ok(serials.any(|line| secrets.contains(line)))
}

/// Takes the next step in the replacement of a zone's authority, once the last one shows in Envoys;
/// `true` if that was the last.
fn step(scene: &mut Scene, zone: &str, stage: &mut Stage) -> Result<bool> {
    let control_plane = scene.lab.zone(zone)?;
    let proxy = if zone == "east" { &scene.cart } else { &scene.web };
    match stage {
        Stage::Before => {
            let (old, shown) = (bundles(&trust_of(control_plane, zone)?)?, serials(proxy)?);
            // Without them the zone makes another authority.
            for secret in ["identity-root-ca", "identity-private-key"] {
                control_plane.delete(&format!("/meshes/default/secrets/{secret}"))?;
            }
            *stage = Stage::Replaced(old, shown);
        }
        Stage::Replaced(old, before) => {
            let shown = serials(proxy)?;
            if shown.len() == 1 && shown.is_disjoint(before) {
                let mut trust = trust_of(control_plane, zone)?;
                let list = trust.pointer_mut("/spec/caBundles").and_then(Value::as_array_mut);
                let is_old = |bundle: &Value| {
                    let pem = bundle.pointer("/pem/value").and_then(Value::as_str);
                    pem.is_some_and(|pem| old.iter().any(|it| it == pem))
                };
                let list = list.context("bundles")?;
                list.retain(|bundle| !is_old(bundle));
                if list.is_empty() {
                    bail!("the new authority is not in the MeshTrust");
                }
                let name = trust.get("name").and_then(Value::as_str).context("a name")?;
                control_plane.put(&format!("{TRUSTS}/{name}"), &trust)?;
                *stage = Stage::Withdrawn(std::mem::take(old));
            }
        }
        Stage::Withdrawn(old) => {
            for proxy in [&scene.web, &scene.cart, &scene.log] {
                if trusts_any(proxy, old)? {
                    return Ok(false);
                }
            }
            return Ok(true);
        }
    }
    Ok(false)
}

/// The authority of the server's zone is replaced, and then that of the caller's; each old one is
/// trusted no more at the end. Nothing fails, and nothing is drained.
fn authorities_are_replaced_under_traffic() -> Result<()> {
    let mut scene = Scene::start("24h")?;
    let before = [drains(&scene.web)?, drains(&scene.cart)?];
    for zone in ["east", "west"] {
        let mut stage = Stage::Before;
        let traffic = scene.under_traffic(Open::Stay, |scene| step(scene, zone, &mut stage));
        traffic.with_context(|| format!("the authority of {zone} is replaced"))?;
    }
    let after = [drains(&scene.web)?, drains(&scene.cart)?];
    if before == after { Ok(()) } else { bail!("{before:?}, then {after:?}") }
}

/// A second identity, with a trust domain of its own, for the proxies with those labels.
fn put_second(lab: &Lab, labels: &Value) -> Result<()> {
    let mut identity = lab.global.get("/meshes/default/meshidentities/identity")?;
    let spec = identity.get_mut("spec").context("spec")?;
    set(spec, "selector", json!({ "dataplane": { "matchLabels": labels } }));
    set(spec, "spiffeID", json!({ "trustDomain": "{{ .Mesh }}.{{ .Zone }}.example.org" }));
    let second =
        json!({ "type": "MeshIdentity", "mesh": "default", "name": "second", "spec": spec });
    lab.global.put("/meshes/default/meshidentities/second", &second)
}

/// Whether the Envoy of a caller takes those for `cart`.
fn takes(proxy: &Proxy, ids: [&str; 2]) -> Result<[bool; 2]> {
    let dump = proxy.admin("/config_dump?resource=dynamic_active_clusters")?;
    Ok(ids.map(|id| dump.contains(id)))
}

/// The way of `docs/operate.md`: a second identity is published, then it issues, then the first goes.
/// No request fails and no new connection; what is open and has no requests is drained.
fn another_trust_domain_is_introduced_under_traffic() -> Result<()> {
    const IDS: [&str; 2] = [
        "spiffe://default.east.mesh.local/workload/cart\"",
        "spiffe://default.east.example.org/workload/cart\"",
    ];
    let mut scene = Scene::start("24h")?;
    let callers =
        ["mesh.local", "example.org"].map(|it| format!("spiffe://default.west.{it}/workload/web"));
    for server in ["cart", "log"] {
        allow(&scene.lab, server, &callers.each_ref().map(String::as_str))?;
    }
    put_second(&scene.lab, &json!({}))?;
    let published =
        scene.under_traffic(Open::Stay, |scene| Ok(takes(&scene.web, IDS)? == [true, true]));
    published.context("the second is published")?;
    let all = |scene: &Scene| {
        let proxies = [&scene.web, &scene.cart, &scene.log];
        proxies.into_iter().map(serials).collect::<Result<Vec<_>>>()
    };
    let before = all(&scene)?;
    put_second(&scene.lab, &json!({ "kuma.io/mesh": "default" }))?;
    // An Envoy shows the one before too as long as a connection is open that was made with it.
    let issues = scene.under_traffic(Open::MayDrain, |scene| {
        let shown = all(scene)?;
        Ok(shown.iter().zip(&before).all(|(shown, before)| !shown.is_subset(before)))
    });
    issues.with_context(|| format!("the second issues: {before:?}, then {:?}", all(&scene)))?;
    wait::until("only the second is shown", PATIENCE, || {
        let shown = all(&scene)?;
        let mut both = shown.iter().zip(&before);
        if both.all(|(shown, before)| shown.is_disjoint(before)) {
            Ok(())
        } else {
            bail!("{shown:?}")
        }
    })?;
    if takes(&scene.web, IDS)? != [true, true] {
        bail!("the first is not taken any more, though it is there");
    }
    scene.lab.global.delete("/meshes/default/meshidentities/identity")?;
    let gone =
        scene.under_traffic(Open::MayDrain, |scene| Ok(takes(&scene.web, IDS)? == [false, true]));
    gone.context("the first is gone")
}
