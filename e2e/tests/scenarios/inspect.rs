//! Questions about Envoys.

use super::Scenario;
use anyhow::{Context, Result, bail, ensure};
use e2e::{
    PATIENCE,
    control_plane::ControlPlane,
    lab::{Lab, Plan, Proxy},
    process::run,
    wait,
};
use reqwest::StatusCode;
use serde_json::Value;
use std::{fs, thread, time::Duration};
use tokio::time::Instant;

pub(crate) const ALL: &[Scenario] = &[(
    "global_and_zones_ask_any_envoy_and_say_why_one_does_not_answer",
    global_and_zones_ask_any_envoy_and_say_why_one_does_not_answer,
)];

const DATAPLANES: &str = "/meshes/default/dataplanes";
/// An Envoy that does not answer has 5 s; the rest is for a machine that is busy.
const BOUND: Duration = Duration::from_secs(8);

/// The path of a Dataplane, by its name in its zone, once `control_plane` knows it.
fn path(control_plane: &ControlPlane, name: &str) -> Result<String> {
    wait::until(&format!("{name} is known"), PATIENCE, || {
        let filter = format!("{DATAPLANES}?filter[labels.kuma.io/display-name]={name}");
        let list = control_plane.get(&filter)?;
        let name = list.pointer("/items/0/name").and_then(Value::as_str).context("not known")?;
        Ok(format!("{DATAPLANES}/{name}"))
    })
}

fn get(control_plane: &ControlPlane, path: &str) -> Result<String> {
    let (status, text) = control_plane.answer(path)?;
    ensure!(status.is_success(), "{path}: {status}: {text}");
    Ok(text)
}

/// Asks for everything about a proxy: it says who it is, and nothing that is secret.
fn tells_all(control_plane: &ControlPlane, path: &str, proxy: &Proxy) -> Result<()> {
    let config = get(control_plane, &format!("{path}/xds?include_eds=true"))?;
    let parsed: Value = serde_json::from_str(&config)?;
    let kinds: Vec<&str> = parsed
        .pointer("/configs")
        .and_then(Value::as_array)
        .context("configs")?
        .iter()
        .filter_map(|config| config.get("@type")?.as_str()?.rsplit('.').next())
        .collect();
    for kind in ["BootstrapConfigDump", "SecretsConfigDump", "EndpointsConfigDump"] {
        ensure!(kinds.contains(&kind), "{kind} is not among {kinds:?}");
    }
    ensure!(
        config.contains("CERTIFICATE") || config.contains("certificate_chain"),
        "no certificate"
    );
    let token = fs::read_to_string(proxy.folder().join("token"))?;
    for secret in ["PRIVATE KEY", token.trim()] {
        ensure!(!config.contains(secret), "the configuration shows {secret:?}");
        // Envoy writes bytes in base64.
        ensure!(!config.contains("UFJJVkFURSBLRV"), "the configuration shows a key in base64");
    }
    let without = get(control_plane, &format!("{path}/xds"))?;
    ensure!(!without.contains("EndpointsConfigDump"), "endpoints were not asked for");
    let stats = get(control_plane, &format!("{path}/stats"))?;
    ensure!(stats.lines().any(|line| line.starts_with("server.live: ")), "{stats}");
    let all = get(control_plane, &format!("{path}/stats?usedonly=false"))?;
    ensure!(all.len() > stats.len(), "{} and {} bytes", all.len(), stats.len());
    let json: Value =
        serde_json::from_str(&get(control_plane, &format!("{path}/stats?format=json"))?)?;
    ensure!(json.get("stats").is_some(), "{json}");
    let clusters = get(control_plane, &format!("{path}/clusters"))?;
    ensure!(clusters.contains("::added_via_api::"), "{clusters}");
    let json = get(control_plane, &format!("{path}/clusters?format=json"))?;
    ensure!(serde_json::from_str::<Value>(&json)?.get("cluster_statuses").is_some(), "{json}");
    Ok(())
}

/// How a question is refused, within the bound.
fn refused(control_plane: &ControlPlane, path: &str) -> Result<(StatusCode, String)> {
    let began = Instant::now();
    let (status, text) = control_plane.answer(path)?;
    let took = began.elapsed();
    ensure!(took < BOUND, "{path} took {took:?}");
    let body: Value = serde_json::from_str(&text)?;
    let detail = body.get("detail").and_then(Value::as_str).context("detail")?;
    Ok((status, detail.to_owned()))
}

fn global_and_zones_ask_any_envoy_and_say_why_one_does_not_answer() -> Result<()> {
    let mut lab = Lab::start(&["west", "east"])?;
    let web = lab.workload(&Plan::new("west", "web", 1))?;
    let mut cart = lab.workload(&Plan::new("east", "cart", 1))?;
    let (of_web, of_cart) = (path(&lab.global, "web-1")?, path(&lab.global, "cart-1")?);
    tells_all(&lab.global, &of_web, &web)?;
    tells_all(&lab.global, &of_cart, &cart)?;
    tells_all(lab.zone("west")?, &format!("{DATAPLANES}/web-1"), &web)?;

    // Several at once.
    thread::scope(|scope| {
        let ask = |path: &str| get(&lab.global, path).map(drop);
        let asked: Vec<_> = [&of_web, &of_cart]
            .into_iter()
            .flat_map(|of| ["xds", "stats", "clusters"].map(|what| format!("{of}/{what}")))
            .map(|path| scope.spawn(move || ask(&path)))
            .collect();
        asked.into_iter().try_for_each(|asked| match asked.join() {
            Ok(answer) => answer,
            Err(_) => bail!("a question panicked"),
        })
    })?;

    let none = refused(&lab.global, &format!("{DATAPLANES}/none/xds"))?;
    ensure!(none.0 == StatusCode::NOT_FOUND, "{none:?}");

    // It is there and says nothing.
    let envoy = web.envoy()?.to_string();
    run(&["kill", "-STOP", &envoy])?;
    let late = (StatusCode::BAD_GATEWAY, "envoy did not answer in time".to_owned());
    ensure!(refused(&lab.global, &format!("{of_web}/xds"))? == late, "of global");
    let on_zone = refused(lab.zone("west")?, &format!("{DATAPLANES}/web-1/stats"))?;
    ensure!(on_zone == late, "{on_zone:?}");
    get(&lab.global, &format!("{of_cart}/stats"))?;
    run(&["kill", "-CONT", &envoy])?;
    get(&lab.global, &format!("{of_web}/stats"))?;

    // Its zone still knows it when it is gone, for a moment.
    let away = (StatusCode::BAD_GATEWAY, r#"Dataplane "cart-1" is not connected"#.to_owned());
    cart.kill()?;
    wait::until("cart-1 is not connected", PATIENCE, || {
        let refused = refused(&lab.global, &format!("{of_cart}/xds"))?;
        if refused == away { Ok(()) } else { bail!("{refused:?}") }
    })?;

    lab.zone("west")?.stop()?;
    let offline = (StatusCode::SERVICE_UNAVAILABLE, r#"zone "west" is not connected"#.to_owned());
    wait::until("west is offline", PATIENCE, || {
        let refused = refused(&lab.global, &format!("{of_web}/xds"))?;
        if refused == offline { Ok(()) } else { bail!("{refused:?}") }
    })
}
