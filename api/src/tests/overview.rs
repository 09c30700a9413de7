//! What overviews and the connection with global show.

use super::*;
use crate::following::{
    Difference, Differs, Follow, Following, FollowingState, Held, NotHeld, Unseen,
};
use futures::future::BoxFuture;
use parking_lot::Mutex;

fn status(overview: &Answer) -> Value {
    overview.json()["status"].clone()
}

#[tokio::test(start_paused = true)]
async fn a_zone_overview_says_how_the_zone_does() {
    let cp = Cp::at(global()).await;
    let zones = |name: &str| format!("/zones/{name}/_overview");
    let opened = json!({"connectTime": "2026-11-24T10:00:00Z"});
    let closed = json!({
        "connectTime": "2026-11-24T08:00:00Z", "disconnectTime": "2026-11-24T09:00:00Z",
    });
    let insight = |subscriptions: &[&Value]| json!({"subscriptions": subscriptions});
    let zone = |enabled: bool| json!({"enabled": enabled});
    for (name, spec, known) in [
        ("new", zone(true), None),
        ("on", zone(true), Some(insight(&[&closed, &opened]))),
        ("off", zone(false), Some(insight(&[&closed]))),
    ] {
        cp.store("Zone", ResourceKey::global(name), &[], spec).await;
        if let Some(known) = known {
            cp.store("ZoneInsight", ResourceKey::global(name), &[], known).await;
        }
    }
    let never = json!({"state": "Offline", "reasons": ["it never was connected"]});
    assert_eq!(status(&cp.get(&zones("new")).await), never);
    let online = json!({"state": "Online", "since": "2026-11-24T10:00:00Z"});
    assert_eq!(status(&cp.get(&zones("on")).await), online);
    let disabled = "it is disabled: other zones do not see what it writes";
    let off = json!({"state": "Offline", "since": "2026-11-24T09:00:00Z", "reasons": [disabled]});
    assert_eq!(status(&cp.get(&zones("off")).await), off);

    let (id, _) = cp.kinds.iter().find(|(_, kind)| kind.name == "ZoneInsight").unwrap();
    let row = cp.store.reader().get(id, &ResourceKey::global("on")).unwrap();
    let row = Arc::new(row.with_status(r#"{"held":"another global"}"#.into()));
    let item = Item { kind: id, expected: Expected::Anything, edit: Edit::Put(row) };
    cp.store.commit(vec![item]).await.unwrap();
    let why = "it applies nothing of this global: another global";
    let held = json!({"state": "Held", "since": "2026-11-24T10:00:00Z", "reasons": [why]});
    assert_eq!(status(&cp.get(&zones("on")).await), held);
}

#[tokio::test(start_paused = true)]
async fn what_a_zone_said_that_is_away_is_not_taken_for_the_present() {
    let cp = Cp::at(global()).await;
    let of_east = [("kuma.io/zone", "east")];
    let spec = json!({"networking": {"address": "127.0.0.1"}});
    let insight = json!({"subscriptions": [{"connectTime": "2026-11-24T10:00:00Z"}]});
    cp.store("Dataplane", in_shop("web-1"), &of_east, spec).await;
    cp.store("DataplaneInsight", in_shop("web-1"), &of_east, insight.clone()).await;
    let path = "/meshes/shop/dataplanes/web-1/_overview";
    let unknown = json!({
        "state": "Unknown", "reasons": ["zone east is not connected; it said Online last"],
    });
    assert_eq!(status(&cp.get(path).await), unknown);
    cp.store("ZoneInsight", ResourceKey::global("east"), &[], insight).await;
    let online = json!({"state": "Online", "since": "2026-11-24T10:00:00Z"});
    assert_eq!(status(&cp.get(path).await), online);
}

/// A connection in which "c2" is held back, and what was adopted.
#[derive(Default)]
struct Other(Mutex<Vec<String>>);

impl Follow for Other {
    fn following(&self) -> Following {
        let held = Held { reason: "another global".into(), global: Some("c2".into()) };
        Following {
            state: FollowingState::Held,
            complete: true,
            connected_since: Some(NOW.parse().unwrap()),
            last_heard: None,
            last_failure: None,
            held: Some(held),
        }
    }

    fn difference(&self) -> BoxFuture<'_, Result<Difference, Unseen>> {
        let differs = |kind: &str, mesh: Option<&str>, name: String| Differs {
            r#type: kind.into(),
            mesh: mesh.map(str::to_owned),
            name,
        };
        let adopted = !self.0.lock().is_empty();
        Box::pin(std::future::ready(if adopted {
            Err(Unseen("the zone is not connected with global".into()))
        } else {
            let gone = (0..1500).map(|i| differs("MeshTimeout", Some("shop"), format!("t{i}")));
            Ok(Difference {
                global: Some("c2".into()),
                create: vec![differs("Mesh", None, "new".into())],
                change: Vec::new(),
                delete: gone.collect(),
            })
        }))
    }

    fn adopt(&self, global: &str) -> Result<(), NotHeld> {
        if global != "c2" {
            return Err(NotHeld);
        }
        self.0.lock().push(global.into());
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn an_operator_of_a_zone_sees_that_it_is_held_and_confirms_what_was_seen() {
    let other = Arc::<Other>::default();
    let cp = Cp::following(east(), Some(other.clone())).await;
    let shown = json!({
        "state": "Held",
        "complete": true,
        "connectedSince": NOW,
        "held": {"reason": "another global", "global": "c2"},
    });
    assert_eq!(cp.get("/_global").await.json(), shown);
    cp.store("Zone", ResourceKey::global("east"), &[], json!({})).await;
    let of_itself = json!({"state": "Held", "since": NOW, "reasons": ["another global"]});
    assert_eq!(status(&cp.get("/zones/east/_overview").await), of_itself);

    let difference = cp.get("/_global/difference").await.json();
    let new = json!([{"type": "Mesh", "name": "new"}]);
    assert_eq!(difference["global"], "c2");
    assert_eq!(difference["create"], json!({"total": 1, "items": new}));
    assert_eq!(difference["change"], json!({"total": 0, "items": []}));
    let delete = &difference["delete"];
    let first = json!({"type": "MeshTimeout", "mesh": "shop", "name": "t0"});
    assert_eq!((&delete["total"], &delete["items"][0]), (&json!(1500), &first));
    assert_eq!(delete["items"].as_array().unwrap().len(), 1000, "as many as a page has");

    let adopt = |body: Value| cp.as_user(&[access::ADMIN], "POST", "/_global/adopt", Some(body));
    let (status, title, fields) = adopt(json!({})).await.refusal();
    let wanted = "must be the one that GET /_global says is held back";
    assert_eq!((status, fields), (400, vec![("global".into(), wanted.into())]), "{title}");
    let (status, title, _) = adopt(json!({"global": "c3"})).await.refusal();
    assert_eq!((status, &*title), (409, "Could not adopt global: this global is not held back"));
    assert_eq!(*other.0.lock(), [""; 0]);
    assert_eq!(adopt(json!({"global": "c2"})).await.status, 200);
    assert_eq!(*other.0.lock(), ["c2"]);
    let (status, title, _) = cp.get("/_global/difference").await.refusal();
    let why = "Could not compare with global: the zone is not connected with global";
    assert_eq!((status, &*title), (503, why));
}

#[tokio::test(start_paused = true)]
async fn only_administrators_of_a_zone_with_a_global_ask_for_it() {
    let cp = Cp::following(east(), Some(Arc::<Other>::default())).await;
    let body = Some(json!({"global": "c2"}));
    for (method, path, body) in [
        ("GET", "/_global", None),
        ("GET", "/_global/difference", None),
        ("POST", "/_global/adopt", body),
    ] {
        let member = cp.as_user(&["mesh:*:writer"], method, path, body.clone()).await;
        assert_eq!(member.status, 403, "{path}");
        let global = Cp::at(global()).await;
        let (status, title, _) =
            global.as_user(&[access::ADMIN], method, path, body).await.refusal();
        assert_eq!(status, 404);
        assert!(title.ends_with(": this control plane follows no global"), "{title}");
    }
}

#[tokio::test(start_paused = true)]
async fn dataplanes_are_found_by_tag_and_gateway() {
    let cp = Cp::at(global()).await;
    let gateway = json!({"address": "127.0.0.1", "gateway": {"tags": {"app": "edge"}}});
    let sidecar = json!({"address": "127.0.0.1"});
    let dataplanes = [("gw", &gateway, "v1"), ("new", &sidecar, "v12"), ("old", &sidecar, "w1")];
    for (name, networking, version) in dataplanes {
        let labels = [("version", version)];
        cp.store("Dataplane", in_shop(name), &labels, json!({"networking": networking})).await;
    }
    for (query, found) in [
        ("", &["gw", "new", "old"][..]),
        ("tag=version:v1", &["gw", "new"]),
        ("tag=version:v1&tag=app:ed", &["gw"]),
        ("tag=nothing:v1", &[]),
        ("gateway=true", &["gw"]),
        ("gateway=delegated", &["gw"]),
        ("gateway=false", &["new", "old"]),
        ("gateway=false&tag=version:2", &["new"]),
    ] {
        for path in ["/meshes/shop/dataplanes", "/dataplanes", "/dataplanes/_overview"] {
            let list = cp.get(&format!("{path}?{query}")).await.json();
            assert_eq!((names(&list), &list["total"]), (found.to_vec(), &json!(found.len())));
        }
    }
    for (query, field) in [("gateway=maybe", "gateway"), ("tag=version", "tag")] {
        let (status, _, fields) = cp.get(&format!("/dataplanes?{query}")).await.refusal();
        let [(named, _)] = &fields[..] else { panic!("one field: {fields:?}") };
        assert_eq!((status, &**named), (400, field));
    }
    assert_eq!(cp.get("/meshtimeouts?gateway=maybe&tag=x").await.status, 200, "they are not ours");
}
