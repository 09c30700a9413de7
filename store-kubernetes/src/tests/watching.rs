use super::*;
use store::{
    Backend as _,
    conformance::{SAMPLES as KIND, key},
    view::{Changes, Revision},
};

fn names(store: &Local) -> Vec<String> {
    let (_, rows) = store.reader().rows(KIND);
    rows.iter()
        .map(|row| format!("{}={}", row.head.key, String::from_utf8_lossy(&row.spec)))
        .collect()
}

fn said(pairs: &[(&str, &str)]) -> Vec<String> {
    pairs.iter().map(|(name, value)| format!("{name}={{\"value\":\"{value}\"}}")).collect()
}

/// The names of what changed after `since`, in order.
fn changed(store: &Local, since: Revision) -> Vec<String> {
    match store.reader().changes(KIND, since) {
        Changes::Keys { changes, .. } => changes.iter().map(|it| it.key.to_string()).collect(),
        Changes::Lost => panic!("too much changed"),
    }
}

async fn until(store: &Local, wanted: &[(&str, &str)]) {
    let mut reader = store.reader();
    while names(store) != said(wanted) {
        let next = Revision(reader.revision().0 + 1);
        reader.wait_for(next).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_known_before_the_last_page() {
    let (client, mut server) = server();
    let opening = open(client, settings(), kinds(), Clock::system());
    let mut opening = std::pin::pin!(opening);
    let pages = async {
        let first = server.asked(&format!("GET {SAMPLES}")).await;
        assert!(first.query.contains("limit=500"), "{}", first.query);
        first.says(list("9", &[object("a", "3", "1")], "more"));
        let second = server.asked(&format!("GET {SAMPLES}")).await;
        assert!(second.query.contains("continue=more"), "{}", second.query);
        second
    };
    let second = tokio::select! {
        biased;
        opened = &mut opening => panic!("it is open: {}", opened.is_ok()),
        second = pages => second,
    };
    second.says(list("10", &[object("b", "4", "1")], ""));
    let (store, _writing) = opening.await.unwrap();
    assert_eq!(names(&store), said(&[("a", "1"), ("b", "1")]));
}

#[tokio::test(start_paused = true)]
async fn a_store_opens_when_the_server_can_be_asked_at_last() {
    let (client, mut server) = server();
    let (opened, ()) = tokio::join!(open(client, settings(), kinds(), Clock::system()), async {
        server.asked(&format!("GET {SAMPLES}")).await.breaks();
        server.asked(&format!("GET {SAMPLES}")).await.answers(503, json!("starting"));
        // Nothing at all.
        let silent = server.asked(&format!("GET {SAMPLES}")).await;
        server.asked(&format!("GET {SAMPLES}")).await.says(list("1", &[object("a", "1", "1")], ""));
        drop(silent);
    });
    assert_eq!(names(&opened.unwrap().0), said(&[("a", "1")]));
}

#[tokio::test(start_paused = true)]
async fn the_older_of_two_with_one_key_counts_whichever_is_listed_first() {
    let older = {
        let mut object = object("web", "3", "older");
        object["metadata"]["namespace"] = "shop".into();
        object["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
        object
    };
    let younger = {
        let mut object = object("web.shop", "4", "younger");
        object["metadata"]["creationTimestamp"] = "2026-01-02T00:00:00Z".into();
        object
    };
    for objects in [[older.clone(), younger.clone()], [younger, older]] {
        let (client, mut server) = server();
        let (store, _writing, _watch) = opened(&mut server, client, &objects).await;
        assert_eq!(names(&store), said(&[("web.shop", "older")]));
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_break_the_watch_goes_on_where_it_was() {
    let (client, mut server) = server();
    let (store, mut writing, watch) = opened(&mut server, client, &[object("a", "3", "1")]).await;
    while_writing(&mut writing, async {
        watch.says("ADDED", &object("b", "11", "1")).await;
        watch.says("MODIFIED", &object("a", "12", "2")).await;
        until(&store, &[("a", "2"), ("b", "1")]).await;
        let bookmark = json!({ "apiVersion": "kuma.io/v1alpha1", "kind": "Sample",
            "metadata": { "resourceVersion": "30" } });
        watch.says("BOOKMARK", &bookmark).await;
        drop(watch);
        let watch = server.watches("30").await;
        watch.says("DELETED", &object("a", "31", "2")).await;
        until(&store, &[("b", "1")]).await;
        drop(watch);
        server.asked(&format!("GET {SAMPLES}")).await.breaks();
        server.watches("31").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn after_a_gap_only_differences_are_seen() {
    let (client, mut server) = server();
    let objects = [object("a", "3", "1"), object("b", "4", "1"), object("c", "5", "1")];
    let (store, mut writing, watch) = opened(&mut server, client, &objects).await;
    while_writing(&mut writing, async {
        let before = store.reader().revision();
        let gone = json!({ "kind": "Status", "code": 410, "reason": "Expired", "message": "too old",
            "status": "Failure" });
        watch.says("ERROR", &gone).await;
        let objects = [object("a", "3", "1"), object("c", "77", "2"), object("d", "78", "1")];
        let watch = server.lists("90", &objects).await;
        until(&store, &[("a", "1"), ("c", "2"), ("d", "1")]).await;
        let mut seen = changed(&store, before);
        seen.sort_unstable();
        assert_eq!(seen, ["b", "c", "d"]);
        drop(watch);
        // The same as an answer instead of an event.
        server.asked(&format!("GET {SAMPLES}")).await.refuses(410, "Expired", "too old", json!({}));
        let before = store.reader().revision();
        server.lists("95", &objects).await;
        assert_eq!(changed(&store, before), [""; 0]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_not_defined_is_asked_for_when_it_is() {
    let (client, mut server) = server();
    let definitions = "GET /apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let unknown = || Value::String("404 page not found".into());
    let (opened, _) = tokio::join!(open(client, settings(), kinds(), Clock::system()), async {
        server.asked(&format!("GET {SAMPLES}")).await.answers(404, unknown());
    });
    let (store, mut writing) = opened.unwrap();
    while_writing(&mut writing, async {
        let asked = server.asked(definitions).await;
        asked.says(json!({ "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
            "metadata": { "resourceVersion": "5" }, "items": [] }));
        let watch = server.asked(definitions).await.watch();
        server.asked(&format!("GET {SAMPLES}")).await.answers(404, unknown());
        let committed = store.commit(vec![store::conformance::put("a", "1")]).await.unwrap();
        let [store::Outcome::Refused { reason }] = &*committed.outcomes else { panic!() };
        assert!(reason.contains("atoll install crds"), "{reason}");
        // However long that takes, nobody asks.
        tokio::time::advance(Duration::from_secs(200)).await;
        assert!(!server.is_asked(&format!("GET {SAMPLES}")).await);
        let definition = json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
            "metadata": { "name": "samples.kuma.io", "resourceVersion": "6" } });
        watch.says("ADDED", &definition).await;
        // It is not followed at once.
        server.asked(&format!("GET {SAMPLES}")).await.answers(404, unknown());
        server.lists("10", &[object("a", "3", "1")]).await;
        until(&store, &[("a", "1")]).await;
        assert!(store.reader().get(KIND, &key("a")).is_some());
    })
    .await;
}

/// What an API server says that has just started, and does not know its definitions yet.
#[tokio::test(start_paused = true)]
async fn a_server_that_forgot_a_kind_for_a_moment_empties_nothing() {
    let (client, mut server) = server();
    let (store, mut writing, watch) = opened(&mut server, client, &[object("a", "3", "1")]).await;
    while_writing(&mut writing, async {
        drop(watch);
        let definitions = "GET /apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        let definition = json!({ "metadata": { "name": "samples.kuma.io", "resourceVersion": "6" } });
        server.asked(definitions).await.says(json!({ "kind": "PartialObjectMetadataList",
            "apiVersion": "meta.k8s.io/v1", "metadata": { "resourceVersion": "5" }, "items": [definition] }));
        let unknown = || Value::String("404 page not found".into());
        server.asked(&format!("GET {SAMPLES}")).await.answers(404, unknown());
        let before = store.reader().revision();
        for _ in 0..3 {
            server.asked(&format!("GET {SAMPLES}")).await.answers(404, unknown());
        }
        server.lists("12", &[object("a", "3", "1")]).await;
        assert_eq!(store.reader().revision(), before);
        assert_eq!(names(&store), said(&[("a", "1")]));
    })
    .await;
}
