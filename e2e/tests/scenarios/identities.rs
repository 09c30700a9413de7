//! Certificates under traffic.

use super::{
    Scenario,
    calls::{answered, at, permit, still},
};
use anyhow::{Context, Result, bail};
use e2e::{
    PATIENCE,
    lab::{Lab, Plan, Proxy},
    peer::{Ask, Client},
    wait,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub(crate) const ALL: &[Scenario] =
    &[("certificates_are_replaced_under_traffic", certificates_are_replaced_under_traffic)];

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

/// The serial number of the certificate that an Envoy shows.
fn serial(proxy: &Proxy) -> Result<String> {
    let certs: Value = serde_json::from_str(&proxy.admin("/certs")?)?;
    let all = certs.get("certificates").and_then(Value::as_array).context("certificates")?;
    let chains = all.iter().filter_map(|it| it.pointer("/cert_chain/0/serial_number"));
    let serials: BTreeSet<&str> = chains.filter_map(Value::as_str).collect();
    match serials.len() {
        // In between, one user of the secret has the new one and another has the old one.
        1 | 2 => serials.last().map(|&it| it.to_owned()).context("no certificate"),
        _ => bail!("{certs}"),
    }
}

fn echo(client: &mut Client, text: &str) -> Result<()> {
    let told = client.ask(&Ask::Echo { text: text.into() })?;
    if told.error.is_empty() && told.body == text { Ok(()) } else { bail!("{told:?}") }
}

/// `web` in west, which calls `cart` and `log` in east.
struct Scene {
    _lab: Lab,
    web: Proxy,
    cart: Proxy,
    _others: [Proxy; 2],
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
        Ok(Self { _lab: lab, web, cart, _others: [ingress, log] })
    }

    /// Calls on open connections and on new ones, each with a handshake, while `act` is called again
    /// and again until it says that it is done. Nothing fails.
    fn under_traffic(&mut self, mut act: impl FnMut(&mut Self) -> Result<bool>) -> Result<()> {
        let clients = [self.web.client()?, self.web.client()?, self.web.client()?];
        let [mut http, mut steady, mut fresh] = clients;
        answered(&mut http, &at("cart", "east"), 200)?;
        let log = at("log", "east");
        wait::until("an answer of log", PATIENCE, || {
            steady.connect(&log)?;
            let told = steady.ask(&Ask::Read)?;
            if told.error.is_empty() { Ok(()) } else { bail!("{told:?}") }
        })?;
        http.ask(&Ask::Load)?;
        let mut another = self.web.client()?;
        while !act(self)? {
            echo(&mut steady, "still here")?;
            // Bytes are not pooled: each connection is one between the Envoys.
            fresh.connect(&log)?;
            let told = fresh.ask(&Ask::Read)?;
            if told.body != "hello from log-1\n" {
                bail!("{told:?}");
            }
            another.connect(&at("cart", "east"))?;
            still(&mut another, 200)?;
        }
        let told = http.ask(&Ask::Stop)?;
        if told.bad != 0 || told.good < 100 { bail!("{told:?}") } else { Ok(()) }
    }
}

/// Both ends get new certificates again and again, and each is shown only as long as it is valid.
/// Nothing fails: not a request on open connections, nor on new ones, each with a handshake.
fn certificates_are_replaced_under_traffic() -> Result<()> {
    const ROTATIONS: usize = 3;
    let mut scene = Scene::start("5s")?;
    let (mut of_web, mut of_cart) = (BTreeSet::new(), BTreeSet::new());
    scene.under_traffic(|scene| {
        of_web.insert(serial(&scene.web)?);
        of_cart.insert(serial(&scene.cart)?);
        Ok(of_web.len().min(of_cart.len()) > ROTATIONS)
    })
}
