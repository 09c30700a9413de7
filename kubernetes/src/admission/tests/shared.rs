//! The Secret that several processes share.

use super::{
    super::keeper::{Keeper, Place},
    *,
};
use daemon::Clock;
use jiff::Timestamp;

fn day(day: i64) -> Timestamp {
    Timestamp::from_second(day * 24 * 3600).unwrap()
}

fn place(client: Client) -> Place {
    let (namespace, secret) = ("kuma-system".into(), "atoll-zone-cp-tls".into());
    let names = vec!["atoll-admission.kuma-system.svc".into(), "127.0.0.1".into()];
    Place { client, namespace, secret, names }
}

fn trusts(keeper: &Keeper) -> String {
    keeper.trusted().borrow().to_string()
}

#[tokio::test]
async fn two_processes_show_one_certificate() {
    let secrets = Secrets::default();
    let clock = Clock::of(|| day(0));
    let (one, other) = tokio::join!(
        Keeper::open(place(secrets.client()), clock.clone()),
        Keeper::open(place(secrets.client()), clock.clone()),
    );
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!(trusts(&one), trusts(&other));
    assert_eq!(one.tls().endings(), other.tls().endings());
    assert_eq!(secrets.0.lock().writes, 1, "written once");
    let later = Keeper::open(place(secrets.client()), clock).await.unwrap();
    assert_eq!(trusts(&later), trusts(&one));
    assert_eq!(secrets.0.lock().writes, 1);
}

#[tokio::test]
async fn what_is_too_old_or_damaged_is_made_anew_at_the_start() {
    let secrets = Secrets::default();
    let first = Keeper::open(place(secrets.client()), Clock::of(|| day(0))).await.unwrap();
    let renewed = Keeper::open(place(secrets.client()), Clock::of(|| day(61))).await.unwrap();
    assert_eq!(trusts(&first), trusts(&renewed), "by the same authority");
    assert_ne!(first.tls().endings(), renewed.tls().endings());
    assert_eq!(secrets.0.lock().writes, 2);
    if let Some(secret) = &mut secrets.0.lock().secret {
        secret["data"]["ca.key"] = "bm9uc2Vuc2U=".into();
    }
    let repaired = Keeper::open(place(secrets.client()), Clock::of(|| day(62))).await.unwrap();
    assert_ne!(trusts(&first), trusts(&repaired));
    assert_eq!(secrets.0.lock().writes, 3);
    let kept = Keeper::open(place(secrets.client()), Clock::of(|| day(62))).await.unwrap();
    assert_eq!(trusts(&repaired), trusts(&kept));
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_away_is_waited_for() {
    let secrets = Secrets::default();
    secrets.0.lock().away = 5;
    let keeper = Keeper::open(place(secrets.client()), Clock::of(|| day(0))).await.unwrap();
    assert_eq!(secrets.0.lock().away, 0);
    assert!(trusts(&keeper).starts_with("-----BEGIN CERTIFICATE-----"));
}
