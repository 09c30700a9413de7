//! Questions of global about the proxies of a zone.

use super::world::{Address, Global, PATIENCE, Zone};
use crate::{
    admin::{Answerer, Question, Unanswered, When},
    limit,
    testkinds::zone,
};
use bytes::Bytes;
use futures::future::BoxFuture;
use resource::{
    Feature, Features, MeshName, ResourceKey,
    inspect::{Format, What},
};
use std::{sync::Arc, time::Duration};
use tokio::{task::JoinSet, time::timeout};

/// Answers what it was asked, but for some proxies.
struct Echo;

impl Answerer for Echo {
    fn answer(&self, question: Question) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(async move {
            match &*question.name {
                "slow" => std::future::pending().await,
                "large" => Ok(vec![b'x'; limit::OWN_MESSAGE].into()),
                "gone" => Err("connection refused".into()),
                _ => Ok(format!("{question:?}").into()),
            }
        })
    }
}

fn question(name: &str, what: What) -> Question {
    Question { kind: "Dataplane".into(), mesh: "default".into(), name: name.into(), what }
}

const ALL: [What; 3] = [
    What::Config { endpoints: true },
    What::Stats { format: Format::Json, used_only: true },
    What::Clusters { format: Format::Text },
];

#[tokio::test(start_paused = true)]
async fn global_asks_proxies_through_their_zone() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks, "c1", 1).await;
    let admin = global.admin.clone();
    let config = question("web", ALL[0]);
    let none = Unanswered::NotConnected(zone("east"));
    assert_eq!(admin.ask(&zone("east"), &config).await, Err(none.clone()));

    let east = Zone::with_answerer(&mut tasks, "east", &Address::of(&global), Arc::new(Echo));
    global.until_opened(5).await;
    for what in ALL {
        let asked = question("web", what);
        let answer = admin.ask(&zone("east"), &asked).await;
        assert_eq!(answer, Ok(format!("{asked:?}").into()));
    }
    let failed = admin.ask(&zone("east"), &question("gone", ALL[0])).await;
    assert_eq!(failed, Err(Unanswered::Failed("connection refused".into())));
    // The zone answers in time that there is none, so nobody waits longer.
    let slow = timeout(PATIENCE, admin.ask(&zone("east"), &question("slow", ALL[1]))).await;
    let late = "the proxy did not answer in time".into();
    assert_eq!(slow, Ok(Err(Unanswered::Failed(late))));

    let (to, slow) = (zone("east"), question("slow", ALL[2]));
    let waits = admin.ask(&to, &slow);
    let leaves = async {
        tokio::task::yield_now().await;
        east.stop.cancel();
    };
    let (answer, ()) = timeout(PATIENCE, futures::future::join(waits, leaves)).await.unwrap();
    assert_eq!(answer, Err(none), "who waits is told at once");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_global_cannot_read_is_an_error_and_ends_nothing() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks, "c1", 1).await;
    let _east = Zone::with_answerer(&mut tasks, "east", &Address::of(&global), Arc::new(Echo));
    global.until_opened(5).await;
    let large = global.admin.ask(&zone("east"), &question("large", ALL[0])).await;
    // The id of the question, the body, and what stands before each.
    let (bytes, most) = (limit::OWN_MESSAGE + 43, limit::OWN_MESSAGE);
    let text = format!("the answer has {bytes} bytes, and global takes {most}");
    assert_eq!(large, Err(Unanswered::Failed(text)));
    let asked = question("web", ALL[0]);
    let answer = global.admin.ask(&zone("east"), &asked).await;
    assert_eq!(answer, Ok(format!("{asked:?}").into()));
}

#[tokio::test(start_paused = true)]
async fn who_asks_and_leaves_leaves_nothing_behind() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks, "c1", 1).await;
    let _east = Zone::with_answerer(&mut tasks, "east", &Address::of(&global), Arc::new(Echo));
    global.until_opened(5).await;
    let (to, slow) = (zone("east"), question("slow", ALL[0]));
    let asking = futures::poll!(std::pin::pin!(global.admin.ask(&to, &slow)));
    assert!(asking.is_pending());
    assert_eq!(global.admin.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn slow_proxies_hold_up_no_others() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks, "c1", 1).await;
    let _east = Zone::with_answerer(&mut tasks, "east", &Address::of(&global), Arc::new(Echo));
    global.until_opened(5).await;
    let (to, slow, quick) = (zone("east"), question("slow", ALL[0]), question("web", ALL[0]));
    let slow = futures::future::join_all((0..8).map(|_| global.admin.ask(&to, &slow)));
    let began = tokio::time::Instant::now();
    let quick = async {
        let answer = global.admin.ask(&to, &quick).await;
        (answer, began.elapsed())
    };
    let (slow, (answer, took)) =
        timeout(PATIENCE, futures::future::join(slow, quick)).await.unwrap();
    assert!(answer.is_ok() && took < limit::PROXY, "{answer:?} after {took:?}");
    let late = Unanswered::Failed("the proxy did not answer in time".into());
    assert_eq!(slow, vec![Err(late); 8]);
}

/// What became of a resource.
fn propagation(name: &str, when: When) -> Question {
    let key = ResourceKey::in_mesh(&MeshName::new("default").unwrap(), name);
    Question::propagation("Timeout", &key, when)
}

#[tokio::test(start_paused = true)]
async fn global_asks_a_zone_of_ours_what_became_of_a_resource_and_no_other() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks, "c1", 1).await;
    let address = Address::of(&global);
    let east = Zone::with_answerer(&mut tasks, "east", &address, Arc::new(Echo));
    global.until_opened(5).await;
    let ask = |name: &'static str, question: Question| {
        let admin = global.admin.clone();
        async move { admin.ask(&zone(name), &question).await }
    };
    for when in [When::Now, When::Settled] {
        let asked = propagation("slow-1", when);
        assert_eq!(asked.asks_propagation(), Some(("Timeout", when)));
        let key = ResourceKey::in_mesh(&MeshName::new("default").unwrap(), "slow-1");
        assert_eq!(asked.key(), Some(key));
        assert_eq!(ask("east", asked.clone()).await, Ok(format!("{asked:?}").into()));
    }
    assert_eq!(question("web", ALL[0]).asks_propagation(), None);
    let none = Unanswered::NotConnected(zone("west"));
    assert_eq!(ask("west", propagation("a", When::Now)).await, Err(none));
    east.stop.cancel();

    // It has all features of ours but this one.
    let others = [Feature::Beacon, Feature::Resume, Feature::Split];
    let old = others.into_iter().fold(Features::default(), Features::with);
    let _west = Zone::with_features(&mut tasks, ("west", &address), old, Arc::new(Echo));
    global.until_opened(10).await;
    let never = Unanswered::NotUnderstood(zone("west"));
    assert_eq!(ask("west", propagation("a", When::Now)).await, Err(never));
    let asked = question("web", ALL[0]);
    assert_eq!(ask("west", asked.clone()).await, Ok(format!("{asked:?}").into()));
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_resources_leaves_room_for_other_questions() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks, "c1", 1).await;
    let _east = Zone::with_answerer(&mut tasks, "east", &Address::of(&global), Arc::new(Echo));
    global.until_opened(5).await;
    let (to, slow) = (zone("east"), propagation("slow", When::Settled));
    let many = 3 * limit::PROPAGATIONS;
    let waiting = futures::future::join_all((0..many).map(|_| global.admin.ask(&to, &slow)));
    let quick = async {
        tokio::time::sleep_until(tokio::time::Instant::now() + Duration::from_secs(1)).await;
        let waiting = global.admin.waiting();
        (waiting, global.admin.ask(&to, &question("web", ALL[0])).await.is_ok())
    };
    let (answers, quick) = timeout(PATIENCE, futures::future::join(waiting, quick)).await.unwrap();
    assert_eq!(quick, (limit::PROPAGATIONS, true));
    let busy = Unanswered::Busy(to);
    let busy = answers.iter().filter(|answer| **answer == Err(busy.clone())).count();
    assert_eq!(busy, limit::PROPAGATIONS, "the third lot is not asked in time");
}
