//! Clients and servers that are not who they should be.

use super::{
    Scenario,
    calls::{answered, at, still},
    note,
    permissions::{WEB, allow},
};
use anyhow::{Result, bail};
use e2e::{
    PATIENCE,
    lab::{Lab, PORT, Plan, Proxy},
    peer::{Ask, Client, Hello, Told},
    tls::{self, Authority, NOW},
    wait,
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

pub(crate) const ALL: &[Scenario] = &[
    (
        "an_inbound_refuses_whoever_is_not_of_the_mesh",
        an_inbound_refuses_whoever_is_not_of_the_mesh,
    ),
    (
        "an_ingress_leads_nowhere_but_to_the_services_of_its_zone",
        an_ingress_leads_nowhere_but_to_the_services_of_its_zone,
    ),
    ("a_server_that_is_somebody_else_is_not_called", a_server_that_is_somebody_else_is_not_called),
];

/// The trust domain of an authority that the mesh believes because global says so.
const OUTSIDE: &str = "outside.example";
const TRUST: &str = "/meshes/default/meshtrusts/outside";
const SNI: &str = "sni.msvc.default.east.cart.http";
const XFCC: &str = "x-forwarded-client-cert";

/// A guest with a certificate of its own, on a host without a sidecar, who may call `cart`.
struct Scene {
    lab: Lab,
    outside: Authority,
    guest: String,
    client: Client,
    ingress: Proxy,
    cart: Proxy,
}

impl Scene {
    fn start() -> Result<Self> {
        let mut lab = Lab::start(&["west", "east"])?;
        let outside = Authority::new(OUTSIDE)?;
        lab.global.put(TRUST, &outside.trust("default", "outside"))?;
        let guest = outside.workload("guest");
        allow(&lab, "cart", &[WEB, &guest])?;
        let ingress = lab.ingress("east", "ingress-1")?;
        let cart = lab.workload(&Plan::new("east", "cart", 1))?;
        let client = Client::start(Some(&lab.host("east")?.namespace))?;
        Ok(Self { lab, outside, guest, client, ingress, cart })
    }

    fn inbound(&self) -> String {
        format!("{}:{PORT}", self.cart.host.address)
    }

    /// What the guest shows, as the mesh wants it.
    fn good(&self) -> Result<Hello> {
        self.with(&[&self.guest])
    }

    fn with(&self, ids: &[&str]) -> Result<Hello> {
        Ok(hello(self.outside.issue(ids, NOW)?))
    }
}

fn hello(identity: (String, String)) -> Hello {
    Hello { identity: Some(identity), alpn: vec!["kuma".into()], ..Hello::default() }
}

/// The answer to a request on a new connection.
fn call(client: &mut Client, to: &str, hello: &Hello) -> Result<Told> {
    let told = client.ask(&Ask::Secure { to: to.into(), hello: hello.clone() })?;
    if !told.error.is_empty() {
        bail!("{}", told.error);
    }
    client.get("/")
}

/// The answer to a request with `headers` on the open connection.
fn with_headers(client: &mut Client, headers: &[(&str, &str)]) -> Result<Told> {
    let headers = headers.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    let told = client.ask(&Ask::Get { path: "/".into(), headers })?;
    if told.error.is_empty() { Ok(told) } else { bail!("{}", told.error) }
}

fn status(client: &mut Client, to: &str, hello: &Hello, status: u16, what: &str) -> Result<()> {
    let told = call(client, to, hello)?;
    if told.status == Some(status) { Ok(()) } else { bail!("{what}: {told:?}") }
}

/// Fails unless the connection was refused, and at once.
fn refused(what: &str, outcome: Result<Told>) -> Result<()> {
    match outcome {
        Ok(told) => bail!("{what} was answered: {told:?}"),
        Err(error) => {
            let error = format!("{error:#}");
            if error.contains("nothing within") {
                bail!("{what} was neither answered nor refused");
            }
            note(&format!("refused {what}: {error}"));
            Ok(())
        }
    }
}

/// A certificate counts if an authority that speaks for its trust domain signed it, and it names
/// one of that domain. Everybody else is refused in the handshake; who is known and may not call is
/// answered 403.
fn an_inbound_refuses_whoever_is_not_of_the_mesh() -> Result<()> {
    let mut scene = Scene::start()?;
    let (to, good) = (scene.inbound(), scene.good()?);
    let Scene { lab, outside, guest, client, .. } = &mut scene;
    wait::until("the guest is answered", PATIENCE, || status(client, &to, &good, 200, "guest"))?;

    // Of the same trust domain, but believed in another mesh.
    let others = Authority::new(OUTSIDE)?;
    lab.global.put("/meshes/other", &json!({ "type": "Mesh", "name": "other" }))?;
    lab.global.put("/meshes/other/meshtrusts/outside", &others.trust("other", "outside"))?;
    let nowhere = Authority::new("nowhere.example")?;
    let without = |alpn: &[&str]| Hello {
        alpn: alpn.iter().map(ToString::to_string).collect(),
        ..good.clone()
    };
    let hostile = [
        ("no certificate", Hello { identity: None, ..good.clone() }),
        ("a certificate of its own making", hello(tls::self_made(guest)?)),
        ("the authority of another mesh", hello(others.issue(&[guest], NOW)?)),
        ("a trust domain that nobody knows", hello(nowhere.issue(&[guest], NOW)?)),
        ("a name of a trust domain that nobody knows", {
            hello(nowhere.issue(&[&nowhere.workload("guest")], NOW)?)
        }),
        ("a name of another trust domain", hello(outside.issue(&[WEB], NOW)?)),
        ("an expired certificate", hello(outside.issue(&[guest], -2..-1)?)),
        ("a certificate of tomorrow", hello(outside.issue(&[guest], 1..2)?)),
        ("a certificate without a SPIFFE ID", hello(outside.issue(&[], NOW)?)),
        ("no ALPN", without(&[])),
        ("another ALPN", without(&["h2"])),
    ];
    for (what, hello) in &hostile {
        refused(what, call(client, &to, hello))?;
    }
    client.connect(&to)?;
    refused("plain text", client.get("/"))?;

    let stranger = outside.workload("stranger");
    let two = [guest.as_str(), &stranger];
    status(client, &to, &hello(outside.issue(&[&stranger], NOW)?), 403, "who may not")?;
    status(client, &to, &hello(outside.issue(&two, NOW)?), 403, "two SPIFFE IDs")?;
    status(client, &to, &Hello { old: true, ..good.clone() }, 200, "TLS 1.2")?;
    status(client, &to, &good, 200, "the guest, still")?;
    claims_of_the_caller_are_not_passed_on(&mut scene, &to, &good)?;
    a_session_of_before_is_not_resumed(&mut scene, &to, &good)
}

/// Who called is said by the proxy alone.
fn claims_of_the_caller_are_not_passed_on(scene: &mut Scene, to: &str, good: &Hello) -> Result<()> {
    let forged = format!("By=spiffe://x;URI={WEB}");
    call(&mut scene.client, to, good)?;
    let told = with_headers(&mut scene.client, &[(XFCC, &forged)])?;
    let body: Value = serde_json::from_str(&told.body)?;
    let seen =
        body.pointer(&format!("/headers/{XFCC}")).and_then(Value::as_str).unwrap_or_default();
    let guest = format!("URI={}", scene.guest);
    let says = |part: &str| seen.split([';', ',']).any(|it| it == part);
    if !says(&guest) || says("By=spiffe://x") || says(&format!("URI={WEB}")) {
        bail!("the application was told {seen}");
    }
    Ok(())
}

/// A session that was given while an authority was believed is worth nothing once it is not.
fn a_session_of_before_is_not_resumed(scene: &mut Scene, to: &str, good: &Hello) -> Result<()> {
    let mut held = Client::start(Some(&scene.lab.host("east")?.namespace))?;
    status(&mut held, to, good, 200, "the guest")?;
    let told = held.ask(&Ask::Resume)?;
    if !told.resumed {
        bail!("no session was resumed: {told:?}");
    }
    still(&mut held, 200)?;
    scene.lab.global.delete(TRUST)?;
    let client = &mut scene.client;
    wait::until("its authority is not believed", PATIENCE, || {
        refused("a guest of before", call(client, to, good))
    })?;
    let told = held.ask(&Ask::Resume)?;
    // In TLS 1.3 a client hears of its refusal when it reads.
    if told.error.is_empty() { refused("a session of before", held.get("/")) } else { Ok(()) }
}

/// What a caller asks for is a service of the zone and of the ingress's mesh, or nothing.
fn an_ingress_leads_nowhere_but_to_the_services_of_its_zone() -> Result<()> {
    let mut scene = Scene::start()?;
    let web = scene.lab.workload(&Plan::new("west", "web", 1))?;
    let to = format!("{}:10001", scene.ingress.host.address);
    let named = |hello: Hello, sni: &str| Hello { sni: Some(sni.into()), ..hello };
    let good = scene.good()?;
    let stranger = scene.with(&[&scene.outside.workload("stranger")])?;
    a_service_of_another_mesh(&mut scene)?;
    let Scene { client, ingress, .. } = &mut scene;
    wait::until("the guest is answered", PATIENCE, || {
        status(client, &to, &named(good.clone(), SNI), 200, "guest")
    })?;
    let before = ours(ingress)?;
    let mut silent = web.client()?;
    let (_, connecting) = wait::timed(|| silent.connect(&to));
    for sni in [
        "sni.msvc.other.east.ledger.http",
        "sni.msvc.default.west.web.http",
        "sni.msvc.default.east.unknown.http",
        "sni.x",
        "system_ads",
        "system_envoy_admin",
        "system_probe_readiness",
        "self_inbound_dp_http",
        "kri_msvc_default_east__cart_http",
        "localhost",
    ] {
        refused(sni, call(client, &to, &named(good.clone(), sni)))?;
    }
    refused("no server name", call(client, &to, &good))?;
    client.connect(&to)?;
    refused("plain text", client.get("/"))?;
    client.connect(&to)?;
    refused("plain text that names a service", with_headers(client, &[("host", SNI)]))?;
    // It passes TLS on as it is: who is refused by the service is refused through it.
    refused("no certificate", {
        call(client, &to, &Hello { identity: None, ..named(good.clone(), SNI) })
    })?;
    status(client, &to, &named(stranger, SNI), 403, "who may not")?;
    status(client, &to, &named(good, SNI), 200, "the guest, still")?;
    if ours(ingress)? != before {
        bail!("before {before:?}, after {:?}", ours(ingress)?);
    }
    let (told, took) = wait::timed(|| silent.ask(&Ask::Read));
    if told?.error != "the connection was closed" || took + connecting > Duration::from_secs(8) {
        bail!("who says nothing is not closed");
    }
    Ok(())
}

/// Connections to the clusters that an ingress has for itself.
fn ours(ingress: &Proxy) -> Result<BTreeMap<String, u64>> {
    let stats = ingress.admin("/stats?filter=^cluster\\.(system|self).*upstream_cx_total$")?;
    let lines = stats.lines().filter_map(|line| line.split_once(": "));
    lines.map(|(name, count)| Ok((name.to_owned(), count.trim().parse()?))).collect()
}

/// Another mesh has a service, whose only replica is where `cart` is.
fn a_service_of_another_mesh(scene: &mut Scene) -> Result<()> {
    scene.lab.global.put("/meshes/other", &json!({ "type": "Mesh", "name": "other" }))?;
    let address = scene.cart.host.address.to_string();
    let east = scene.lab.zone("east")?;
    let dataplane = dataplane("other", "ledger", &address);
    wait::until("the zone has the mesh", PATIENCE, || {
        east.put("/meshes/other/dataplanes/ledger-1", &dataplane)
    })?;
    wait::until("its service", PATIENCE, || east.get("/meshes/other/meshservices/ledger").map(drop))
}

/// A Dataplane that a user writes.
fn dataplane(mesh: &str, workload: &str, address: &str) -> Value {
    json!({
        "type": "Dataplane", "mesh": mesh, "name": format!("{workload}-1"),
        "labels": { "kuma.io/workload": workload },
        "networking": {
            "address": address,
            "inbound": [{ "name": "http", "port": PORT, "protocol": "http" }],
        },
    })
}

/// Where `bank` should be is `cart`, who would let the caller in: but who answers is not `bank`.
fn a_server_that_is_somebody_else_is_not_called() -> Result<()> {
    const REFUSALS: &str = "cluster.kri_msvc_default_east__bank_http.ssl.fail_verify_san";
    let mut lab = Lab::start(&["east"])?;
    let web = lab.workload(&Plan::new("east", "web", 1))?;
    let cart = lab.workload(&Plan::new("east", "cart", 1))?;
    allow(&lab, "cart", &["spiffe://default.east.mesh.local/workload/web"])?;
    let mut client = web.client()?;
    answered(&mut client, &at("cart", "east"), 200)?;
    let bank = dataplane("default", "bank", &cart.host.address.to_string());
    lab.zone("east")?.put("/meshes/default/dataplanes/bank-1", &bank)?;
    let told = answered(&mut client, &at("bank", "east"), 503)?;
    note(&told.body);
    if web.stat(REFUSALS)? == 0 {
        bail!("it was not for the name of the server: {}", told.body);
    }
    Ok(())
}
