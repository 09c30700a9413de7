//! Questions of global about the proxies of a zone.

use super::world::{Address, Global, PATIENCE, Zone};
use crate::{
    admin::{Answerer, Format, Question, Unanswered, What},
    testkinds::zone,
};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::sync::Arc;
use tokio::{task::JoinSet, time::timeout};

/// Answers what it was asked, but for some proxies.
struct Echo;

impl Answerer for Echo {
    fn answer(&self, question: Question) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(async move {
            match &*question.name {
                "slow" => std::future::pending().await,
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
