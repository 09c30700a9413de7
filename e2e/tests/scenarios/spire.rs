//! Certificates that a SPIRE agent has.

use super::{
    Scenario,
    calls::{answered, at, still},
    identities::serials,
    permissions::allow,
};
use anyhow::{Context as _, Result, bail};
use e2e::{
    PATIENCE,
    lab::{Lab, Plan, Proxy, envoy},
    peer::{Ask, Client},
    spire::{Attestor, Spire, TRUST_DOMAIN, id},
    wait,
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fs, path::PathBuf, time::Duration};

pub(crate) const ALL: &[Scenario] = &[(
    "spire_a_call_crosses_zones_with_certificates_of_spire",
    a_call_crosses_zones_with_certificates_of_spire,
)];

/// SPIRE renews a certificate after half of that.
const LIFE: Duration = Duration::from_secs(20);
/// Longer than such a certificate lives.
const LONG: Duration = Duration::from_secs(40);

/// `web` in west, `cart` and `log` in east, and a SPIRE for both zones.
struct Scene {
    lab: Lab,
    spire: Spire,
    web: Proxy,
    cart: Proxy,
    _log: Proxy,
    _ingress: Proxy,
}

/// An Envoy of its own name: by that SPIRE tells workloads of this machine apart.
fn program(lab: &Lab, workload: &str) -> Result<PathBuf> {
    let path = lab.folder().join(format!("envoy-{workload}"));
    fs::copy(envoy()?, &path)?;
    Ok(path)
}

fn plan(lab: &Lab, socket: &Value, zone: &'static str, workload: &'static str) -> Result<Plan> {
    let envoy = json!({ "path": program(lab, workload)?, "concurrency": 1, "drainTime": "2s" });
    let settings = json!({ "spire": { "socketPath": socket }, "envoy": envoy });
    Ok(Plan { settings, ..Plan::new(zone, workload, 1) })
}

fn identity(lab: &Lab, provider: &Value) -> Result<()> {
    let identity = json!({
        "type": "MeshIdentity", "mesh": "default", "name": "identity",
        "spec": {
            "selector": { "dataplane": { "matchLabels": {} } },
            "spiffeID": { "trustDomain": TRUST_DOMAIN, "path": "/workload/{{ .Workload }}" },
            "provider": provider,
        },
    });
    lab.global.put("/meshes/default/meshidentities/identity", &identity)
}

impl Scene {
    fn start() -> Result<Self> {
        let mut lab = Lab::start(&["west", "east"])?;
        identity(&lab, &json!({ "type": "Spire" }))?;
        let host = lab.host("west")?;
        let inside = ["ip", "netns", "exec", &host.namespace].map(str::to_owned).into();
        let spire = Spire::start(inside, Attestor::Unix, &lab.folder().join("spire"), LIFE)?;
        let socket = json!(spire.socket());
        let ingress = lab.ingress("east", "ingress-1")?;
        let plans = [("east", "cart"), ("west", "web"), ("east", "log")];
        let plans = plans.map(|(zone, workload)| plan(&lab, &socket, zone, workload));
        let [cart, web, log] = plans;
        let (cart, web) = (lab.workload(&cart?)?, lab.workload(&web?)?);
        let log = lab.workload(&log?.tcp())?;
        for server in ["cart", "log"] {
            allow(&lab, server, &[&id("/workload/web")])?;
        }
        Ok(Self { lab, spire, web, cart, _log: log, _ingress: ingress })
    }

    /// SPIRE knows a workload from now on.
    fn enter(&self, workload: &str) -> Result<()> {
        let path = self.lab.folder().join(format!("envoy-{workload}"));
        let selector = format!("unix:path:{}", path.display());
        self.spire.enter(&format!("/workload/{workload}"), &[&selector])
    }
}

fn greeted(client: &mut Client, to: &str) -> Result<()> {
    client.connect(to)?;
    let told = client.ask(&Ask::Read)?;
    if told.body == "hello from log-1\n" { Ok(()) } else { bail!("{told:?}") }
}

/// Nobody is called before SPIRE knows it, and then without a restart. Certificates are renewed under
/// traffic, and while the agent is away; permissions count, of TCP too, on open connections as well.
/// Who names no agent is told so.
fn a_call_crosses_zones_with_certificates_of_spire() -> Result<()> {
    let mut scene = Scene::start()?;
    let mut client = scene.web.client()?;
    let (cart, log) = (at("cart", "east"), at("log", "east"));
    answered(&mut client, &cart, 503)?;
    for workload in ["web", "cart", "log"] {
        scene.enter(workload)?;
    }
    let told = answered(&mut client, &cart, 200)?;
    let body: Value = serde_json::from_str(&told.body)?;
    let seen = body.pointer("/headers/x-forwarded-client-cert").and_then(Value::as_str);
    let seen = seen.context("the application was not told who calls")?;
    for part in [format!("By={}", id("/workload/cart")), format!("URI={}", id("/workload/web"))] {
        if !seen.split(';').any(|it| it == part) {
            bail!("{part} is missing in {seen}");
        }
    }
    renewed_under_traffic(&mut scene, &cart)?;
    by_bytes(&scene, &log)?;

    let unknown = scene.lab.launch(&Plan::new("west", "unknown", 1))?;
    wait::until("who names no agent is told so", PATIENCE, || {
        let what = "and the proxy names no SPIRE agent: spire.socketPath of its settings";
        if unknown.log().contains(what) { Ok(()) } else { bail!("{}", unknown.log()) }
    })?;

    // The zone issues them itself from now on: no proxy begins anew.
    let bundled = json!({ "type": "Bundled", "bundled": { "autogenerate": { "enabled": true } } });
    identity(&scene.lab, &bundled)?;
    wait::until("a certificate of the zone", PATIENCE, || {
        let shown = scene.cart.admin("/certs")?;
        let certs: Value = serde_json::from_str(&shown)?;
        let left = certs.pointer("/certificates/0/cert_chain/0/days_until_expiration");
        // One of SPIRE ends today.
        if left.is_some_and(|days| *days != json!("0")) { Ok(()) } else { bail!("{shown}") }
    })
}

/// Three certificates of each end come and go, the last while no agent is there. No request fails.
fn renewed_under_traffic(scene: &mut Scene, cart: &str) -> Result<()> {
    let mut load = scene.web.client()?;
    answered(&mut load, cart, 200)?;
    load.ask(&Ask::Load)?;
    let (mut of_web, mut of_cart) = (BTreeSet::new(), BTreeSet::new());
    let mut fresh = scene.web.client()?;
    wait::until("three certificates of each", LONG, || {
        fresh.connect(cart)?;
        still(&mut fresh, 200)?;
        of_web.extend(serials(&scene.web)?);
        of_cart.extend(serials(&scene.cart)?);
        if of_web.len() < 3 || of_cart.len() < 3 {
            bail!("{} of web, {} of cart", of_web.len(), of_cart.len());
        }
        Ok(())
    })?;
    scene.spire.kill_agent()?;
    fresh.connect(cart)?;
    still(&mut fresh, 200).context("without an agent")?;
    scene.spire.start_agent()?;
    let before = of_cart.len();
    wait::until("another one from the next agent", LONG, || {
        of_cart.extend(serials(&scene.cart)?);
        if of_cart.len() > before { Ok(()) } else { bail!("none yet") }
    })?;
    let told = load.ask(&Ask::Stop)?;
    if told.bad != 0 || told.good == 0 { bail!("{told:?}") } else { Ok(()) }
}

/// Who may connect changes for new connections and for open ones.
fn by_bytes(scene: &Scene, log: &str) -> Result<()> {
    let mut client = scene.web.client()?;
    wait::until("an answer of log", PATIENCE, || greeted(&mut client, log))?;
    allow(&scene.lab, "log", &[&id("/workload/nobody")])?;
    wait::until("the open connection ends", PATIENCE, || {
        let told = client.ask(&Ask::Echo { text: "still here".into() })?;
        if told.error.is_empty() { bail!("{told:?}") } else { Ok(()) }
    })?;
    let mut stranger = scene.web.client()?;
    wait::until("nobody is greeted who may not call", PATIENCE, || {
        if greeted(&mut stranger, log).is_ok() { bail!("it was greeted") } else { Ok(()) }
    })?;
    allow(&scene.lab, "log", &[&id("/workload/web")])?;
    wait::until("an answer of log again", PATIENCE, || greeted(&mut stranger, log))
}
