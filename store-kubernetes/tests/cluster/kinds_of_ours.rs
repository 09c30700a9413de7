use crate::fixture::{Cluster, Opened, SYSTEM, id, make};
use anyhow::{Context as _, Result, ensure};
use resource::{Labels, MeshName, Peer, Resource, ResourceKey};
use serde_json::{Value, json};
use std::sync::Arc;
use store::{
    Backend as _, Expected, Item, Kinds, Outcome,
    conformance::{delete, kinds as samples, put},
    view::Edit,
};

fn kinds() -> Kinds {
    let list = [
        kinds::dataplane::KIND,
        kinds::secret::KIND,
        kinds::config::KIND,
        kinds::beacon::KIND,
        samples().list[0],
    ];
    Kinds { list: list.into(), peer: Peer::Global }
}

fn item(kind: &str, key: ResourceKey, labels: Labels, spec: Value) -> Item {
    let id = id(&kinds(), kind);
    let kind = kinds().list[id.index()];
    let spec = kind.encode(&kind.from_json(spec).unwrap()).unwrap();
    let row = kind.resource(key, labels, spec, Default::default(), Peer::Global).unwrap();
    Item { kind: id, expected: Expected::Anything, edit: Edit::Put(Arc::new(row)) }
}

fn row(opened: &Opened, kind: &str, key: &ResourceKey) -> Result<Arc<Resource>> {
    opened.store.reader().get(id(&kinds(), kind), key).with_context(|| format!("no {key}"))
}

fn in_mesh(mesh: &str, name: &str) -> ResourceKey {
    ResourceKey::in_mesh(&MeshName::new(mesh).unwrap(), name)
}

fn dataplane() -> Value {
    json!({ "networking": { "address": "10.0.0.1", "inbound": [{ "port": 80 }] } })
}

pub(crate) fn resources_live_in_their_namespaces(cluster: &mut Cluster<'_>) -> Result<()> {
    cluster.with_store(kinds(), async |opened| {
        let dataplanes = |namespace| {
            opened.other.api("kuma.io/v1alpha1", "Dataplane", "dataplanes", Some(namespace))
        };
        let key = in_mesh("default", "web-1.shop");
        let long = "w".repeat(100);
        let labels = Labels::from_iter([
            ("kuma.io/origin", "zone"),
            ("k8s.kuma.io/namespace", "shop"),
            ("kuma.io/workload", &long),
            ("app", "web"),
        ]);
        let there = item("Dataplane", key.clone(), labels, dataplane());
        // A copy keeps the namespace of the original, and stands in ours.
        let labels = Labels::from_iter([
            ("kuma.io/origin", "global"),
            ("k8s.kuma.io/namespace", "elsewhere"),
            ("kuma.io/display-name", "db"),
        ]);
        let copied = in_mesh("other", "db-x7f");
        let copy = item("Dataplane", copied.clone(), labels.clone(), dataplane());
        let committed = opened.store.commit(vec![there, copy]).await?;
        ensure!(committed.outcomes == [Outcome::Done, Outcome::Done], "{committed:?}");

        let object = dataplanes("shop").get("web-1").await?;
        let meta = serde_json::to_value(&object.metadata)?;
        ensure!(object.data["mesh"] == "default", "{object:?}");
        ensure!(object.data["spec"]["networking"]["address"] == "10.0.0.1");
        ensure!(meta["labels"]["app"] == "web" && meta["labels"]["kuma.io/mesh"] == "default");
        ensure!(meta["annotations"]["kuma.io/workload"] == long, "{meta}");
        ensure!(meta["annotations"]["kuma.io/display-name"] == "web-1", "{meta}");
        let seen = row(&opened, "Dataplane", &key)?;
        ensure!(seen.head.labels.get("kuma.io/workload") == Some(&*long));
        ensure!(seen.head.labels.get("kuma.io/display-name") == Some("web-1"));

        let object = dataplanes(SYSTEM).get("db-x7f").await?;
        ensure!(object.data["mesh"] == "other");
        let seen = row(&opened, "Dataplane", &copied)?;
        ensure!(seen.head.labels == labels.with("kuma.io/mesh", "other"), "{:?}", seen.head);

        // What others wrote, in the way of Kuma.
        let manifest = json!({ "apiVersion": "kuma.io/v1alpha1", "kind": "Dataplane",
            "mesh": "default", "metadata": { "name": "web-2" }, "spec": dataplane() });
        make(&dataplanes("shop"), manifest).await?;
        let key = in_mesh("default", "web-2.shop");
        let seen = opened.until(|_| row(&opened, "Dataplane", &key).ok()).await;
        let labels = Labels::from_iter([
            ("k8s.kuma.io/namespace", "shop"),
            ("kuma.io/display-name", "web-2"),
            ("kuma.io/mesh", "default"),
        ]);
        ensure!(seen.head.labels == labels, "{:?}", seen.head);
        Ok(())
    })
}

pub(crate) fn secrets_of_two_meshes_have_one_name(cluster: &mut Cluster<'_>) -> Result<()> {
    cluster.with_store(kinds(), async |opened| {
        let secrets = opened.other.api("v1", "Secret", "secrets", Some(SYSTEM));
        make(
            &secrets,
            json!({ "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": "taken" }, "stringData": { "value": "foreign" } }),
        )
        .await?;
        let secret = |mesh, name, data: &str| {
            item("Secret", in_mesh(mesh, name), Labels::default(), json!({ "data": data }))
        };
        let batch = vec![
            secret("one", "key", "b25l"),
            secret("two", "key", "dHdv"),
            secret("one", "taken", "b3Vycw=="),
        ];
        let committed = opened.store.commit(batch).await?;
        ensure!(committed.outcomes.iter().all(|it| *it == Outcome::Done), "{committed:?}");
        ensure!(opened.store.reader().rows(id(&kinds(), "Secret")).1.len() == 3);
        let object = secrets.get("key").await?;
        ensure!(object.data["type"] == "system.kuma.io/secret", "{object:?}");
        let foreign = secrets.get("taken").await?;
        ensure!(foreign.data["type"] == "Opaque", "{foreign:?}");
        Ok(())
    })?;
    cluster.with_store(kinds(), async |opened| {
        let spec = |mesh, name| {
            let spec = row(&opened, "Secret", &in_mesh(mesh, name))?.spec.clone();
            Ok::<_, anyhow::Error>(kinds::secret::KIND.to_json(&spec)?)
        };
        ensure!(spec("one", "key")? == json!({ "data": "b25l" }));
        ensure!(spec("two", "key")? == json!({ "data": "dHdv" }));
        ensure!(spec("one", "taken")? == json!({ "data": "b3Vycw==" }));
        ensure!(opened.store.reader().rows(id(&kinds(), "Secret")).1.len() == 3);
        let edit = Edit::Delete(in_mesh("two", "key"));
        let gone = Item { kind: id(&kinds(), "Secret"), expected: Expected::Anything, edit };
        ensure!(opened.store.commit(vec![gone]).await?.outcomes == [Outcome::Done]);
        ensure!(spec("one", "key").is_ok() && spec("two", "key").is_err());
        Ok(())
    })
}

/// What a zone remembers of its global.
fn memory(id: &str, revision: u64) -> Item {
    let at = format!("1-{revision}");
    let config = json!({ "id": id, "epoch": 1, "revision": revision,
        "kinds": { "Mesh": { "at": at, "refused": {} } } });
    let spec = json!({ "config": config.to_string() });
    item("Config", ResourceKey::global("atoll-global"), Labels::default(), spec)
}

pub(crate) fn a_place_alone_is_not_written(cluster: &mut Cluster<'_>) -> Result<()> {
    cluster.with_store(kinds(), async |opened| {
        let maps = opened.other.api("v1", "ConfigMap", "configmaps", Some(SYSTEM));
        let written = async || {
            let map = maps.get("atoll-global").await?;
            let text = map.data["data"]["config"].as_str().context("a text")?;
            let config: Value = serde_json::from_str(text)?;
            Ok::<_, anyhow::Error>((config["id"].clone(), config["revision"].clone()))
        };
        let shown = || -> Result<u64> {
            let row = row(&opened, "Config", &ResourceKey::global("atoll-global"))?;
            let json = kinds::config::KIND.to_json(&row.spec)?;
            let config: Value = serde_json::from_str(json["config"].as_str().context("a text")?)?;
            config["revision"].as_u64().context("a number")
        };
        ensure!(opened.store.commit(vec![memory("g", 1)]).await?.outcomes == [Outcome::Done]);
        ensure!(written().await? == (json!("g"), json!(1)));
        let before = opened.all_requests();
        for revision in 2..20 {
            let committed = opened.store.commit(vec![memory("g", revision)]).await?;
            ensure!(committed.outcomes == [Outcome::Done]);
            ensure!(shown()? == revision);
        }
        ensure!(opened.all_requests() == before, "places alone are written");
        // With something that is written, and after it.
        let sample = Item { kind: id(&kinds(), "Sample"), ..put("a", "1") };
        opened.store.commit(vec![memory("g", 20), sample.clone()]).await?;
        ensure!(written().await? == (json!("g"), json!(20)));
        // What changes nothing is no reason.
        opened.store.commit(vec![memory("g", 21), sample]).await?;
        ensure!(written().await? == (json!("g"), json!(20)));
        let gone = Item { kind: id(&kinds(), "Sample"), ..delete("a") };
        opened.store.commit(vec![gone, memory("g", 22)]).await?;
        ensure!(written().await? == (json!("g"), json!(22)));
        // Another global.
        opened.store.commit(vec![memory("h", 1)]).await?;
        ensure!(written().await? == (json!("h"), json!(1)));
        Ok(())
    })
}

pub(crate) fn beacons_cost_nothing(cluster: &mut Cluster<'_>) -> Result<()> {
    cluster.with_store(kinds(), async |opened| {
        let beacon = |number: u64| {
            let spec = serde_json::to_value(kinds::beacon::Beacon { number })?;
            Ok::<_, anyhow::Error>(item(
                "Beacon",
                ResourceKey::global("b"),
                Labels::default(),
                spec,
            ))
        };
        for number in 1..10 {
            let committed = opened.store.commit(vec![beacon(number)?]).await?;
            ensure!(committed.outcomes == [Outcome::Done]);
        }
        ensure!(opened.store.commit(vec![beacon(9)?]).await?.outcomes == [Outcome::Unchanged]);
        ensure!(opened.all_requests() == 0);
        Ok(())
    })
}
