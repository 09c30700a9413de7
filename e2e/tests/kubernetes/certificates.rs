//! The certificate of a control plane in a cluster, and who trusts it.

use super::{
    Scenario, note,
    world::{FRONT, Load, SHOP, SYSTEM, WEB, World, Zone, cart, server},
};
use anyhow::{Context, Result, bail, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use e2e::{
    PATIENCE,
    cluster::{Images, Kubectl},
    tls,
    wait::{self, Watch},
};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, ops::Range};

pub(crate) const ALL: &[Scenario] = &[(
    "an_authority_hands_over_while_pods_are_made_and_call",
    an_authority_hands_over_while_pods_are_made_and_call,
)];

/// Where a control plane keeps its certificates.
const SECRET: &str = "atoll-zone-cp-tls";

const DAY: i64 = 24;

/// When an authority is valid that is so old that the next one is trusted, and one that is so old that
/// the next one signs.
const OLD: Range<i64> = -3000 * DAY..500 * DAY;
const OLDER: Range<i64> = -3000 * DAY..80 * DAY;

/// From the day on which the next one is trusted to that on which the one before is not any more. In all
/// that time no pod is refused, none is made without its sidecar, and no request fails.
fn an_authority_hands_over_while_pods_are_made_and_call(images: &Images) -> Result<()> {
    let world = World::start(images, &["k8s-1"])?;
    let zone = world.zone("k8s-1")?;
    let kubectl = zone.kubectl();
    let first = Kept::of(kubectl)?;
    ages(kubectl, OLD)?;
    let both = until(kubectl, "there is a next authority", |kept| kept.next.is_some())?;
    ensure!(both.key == first.key, "the next one signs at once");
    trusted_by_webhooks(kubectl, &both)?;
    // These pods are told of both.
    kubectl.apply(include_str!("shop.yaml"))?;
    for each in ["deployment/cart", "deployment/front"] {
        kubectl.rolled_out(SHOP, each)?;
    }
    let loads = [
        Load::start("machine to pod", world.machine.caller()?, &cart("k8s-1"))?,
        Load::start("pod to machine", zone.cluster.client_beside(FRONT)?, WEB)?,
    ];
    let pods = made(kubectl.clone());

    ages(kubectl, OLDER)?;
    let next = until(kubectl, "the next one signs", |kept| {
        Some(&kept.key) == both.next.as_ref() && kept.next.is_none()
    })?;
    trusted_by_webhooks(kubectl, &next)?;
    restart(zone)?;
    // Its days are over. What still shows a certificate of it is believed by nobody.
    let only = next.authorities().next().context("an authority")?;
    write(kubectl, "ca.crt", &only)?;
    let last = until(kubectl, "it is forgotten", |kept| kept.trusted == only)?;
    trusted_by_webhooks(kubectl, &last)?;
    restart(zone)?;
    note(&format!("{} pods were made", pods.end()?));

    reaches_what_is_new(zone, "late")?;
    // Whoever connects anew believes the next one.
    wait::until("it is there to be killed", PATIENCE, || zone.cluster.kill("zone-cp"))?;
    wait::until("it is back", PATIENCE * 4, || {
        kubectl.rolled_out(SYSTEM, "deployment/atoll-zone-cp")
    })?;
    reaches_what_is_new(zone, "later")?;
    loads.into_iter().try_for_each(|load| load.end().map(drop))
}

/// All pods of a Deployment are made anew.
fn restart(zone: &Zone) -> Result<()> {
    zone.kubectl().run(&["rollout", "restart", "--namespace", SHOP, "deployment/cart"])?;
    zone.settles("cart", 2)
}

/// A sidecar that runs already hears of changes.
fn reaches_what_is_new(zone: &Zone, name: &str) -> Result<()> {
    zone.kubectl().apply(&server(name))?;
    // A control plane that was just killed may still be missed.
    wait::until(&format!("{name} starts"), PATIENCE, || {
        zone.kubectl().rolled_out(SHOP, &format!("deployment/{name}"))
    })?;
    let url = format!("http://{name}.shop.svc.k8s-1.mesh.local:8080/");
    zone.pod_reaches("deployment/front", "front", &url).map(drop)
}

/// Has the API server make a pod again and again, as far as a kubelet would see it.
fn made(kubectl: Kubectl) -> Watch {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "generateName": "made-", "namespace": SHOP },
        "spec": { "containers": [{ "name": "app", "image": "app" }] },
    });
    let pod = pod.to_string();
    Watch::start("pods are made", move || {
        let words = ["create", "--dry-run=server", "--output=json", "--filename=-"];
        let made = kubectl.output(&words, &pod)?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let made: Value = serde_json::from_slice(&made.stdout)?;
        let containers = made.pointer("/spec/initContainers").and_then(Value::as_array);
        let is_ours = |it: &Value| it.get("name") == Some(&"kuma-sidecar".into());
        ensure!(containers.is_some_and(|all| all.iter().any(is_ours)), "no sidecar: {made}");
        Ok(())
    })
}

/// What a control plane keeps.
struct Kept {
    /// The certificates of authorities: the first one signs.
    trusted: String,
    key: String,
    next: Option<String>,
}

impl Kept {
    fn of(kubectl: &Kubectl) -> Result<Self> {
        let secret = kubectl.get(SYSTEM, &format!("secret/{SECRET}"))?;
        let data = secret.get("data").and_then(Value::as_object).context("data")?;
        let text = |(name, value): (&String, &Value)| {
            let bytes = BASE64_STANDARD.decode(value.as_str().unwrap_or_default())?;
            Ok((name.clone(), String::from_utf8(bytes)?))
        };
        let mut data: BTreeMap<String, String> = data.iter().map(text).collect::<Result<_>>()?;
        let mut take = |name: &str| data.remove(name);
        Ok(Self {
            trusted: take("ca.crt").context("ca.crt")?,
            key: take("ca.key").context("ca.key")?,
            next: take("next-ca.key"),
        })
    }

    fn authorities(&self) -> impl Iterator<Item = String> {
        const END: &str = "-----END CERTIFICATE-----\n";
        self.trusted.split_inclusive(END).map(str::to_owned)
    }
}

/// Makes the authority that signs as old as one that is valid at these hours.
fn ages(kubectl: &Kubectl, valid: Range<i64>) -> Result<()> {
    let kept = Kept::of(kubectl)?;
    let aged = tls::aged(&kept.key, valid)?;
    let all: String = [aged].into_iter().chain(kept.authorities().skip(1)).collect();
    write(kubectl, "ca.crt", &all)
}

fn write(kubectl: &Kubectl, name: &str, text: &str) -> Result<()> {
    let data = Map::from_iter([(name.to_owned(), BASE64_STANDARD.encode(text).into())]);
    let patch = json!({ "data": data }).to_string();
    let words = ["patch", "secret", SECRET, "--namespace", SYSTEM, "--type=merge", "--patch"];
    kubectl.run(&[&words[..], &[&patch]].concat()).map(drop)
}

fn until(kubectl: &Kubectl, what: &str, so: impl Fn(&Kept) -> bool) -> Result<Kept> {
    wait::until(what, PATIENCE, || {
        let kept = Kept::of(kubectl)?;
        if so(&kept) { Ok(kept) } else { bail!("{}", kept.trusted) }
    })
}

/// Waits until the API server is told to believe exactly those that the control plane does.
fn trusted_by_webhooks(kubectl: &Kubectl, kept: &Kept) -> Result<()> {
    let expected = BASE64_STANDARD.encode(&kept.trusted);
    wait::until("webhooks trust them", PATIENCE, || {
        for kind in ["mutatingwebhookconfiguration", "validatingwebhookconfiguration"] {
            let path = "--output=jsonpath={range .webhooks[*]}{.clientConfig.caBundle}{'\\n'}{end}";
            let found = kubectl.run(&["get", kind, "atoll", path])?;
            ensure!(!found.is_empty(), "no webhooks");
            ensure!(found.lines().all(|it| it == expected), "{kind}: {found}");
        }
        Ok(())
    })
}
