//! Zones come and go.

use super::{
    Scenario,
    calls::{answered, at},
    names::{answers, open},
    outages::service,
};
use anyhow::{Result, bail};
use e2e::{
    PATIENCE,
    lab::{Lab, Plan},
    wait,
};
use std::time::Duration;

pub(crate) const ALL: &[Scenario] = &[
    ("a_zone_that_joins_later_gets_everything", a_zone_that_joins_later_gets_everything),
    (
        "the_services_of_a_zone_that_is_deleted_go_from_the_others",
        the_services_of_a_zone_that_is_deleted_go_from_the_others,
    ),
];

const SERVICES: &str = "/meshes/default/meshservices";

/// Services, addresses of ingresses, trust and policies were there before the zone was; its first
/// workload calls at once, and is called.
fn a_zone_that_joins_later_gets_everything() -> Result<()> {
    let mut lab = Lab::start(&["east"])?;
    let _ingress = lab.ingress("east", "ingress-1")?;
    let cart = lab.workload(&Plan::new("east", "cart", 1))?;
    open(&lab, "default")?;
    lab.join("north")?;
    let web = lab.workload(&Plan::new("north", "web", 1))?;
    answers(&mut web.client()?, &at("cart", "east"), "cart-1")?;
    let _back = lab.ingress("north", "ingress-2")?;
    answers(&mut cart.client()?, &at("web", "north"), "web-1")
}

/// A zone that is away for good is deleted: its services go from global and from the other zone,
/// with their listeners and names, and those of others stay.
fn the_services_of_a_zone_that_is_deleted_go_from_the_others() -> Result<()> {
    let mut lab = Lab::start(&["west", "east"])?;
    open(&lab, "default")?;
    let _ingress = lab.ingress("east", "ingress-1")?;
    let _far = lab.workload(&Plan::new("east", "cart", 1))?;
    let _near = lab.workload(&Plan::new("west", "cart", 2))?;
    let web = lab.workload(&Plan::new("west", "web", 1))?;
    let (mut client, east) = (web.client()?, at("cart", "east"));
    answered(&mut client, &east, 200)?;
    let address = {
        let list = lab.zone("west")?.get(SERVICES)?;
        let cart = service(&list, "cart", "east");
        let vip = cart.and_then(|it| it.pointer("/status/vips/0/ip")).and_then(|it| it.as_str());
        let Some(vip) = vip else { bail!("{list}") };
        vip.to_owned()
    };
    if !web.admin("/listeners")?.contains(&address) {
        bail!("no listener at {address}");
    }

    lab.zone("east")?.stop()?;
    wait::until("east is deleted", PATIENCE, || lab.global.delete("/zones/east"))?;
    wait::until("its service is gone from global", PATIENCE, || {
        let list = lab.global.get(SERVICES)?;
        if service(&list, "cart", "east").is_none() { Ok(()) } else { bail!("{list}") }
    })?;
    wait::until("its service is gone from west", PATIENCE, || {
        let list = lab.zone("west")?.get(SERVICES)?;
        if service(&list, "cart", "east").is_none() { Ok(()) } else { bail!("{list}") }
    })?;
    wait::until("its listener is gone", PATIENCE, || {
        let listeners = web.admin("/listeners")?;
        if listeners.contains(&address) { bail!("{listeners}") } else { Ok(()) }
    })?;
    if client.connect(&east).is_ok() {
        bail!("its name is still resolved");
    }
    answers(&mut client, &at("cart", "west"), "cart-2")?;
    is_refused(&mut lab)
}

/// The control plane of east, which was deleted, tries again and again. Global says why it is
/// refused, and says it once.
fn is_refused(lab: &mut Lab) -> Result<()> {
    const TRIES: Duration = Duration::from_secs(3);
    let _east = lab.zone("east")?.launch()?;
    let global = lab.global.process()?;
    let refused = |texts: &[&str]| global.lines_with(&[&["zone refused"], texts].concat());
    let why = ["WARN", "client_id=\"east\"", "zone east was deleted"];
    wait::until("global says that east is refused", PATIENCE, || {
        if refused(&why) > 0 { Ok(()) } else { bail!("{}", global.tail()) }
    })?;
    wait::throughout("it is said once", TRIES, || {
        if refused(&[]) == 1 { Ok(()) } else { bail!("{}", global.tail()) }
    })
}
