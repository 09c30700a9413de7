use super::*;
use futures::stream::FuturesUnordered;
use store::{
    Backend as _, Expected, Item, Outcome,
    conformance::{SAMPLES as KIND, delete, key, put},
};
use tokio::time::Instant;

fn post() -> String {
    format!("POST {SYSTEM}")
}

fn value(store: &Local, name: &str) -> Option<String> {
    let row = store.reader().get(KIND, &key(name))?;
    Some(String::from_utf8_lossy(&row.spec).into_owned())
}

/// Lets a test answer what a store asks while it commits.
async fn test<F: Future<Output = ()>>(
    objects: &[Value],
    test: impl FnOnce(Local, Server, Watch) -> F,
) {
    let (client, mut server) = server();
    let (store, mut writing, watch) = opened(&mut server, client, objects).await;
    while_writing(&mut writing, test(store, server, watch)).await;
}

#[tokio::test(start_paused = true)]
async fn an_echo_changes_nothing() {
    test(&[], async |store, mut server, watch| {
        let write = async {
            let first = server.asked(&post()).await.takes("11");
            let replaced = server.asked(&format!("PUT {SYSTEM}/a")).await;
            assert_eq!(replaced.body["metadata"]["resourceVersion"], "11");
            assert!(replaced.query.contains("fieldManager=atoll"), "{}", replaced.query);
            (first, replaced.takes("12"))
        };
        let batch = vec![put("a", "1"), put("a", "2")];
        let (committed, (first, second)) = tokio::join!(store.commit(batch), write);
        let committed = committed.unwrap();
        assert_eq!(committed.outcomes, [Outcome::Done, Outcome::Done]);
        // What it was before, which must not be seen again.
        watch.says("ADDED", &first).await;
        watch.says("ADDED", &object("b", "13", "1")).await;
        let mut reader = store.reader();
        reader.wait_for(store::view::Revision(committed.revision.0 + 1)).await.unwrap();
        assert_eq!(value(&store, "a").unwrap(), r#"{"value":"2"}"#);
        assert!(value(&store, "b").is_some(), "the echo was seen");
        watch.says("MODIFIED", &second).await;
        watch.says("DELETED", &object("b", "14", "1")).await;
        reader.wait_for(store::view::Revision(committed.revision.0 + 2)).await.unwrap();
        assert!(value(&store, "b").is_none(), "the echo was seen");
    })
    .await;
}

/// A watch may be behind what was written since.
#[tokio::test(start_paused = true)]
async fn what_was_deleted_does_not_come_back_by_an_echo() {
    test(&[], async |store, mut server, watch| {
        let write = async {
            let there = server.asked(&post()).await.takes("11");
            let deleted = server.asked(&format!("DELETE {SYSTEM}/a")).await;
            assert_eq!(deleted.body["preconditions"]["uid"], "uid-11");
            deleted.says(json!({ "kind": "Status", "apiVersion": "v1", "status": "Success",
                "metadata": {}, "details": { "name": "a", "uid": "uid-11" } }));
            there
        };
        let batch = vec![put("a", "1"), delete("a")];
        let (committed, there) = tokio::join!(store.commit(batch), write);
        let revision = committed.unwrap().revision;
        watch.says("ADDED", &there).await;
        watch.says("ADDED", &object("b", "12", "1")).await;
        let mut reader = store.reader();
        reader.wait_for(store::view::Revision(revision.0 + 1)).await.unwrap();
        assert!(value(&store, "a").is_none() && value(&store, "b").is_some());
        let mut gone = there.clone();
        gone["metadata"]["resourceVersion"] = "13".into();
        watch.says("DELETED", &gone).await;
        watch.says("DELETED", &object("b", "14", "1")).await;
        reader.wait_for(store::view::Revision(revision.0 + 2)).await.unwrap();
        assert!(value(&store, "b").is_none());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_the_watch_overtook_brings_nothing_back() {
    test(&[object("a", "3", "1")], async |store, mut server, watch| {
        let write = async {
            let asked = server.asked(&format!("PUT {SYSTEM}/a")).await;
            let mut written = asked.body.clone();
            written["metadata"]["resourceVersion"] = "11".into();
            watch.says("MODIFIED", &written).await;
            watch.says("DELETED", &object("a", "12", "2")).await;
            let mut reader = store.reader();
            while value(&store, "a").is_some() {
                let next = store::view::Revision(reader.revision().0 + 1);
                reader.wait_for(next).await.unwrap();
            }
            asked.takes("11");
        };
        let (committed, ()) = tokio::join!(store.commit(vec![put("a", "2")]), write);
        assert_eq!(committed.unwrap().outcomes, [Outcome::Done]);
        assert!(value(&store, "a").is_none(), "a ghost");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_was_written_during_a_list_is_not_missing_in_it() {
    test(&[object("a", "3", "1")], async |store, mut server, watch| {
        let gone =
            json!({ "kind": "Status", "code": 410, "message": "too old", "status": "Failure" });
        watch.says("ERROR", &gone).await;
        let list_asked = server.asked(&format!("GET {SAMPLES}")).await;
        let write = async { server.asked(&post()).await.takes("95") };
        let (committed, _) = tokio::join!(store.commit(vec![put("b", "1")]), write);
        assert_eq!(committed.unwrap().outcomes, [Outcome::Done]);
        // As it was before.
        list_asked.says(list("90", &[object("a", "3", "1")], ""));
        server.watches("90").await;
        assert!(value(&store, "b").is_some(), "it is gone");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_has_enough_is_left_alone_as_long_as_it_says() {
    test(&[], async |store, mut server, _watch| {
        let start = Instant::now();
        let answers = async {
            let details = json!({ "retryAfterSeconds": 7 });
            server.asked(&post()).await.refuses(429, "TooManyRequests", "enough", details);
            let again = server.asked(&post()).await;
            assert!(start.elapsed() >= Duration::from_secs(7), "{:?}", start.elapsed());
            again.takes("11");
        };
        let (committed, ()) = tokio::join!(store.commit(vec![put("a", "1")]), answers);
        assert_eq!(committed.unwrap().outcomes, [Outcome::Done]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_fails_for_one_object_does_not_hold_back_others() {
    test(&[], async |store, mut server, _watch| {
        let slow = store.commit(vec![put("a", "1")]);
        let mut slow = std::pin::pin!(slow);
        for round in 0..5 {
            let answers = async {
                let refused = server.asked(&post()).await;
                assert_eq!(refused.body["metadata"]["name"], "a");
                refused.refuses(500, "InternalError", "failed calling webhook", json!({}));
                let name = format!("b{round}");
                let (committed, _) = tokio::join!(store.commit(vec![put(&name, "1")]), async {
                    server.asked(&post()).await.takes(&format!("2{round}"))
                });
                assert_eq!(committed.unwrap().outcomes, [Outcome::Done]);
            };
            tokio::select! {
                biased;
                _ = &mut slow => panic!("it is there"),
                () = answers => {}
            }
        }
        let (committed, _) = tokio::join!(slow, async { server.asked(&post()).await.takes("30") });
        assert_eq!(committed.unwrap().outcomes, [Outcome::Done]);
    })
    .await;
}

/// The request was carried out, and the answer lost.
#[tokio::test(start_paused = true)]
async fn what_nobody_answered_may_have_been_done() {
    test(&[], async |store, mut server, _watch| {
        let item = Item { expected: Expected::Nothing, ..put("a", "1") };
        let answers = async {
            let mut done = server.asked(&post()).await;
            let mut there = std::mem::take(&mut done.body);
            done.breaks();
            let details = json!({ "name": "a", "kind": "samples" });
            server.asked(&post()).await.refuses(409, "AlreadyExists", "it exists", details);
            there["metadata"]["uid"] = "u".into();
            there["metadata"]["resourceVersion"] = "11".into();
            server.asked(&format!("GET {SYSTEM}/a")).await.says(there);
        };
        let (committed, ()) = tokio::join!(store.commit(vec![item]), answers);
        assert_eq!(committed.unwrap().outcomes, [Outcome::Done]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_was_overtaken_decides_anew() {
    test(&[object("a", "3", "1")], async |store, mut server, _watch| {
        let details = || json!({ "name": "a", "kind": "samples" });
        let before = store.reader().get(KIND, &key("a")).unwrap().head.version;
        let item = Item { expected: Expected::Version(before), ..put("a", "2") };
        let answers = async {
            let asked = server.asked(&format!("PUT {SYSTEM}/a")).await;
            asked.refuses(409, "Conflict", "modified", details());
            server.asked(&format!("GET {SYSTEM}/a")).await.says(object("a", "11", "theirs"));
        };
        let (committed, ()) = tokio::join!(store.commit(vec![item]), answers);
        let there = store.reader().get(KIND, &key("a")).unwrap().head.version;
        assert_eq!(committed.unwrap().outcomes, [Outcome::Conflict { found: Some(there) }]);
        assert_eq!(value(&store, "a").unwrap(), r#"{"value":"theirs"}"#);

        let answers = async {
            let asked = server.asked(&format!("PUT {SYSTEM}/a")).await;
            assert_eq!(asked.body["metadata"]["resourceVersion"], "11");
            asked.refuses(404, "NotFound", "gone", details());
            let made = server.asked(&post()).await;
            assert!(made.body["metadata"]["resourceVersion"].is_null());
            made.takes("12");
        };
        let (committed, ()) = tokio::join!(store.commit(vec![put("a", "3")]), answers);
        assert_eq!(committed.unwrap().outcomes, [Outcome::Done]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_taken_is_refused_in_the_words_of_the_server() {
    test(&[], async |store, mut server, _watch| {
        let refusals = [
            (403, "Forbidden", "exceeded quota: few"),
            (422, "Invalid", "spec.value: too long"),
            (413, "RequestEntityTooLarge", "too large"),
            (404, "NotFound", "namespaces \"kuma-system\" not found"),
        ];
        for (code, reason, message) in refusals {
            let answers = async {
                let details = json!({ "name": "kuma-system" });
                server.asked(&post()).await.refuses(code, reason, message, details);
            };
            let (committed, ()) = tokio::join!(store.commit(vec![put("a", "1")]), answers);
            let refused = Outcome::Refused { reason: message.into() };
            assert_eq!(committed.unwrap().outcomes, [refused]);
        }
        assert!(value(&store, "a").is_none());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn only_so_many_requests_are_under_way() {
    test(&[], async |store, mut server, _watch| {
        let one = |i: u32| store.commit(vec![put(&format!("s{i}"), "1")]);
        let mut all: FuturesUnordered<_> = (0..100).map(one).collect();
        let answers = async {
            let mut waiting = Vec::new();
            while server.is_asked(&post()).await {
                waiting.push(server.asked(&post()).await);
            }
            assert_eq!(waiting.len(), 32);
            for (index, asked) in (100..).zip(waiting) {
                asked.takes(&index.to_string());
            }
            for index in 200..268 {
                server.asked(&post()).await.takes(&index.to_string());
            }
        };
        let committed = async {
            while let Some(committed) = all.next().await {
                assert_eq!(committed.unwrap().outcomes, [Outcome::Done]);
            }
        };
        tokio::join!(committed, answers);
    })
    .await;
}
