//! What a global and its zones do together: each scenario is written once, and is so with two of
//! ours, with plain zones at our global, and with our zone at a plain global.

mod federation;

use self::federation::{BAD, Federation, Pairing, labels_of};
use super::world::{MESH, SECRET, hashed, timeout_of};
use serde_json::json;

macro_rules! in_each_pairing {
    ($($scenario:ident),* $(,)?) => {
        in_each_pairing!(@ ours Ours $($scenario)*);
        in_each_pairing!(@ plain_zones PlainZones $($scenario)*);
        in_each_pairing!(@ plain_global PlainGlobal $($scenario)*);
    };
    (@ $module:ident $pairing:ident $($scenario:ident)*) => {
        mod $module {
            use super::Pairing;

            $(#[tokio::test(start_paused = true)]
            async fn $scenario() {
                super::$scenario(Pairing::$pairing).await;
            })*
        }
    };
}

in_each_pairing!(
    a_zone_gets_all_and_then_what_changes,
    what_is_refused_stays_and_the_next_good_one_passes,
    who_comes_back_gets_what_changed_meanwhile,
    what_a_zone_owns_reaches_global_and_leaves_it,
    two_zones_may_have_services_of_one_name,
    a_state_of_eleven_megabytes,
    fields_that_nobody_knows_are_kept,
);

async fn a_zone_gets_all_and_then_what_changes(pairing: Pairing) {
    let mut all = Federation::of(pairing).await;
    all.offer("a", "1s").await;
    all.offer("b", "1s").await;
    all.join("east").await;
    all.until_has("east", &[("a", "1s"), ("b", "1s")]).await;
    assert_eq!(all.names("east", MESH), ["default"]);
    all.offer("a", "2s").await;
    all.until_has("east", &[("a", "2s"), ("b", "1s")]).await;
    all.withdraw("b").await;
    all.until_has("east", &[("a", "2s")]).await;
}

async fn what_is_refused_stays_and_the_next_good_one_passes(pairing: Pairing) {
    let mut all = Federation::of(pairing).await;
    all.offer("a", "1s").await;
    all.join("east").await;
    all.until_has("east", &[("a", "1s")]).await;
    all.offer("a", BAD).await;
    let why = all.until_refused().await;
    let expected = match pairing {
        Pairing::PlainZones => "user error\nunlucky".to_owned(),
        Pairing::Ours | Pairing::PlainGlobal => {
            let why = "spec.to[0].default.idleTimeout: must not be negative when defined";
            format!("{}.default: {why}", hashed("a", None))
        }
    };
    assert_eq!(why, expected);
    // Others pass meanwhile.
    all.offer("b", "1s").await;
    all.until_has("east", &[("a", "1s"), ("b", "1s")]).await;
    all.offer("a", "3s").await;
    all.until_has("east", &[("a", "3s"), ("b", "1s")]).await;
}

async fn who_comes_back_gets_what_changed_meanwhile(pairing: Pairing) {
    let mut all = Federation::of(pairing).await;
    all.offer("a", "1s").await;
    all.offer("b", "1s").await;
    all.join("east").await;
    all.until_has("east", &[("a", "1s"), ("b", "1s")]).await;
    all.leave("east");
    all.withdraw("b").await;
    all.offer("a", "2s").await;
    all.offer("c", "1s").await;
    all.join("east").await;
    all.until_has("east", &[("a", "2s"), ("c", "1s")]).await;
}

async fn what_a_zone_owns_reaches_global_and_leaves_it(pairing: Pairing) {
    let mut all = Federation::of(pairing).await;
    all.join("east").await;
    all.serve("east", "cart", Some(80)).await;
    let labels = all.until_global_has("east", &[("cart", 80)]).await;
    assert_eq!(labels, [labels_of("cart", "east", "zone")]);
    all.serve("east", "cart", Some(81)).await;
    all.serve("east", "web", Some(80)).await;
    all.until_global_has("east", &[("cart", 81), ("web", 80)]).await;
    all.serve("east", "cart", None).await;
    all.until_global_has("east", &[("web", 80)]).await;
}

async fn two_zones_may_have_services_of_one_name(pairing: Pairing) {
    let mut all = Federation::of(pairing).await;
    all.join("east").await;
    all.serve("east", "web", Some(80)).await;
    all.until_global_has("east", &[("web", 80)]).await;
    all.relay("west", "web", Some(81)).await;
    let labels = all.until_relayed("east", ("west", "web", Some(81))).await;
    assert_eq!(labels, Some(labels_of("web", "west", "global")));
    all.relay("west", "web", Some(82)).await;
    all.until_relayed("east", ("west", "web", Some(82))).await;
    if pairing != Pairing::PlainGlobal {
        all.until_relayed("west", ("east", "web", Some(80))).await;
    }
    all.relay("west", "web", None).await;
    all.until_relayed("east", ("west", "web", None)).await;
    all.until_global_has("east", &[("web", 80)]).await;
}

/// Ours get it in parts; a plain zone does not get this kind, and all others; a plain global may
/// send more at once than it would take.
async fn a_state_of_eleven_megabytes(pairing: Pairing) {
    let mut all = Federation::of(pairing).await;
    for number in 0..11 {
        all.offer_secret(&format!("secret-{number}"), 1024 * 1024).await;
    }
    all.offer("a", "1s").await;
    all.join("east").await;
    all.until_has("east", &[("a", "1s")]).await;
    let (fits, tells) = match pairing {
        Pairing::PlainZones => (0, vec!["Secret"]),
        Pairing::Ours | Pairing::PlainGlobal => (11, Vec::new()),
    };
    all.until_has_all("east", SECRET, fits).await;
    assert_eq!(all.too_large(), tells);
    all.offer("a", "2s").await;
    all.until_has("east", &[("a", "2s")]).await;
}

async fn fields_that_nobody_knows_are_kept(pairing: Pairing) {
    let mut all = Federation::of(pairing).await;
    let mut spec = timeout_of("1s");
    spec["invented"] = json!({ "deeply": [1] });
    all.offer_spec("a", spec.clone()).await;
    all.join("east").await;
    all.until_has_all("east", super::world::TIMEOUT, 1).await;
    assert_eq!(all.spec("east", "a"), spec);
}
