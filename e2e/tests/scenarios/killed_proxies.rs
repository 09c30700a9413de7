//! `kill -9` of the programs beside Envoys at random moments, again and again.

use super::{
    Scenario,
    calls::{answered, at},
    permissions::{WEB, allow},
};
use anyhow::{Context as _, Result, bail};
use e2e::{
    PATIENCE,
    lab::{Lab, Plan, Proxy},
    wait,
};
use serde_json::Value;
use std::{fs, time::Duration};

pub(crate) const ALL: &[Scenario] = &[
    ("a_sidecar_survives_kill_9", a_sidecar_survives_kill_9),
    ("an_ingress_survives_kill_9", an_ingress_survives_kill_9),
];

const KILLS: u64 = 10;

/// A proxy in east through which `web` in west is answered by `cart` in east.
struct Scene {
    lab: Lab,
    to: String,
    web: Proxy,
}

fn scene() -> Result<(Scene, Proxy, Proxy)> {
    let mut lab = Lab::start(&["west", "east"])?;
    let ingress = lab.ingress("east", "ingress-1")?;
    let web = lab.workload(&Plan::new("west", "web", 1))?;
    allow(&lab, "cart", &[WEB])?;
    let cart = lab.workload(&Plan::new("east", "cart", 1))?;
    let scene = Scene { lab, to: at("cart", "east"), web };
    scene.answers()?;
    Ok((scene, ingress, cart))
}

impl Scene {
    fn answers(&self) -> Result<()> {
        answered(&mut self.web.client()?, &self.to, 200).map(drop)
    }

    /// The names and addresses of all Dataplanes and MeshServices of east, in order.
    fn inventory(&mut self) -> Result<Vec<Value>> {
        let east = self.lab.zone("east")?;
        let mut all = Vec::new();
        for list in ["/dataplanes", "/meshservices"] {
            let items = east.get(list)?;
            let items = items.get("items").and_then(Value::as_array).context("items")?;
            let told = items.iter().map(|item| {
                let vips = item.pointer("/status/vips").cloned().unwrap_or_default();
                serde_json::json!([item.get("name"), item.get("mesh"), vips])
            });
            all.extend(told);
        }
        all.sort_by_key(ToString::to_string);
        Ok(all)
    }

    /// Kills the program of a proxy, in turn alone, with its Envoy, and once more while it starts.
    /// Each time calls are answered again, by one Envoy, and nobody was forgotten or came twice.
    fn survives(&mut self, proxy: &mut Proxy) -> Result<()> {
        let before = self.inventory()?;
        for kill in 0..KILLS {
            let left = proxy.envoy()?;
            if kill % 3 == 1 {
                proxy.kill_envoy()?;
            }
            proxy.kill()?;
            // Its Envoy serves on, if it was left.
            if kill % 3 != 1 {
                self.answers().with_context(|| format!("without its program, kill {kill}"))?;
            }
            if kill % 3 == 2 {
                proxy.start()?;
                wait::throughout("it starts", Duration::from_millis(kill * 37 % 400), || Ok(()))?;
                proxy.kill()?;
            }
            proxy.start()?;
            proxy.wait().with_context(|| format!("after kill {kill}"))?;
            self.answers().with_context(|| format!("after kill {kill}"))?;
            // Nothing is left of it but, perhaps, an entry that its new parent did not look at yet.
            if !fs::read(format!("/proc/{left}/cmdline")).unwrap_or_default().is_empty() {
                bail!("the Envoy of before kill {kill} is still there");
            }
        }
        wait::until("nobody was forgotten or came twice", PATIENCE, || {
            let after = self.inventory()?;
            if after == before { Ok(()) } else { bail!("{before:?} became {after:?}") }
        })?;
        Ok(())
    }
}

fn a_sidecar_survives_kill_9() -> Result<()> {
    let (mut scene, _ingress, mut cart) = scene()?;
    scene.survives(&mut cart)
}

fn an_ingress_survives_kill_9() -> Result<()> {
    let (mut scene, mut ingress, _cart) = scene()?;
    scene.survives(&mut ingress)
}
