//! Beacons: each way in which a stream can be stuck, and those in which it only seems so.

use super::world::{Address, Global, Plane, Zone, away};
use crate::{
    global::Settings,
    limit::{BEACON as INTERVAL, DOUBT, STALE},
    testkinds::{BEACON, CONFIG, ECHO, MESH, TIMEOUT},
    zone::State,
};
use parking_lot::Mutex;
use resource::{Audience, Labels, Peer};
use std::{sync::Arc, time::Duration};
use store::{
    Backend as _, Expected, Item,
    view::{Edit, Revision},
};
use tokio::{
    io::{
        AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, duplex, split,
    },
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, interval, timeout},
};

/// So many calls of one connection are counted.
const CALLS: usize = 5;

/// Lets virtual time pass.
async fn pass(time: Duration) {
    timeout(time, std::future::pending::<()>()).await.unwrap_err();
}

/// Writes a beacon every interval from now on.
fn shine(tasks: &mut JoinSet<()>, plane: &Plane) {
    let plane = plane.clone();
    tasks.spawn(async move {
        let mut beat = interval(INTERVAL);
        for number in 1_u64.. {
            beat.tick().await;
            plane.put(BEACON, "beacon", &format!(r#"{{"number":{number}}}"#)).await;
        }
    });
}

/// Global and a zone that has a beacon.
async fn shining(tasks: &mut JoinSet<()>) -> (Global, Zone) {
    let global = Global::start(tasks, "c1", 1).await;
    shine(tasks, &global.plane);
    let east = Zone::start(tasks, "east", &Address::of(&global));
    shone(&east).await;
    (global, east)
}

async fn shone(east: &Zone) -> Revision {
    let state = east.until(|state| state.beacon.is_some_and(|beacon| beacon.0 > 0)).await;
    east.plane.until(BEACON, &["beacon".into()]).await;
    state.beacon.unwrap()
}

/// After how long all calls are opened anew.
async fn anew(global: &Global, since: Instant) -> Duration {
    global.until_opened(2 * CALLS).await;
    since.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_beacon_goes_down_and_an_echo_comes_back_and_neither_goes_further() {
    let mut tasks = JoinSet::new();
    let (global, east) = shining(&mut tasks).await;
    let west = Zone::start(&mut tasks, "west", &Address::of(&global));
    shone(&west).await;
    east.plane.put(ECHO, "echo", r#"{"stored":1}"#).await;
    global.plane.until(ECHO, &[away(ECHO, "echo", Some("east"))]).await;
    pass(3 * INTERVAL).await;
    assert!(west.plane.all(ECHO).is_empty());
    let there = global.plane.store.reader().rows(global.plane.id(BEACON)).0;
    let came = |state: &State| state.beacon == Some(there);
    east.until(came).await;
    assert_eq!(global.counts.places.lock().get(BEACON.name), Some(&Some(there)));
    let remembered = east.remembers().unwrap();
    assert!(!remembered.places.contains_key(BEACON.name), "each is one write, not two");
}

#[tokio::test(start_paused = true)]
async fn neither_quiet_nor_work_is_taken_for_a_stuck_stream() {
    let mut tasks = JoinSet::new();
    let (global, east) = shining(&mut tasks).await;
    pass(Duration::from_secs(6 * 3600)).await;
    for number in 0..2000 {
        let name = format!("t{}", number % 7);
        global.plane.put(TIMEOUT, &name, &format!(r#"{{"seconds":{}}}"#, number % 90)).await;
        east.plane.put(ECHO, "echo", &format!(r#"{{"stored":{number}}}"#)).await;
        pass(Duration::from_millis(500)).await;
    }
    assert_eq!(*global.counts.opened.borrow(), CALLS, "no stream was opened anew");
}

#[tokio::test(start_paused = true)]
async fn a_global_that_writes_nothing_is_left_alone_since_another_stream_would_not_help() {
    let mut tasks = JoinSet::new();
    let (plane, stuck) = Plane::gated(&mut tasks, None, 1);
    plane.put(CONFIG, "kuma-cluster-id", r#"{"config":"c1"}"#).await;
    plane.put(MESH, "default", "{}").await;
    let global = Global::serve(&mut tasks, plane);
    shine(&mut tasks, &global.plane);
    let east = Zone::start(&mut tasks, "east", &Address::of(&global));
    shone(&east).await;
    stuck.send_replace(true);
    // Global owes the answer to this for as long.
    east.plane.put(ECHO, "echo", r#"{"stored":1}"#).await;
    pass(10 * STALE).await;
    let state = east.handle.state().borrow().clone();
    assert!(state.owed.is_some_and(|owed| owed.since.elapsed() > 9 * STALE), "it is stuck");
    assert_eq!(*global.counts.opened.borrow(), CALLS);

    stuck.send_replace(false);
    global.plane.until(ECHO, &[away(ECHO, "echo", Some("east"))]).await;
    pass(2 * STALE).await;
    assert_eq!(*global.counts.opened.borrow(), CALLS);
}

/// A beacon that no zone is sent, though global has it: to a zone its stream looks stuck.
async fn withhold(plane: &Plane, number: u64) {
    let (key, spec) = (super::world::key(BEACON, "beacon"), format!(r#"{{"number":{number}}}"#));
    let row = BEACON.resource(key, Labels::default(), spec.into(), "".into(), Peer::Zone);
    let row = row.unwrap().shown_to(Audience { hidden: true, ..Audience::default() });
    let edit = Edit::Put(Arc::new(row));
    let item = Item { kind: plane.id(BEACON), expected: Expected::Anything, edit };
    plane.store.commit(vec![item]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stream_on_which_nothing_comes_while_global_goes_on_is_opened_anew() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks, "c1", 1).await;
    withhold(&global.plane, 1).await;
    let east = Zone::start(&mut tasks, "east", &Address::of(&global));
    east.until(|state| state.beacon.is_some()).await;
    pass(2 * STALE).await;
    assert_eq!(*global.counts.opened.borrow(), CALLS, "it has the newest one");
    let since = Instant::now();
    withhold(&global.plane, 2).await;
    let waited = anew(&global, since).await;
    assert!(waited <= STALE + DOUBT, "no longer than it was in doubt: {waited:?}");
    pass(10 * STALE).await;
    assert_eq!(*global.counts.opened.borrow(), 2 * CALLS, "that one brought it");
}

#[tokio::test(start_paused = true)]
async fn a_global_that_answers_and_writes_nothing_is_asked_less_and_less_often() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks, "c1", 1).await;
    global.plane.put(BEACON, "beacon", r#"{"number":1}"#).await;
    let east = Zone::start(&mut tasks, "east", &Address::of(&global));
    let before = shone(&east).await;
    pass(STALE + Duration::from_secs(1)).await;
    let asked = |since| global.counts.checked() - since;
    let begins = asked(0);
    pass(DOUBT).await;
    assert_eq!(asked(begins), 1, "soon at first");
    let (hour, begins) = (Duration::from_secs(3600), asked(0));
    pass(hour).await;
    let healthy = hour.as_secs() / Settings::default().health_interval.as_secs();
    let more = asked(begins) - usize::try_from(healthy).unwrap();
    assert!((10..=20).contains(&more), "{more}");
    // As soon again once something came.
    global.plane.put(BEACON, "beacon", r#"{"number":2}"#).await;
    east.until(|state| state.beacon.is_some_and(|now| now > before)).await;
    pass(STALE).await;
    let begins = asked(0);
    pass(4 * DOUBT).await;
    assert!((3..=4).contains(&asked(begins)), "{}", asked(begins));
    assert_eq!(*global.counts.opened.borrow(), CALLS);
}

/// Frozen connections: those with a smaller number carry nothing down, or nothing up.
struct Valves {
    down: watch::Sender<usize>,
    up: watch::Sender<usize>,
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    number: usize,
    mut frozen: watch::Receiver<usize>,
) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        if frozen.wait_for(|frozen| number >= *frozen).await.is_err()
            || to.write_all(&bytes[..read]).await.is_err()
        {
            return;
        }
    }
}

/// An address at which connections can be frozen.
fn relay(tasks: &mut JoinSet<()>, global: &Global) -> (Address, Valves) {
    let (connect, mut dialed) = mpsc::channel::<DuplexStream>(8);
    let valves = Valves { down: watch::Sender::new(0), up: watch::Sender::new(0) };
    let (down, up, to) = (valves.down.clone(), valves.up.clone(), global.connect.clone());
    tasks.spawn(async move {
        let mut carrying = JoinSet::new();
        for number in 0.. {
            let Some(zone) = dialed.recv().await else { return };
            let (near, far) = duplex(64 * 1024);
            to.send(far).await.unwrap();
            let ((from_zone, to_zone), (from_global, to_global)) = (split(zone), split(near));
            carrying.spawn(carry(from_zone, to_global, number, up.subscribe()));
            carrying.spawn(carry(from_global, to_zone, number, down.subscribe()));
        }
    });
    (Address(Arc::new(Mutex::new(connect))), valves)
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_carries_nothing_one_way_is_opened_anew() {
    for way in ["down", "up"] {
        let mut tasks = JoinSet::new();
        let global = Global::start(&mut tasks, "c1", 1).await;
        shine(&mut tasks, &global.plane);
        let (address, valves) = relay(&mut tasks, &global);
        let east = Zone::start(&mut tasks, "east", &address);
        shone(&east).await;
        let frozen = Instant::now();
        if way == "down" { &valves.down } else { &valves.up }.send_replace(1);
        let waited = anew(&global, frozen).await;
        assert!(waited <= STALE + DOUBT + Duration::from_secs(1), "{way}: {waited:?}");
        east.until_complete().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_zone_that_takes_nothing_is_left_by_global_and_takes_it_when_it_comes_back() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks, "c1", 1).await;
    shine(&mut tasks, &global.plane);
    let (plane, stuck) = Plane::gated(&mut tasks, Some("east"), 7);
    let east = Zone::run(&mut tasks, "east", &Address::of(&global), plane);
    let before = shone(&east).await;
    stuck.send_replace(true);
    let waited = anew(&global, Instant::now()).await;
    assert!(waited <= STALE + DOUBT, "{waited:?}");
    assert!(east.handle.state().borrow().beacon.is_none_or(|now| now == before));
    stuck.send_replace(false);
    east.until(|state| state.beacon.is_some_and(|now| now > before)).await;
}
