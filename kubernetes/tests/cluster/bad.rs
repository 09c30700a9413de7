//! What nobody checked before it was stored: it is told on the object, and all else goes on.
#![expect(clippy::indexing_slicing, reason = "what is not there fails a test")]

use crate::world::{self, Asked, PATIENCE, Zone};
use anyhow::{Context as _, Result, bail, ensure};
use apiserver::{ApiServer, Options};
use futures::StreamExt as _;
use k8s_openapi::api::{core::v1::Namespace, events::v1::Event};
use kube::{
    Api, Client,
    api::DeleteParams,
    runtime::{WatchStreamExt as _, wait::await_condition, watcher},
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tokio::time::timeout;

/// A cluster with a zone and no webhooks.
struct World {
    server: ApiServer,
    client: Client,
    zone: Zone,
    /// What the zone asked.
    asked: Asked,
    /// How many pods showed that all goes on.
    more: u8,
}

impl World {
    async fn start(server: ApiServer) -> Result<Self> {
        let asked = Asked::default();
        let client = world::client(&server, &Asked::default()).await?;
        world::install(&client).await?;
        world::namespace(&client, "shop", true).await?;
        let zone = Zone::start(world::client(&server, &asked).await?).await?;
        Ok(Self { server, client, zone, asked, more: 0 })
    }

    /// Creates an object in the namespace `shop`.
    async fn create(&self, plural: &str, object: &Value) -> Result<()> {
        let root = if plural.starts_with("mesh") { "/apis/kuma.io/v1alpha1" } else { "/api/v1" };
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or("shop");
        let path = format!("{root}/namespaces/{namespace}/{plural}");
        let request = http::Request::post(path).body(object.to_string().into_bytes())?;
        self.client.request::<Value>(request).await?;
        Ok(())
    }

    /// Writes something else beside what an object of the namespace `shop` says, and never ends.
    async fn touch_again_and_again(&self, plural: &str, name: &str) -> Result<String> {
        for i in 0_u32.. {
            let path = format!("/apis/kuma.io/v1alpha1/namespaces/shop/{plural}/{name}");
            let patch = json!({ "metadata": { "annotations": { "touched": i.to_string() } } });
            let request = http::Request::patch(path)
                .header("content-type", "application/merge-patch+json")
                .body(patch.to_string().into_bytes())?;
            self.client.request::<Value>(request).await?;
        }
        bail!("touched often enough")
    }

    /// What the event with a reason about an object says.
    async fn told(&self, reason: &str, name: &str) -> Result<String> {
        let events = Api::<Event>::all(self.client.clone());
        let events =
            watcher(events, watcher::Config::default()).default_backoff().applied_objects();
        let mut events = events.boxed();
        let found = async {
            while let Some(event) = events.next().await {
                let event = event?;
                let of = event.regarding.and_then(|it| it.name);
                if event.reason.as_deref() == Some(reason) && of.as_deref() == Some(name) {
                    return Ok(event.note.unwrap_or_default());
                }
            }
            bail!("no more events")
        };
        let found = timeout(PATIENCE, found).await;
        found.with_context(|| format!("no event {reason} of {name}"))?
    }

    /// Changes the definition of a kind.
    fn redefine(&self, plural: &str, patch: &Value) -> Result<()> {
        let definition = format!("crd/{plural}.kuma.io");
        let patch = format!("--patch={patch}");
        self.server.kubectl(&["patch", &definition, "--type=json", &patch]).map(drop)
    }

    /// A new pod gets into the mesh.
    async fn goes_on(&mut self) -> Result<()> {
        self.more += 1;
        let (name, ip) = (format!("next-{}", self.more), format!("10.2.0.{}", self.more));
        world::pod(&self.client, "shop", &name, "next").await?;
        world::status(&self.client, ("shop", &name), &ip, true).await?;
        self.is_there(kinds::dataplane::KIND, &format!("{name}.shop")).await
    }

    async fn is_there(&self, kind: resource::Kind, name: &str) -> Result<()> {
        let there = |rows: &store::view::Rows| rows.iter().any(|row| &*row.head.key.name == name);
        self.zone.until(kind, there).await.with_context(|| format!("{name} is not there"))
    }

    /// What the zone wrote so far.
    fn written(&self) -> BTreeMap<String, usize> {
        let mut all = self.asked.lock().clone();
        all.retain(|sort, _| !sort.starts_with("GET") && !sort.starts_with("WATCH"));
        all
    }
}

fn run<F: Future<Output = Result<()>>>(
    options: Options,
    test: impl FnOnce(World) -> F,
) -> Result<()> {
    world::run(options, async |server| test(World::start(server).await?).await)
}

fn timeout_of(name: &str, labels: Value, conf: Value) -> Value {
    json!({
        "apiVersion": "kuma.io/v1alpha1", "kind": "MeshTimeout",
        "metadata": { "name": name, "namespace": "shop", "labels": labels },
        "spec": { "to": [{ "targetRef": { "kind": "Mesh" }, "default": conf }] },
    })
}

/// A pod as the injector leaves it, with more about it.
fn pod(name: &str, labels: Value, annotations: Value) -> Value {
    let mut pod = json!({
        "metadata": { "name": name, "labels": labels, "annotations": annotations },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [
                { "name": "app", "image": "app", "ports": [{ "name": "http", "containerPort": 8080 }] },
                { "name": "kuma-sidecar", "image": "sidecar" },
            ],
        },
    });
    pod["metadata"]["annotations"]["kuma.io/sidecar-injected"] = "true".into();
    pod
}

pub(crate) fn what_no_webhook_saw_is_told_on_the_object() -> Result<()> {
    run(Options::default(), async |mut world: World| {
        let good = json!({ "idleTimeout": "1s" });
        let of_no_mesh = json!({ "kuma.io/mesh": "No_Mesh" });
        world.create("meshtimeouts", &timeout_of("of-no-mesh", of_no_mesh, good.clone())).await?;
        let note = world.told("NotTaken", "of-no-mesh").await?;
        ensure!(note.starts_with("metadata.labels[kuma.io/mesh]: "), "{note}");

        world.create("meshtimeouts", &timeout_of("twice", json!({}), good.clone())).await?;
        world.is_there(kinds::mesh_timeout::KIND.kind, "twice.shop").await?;
        let mut second = timeout_of("twice.shop", json!({}), good.clone());
        second["metadata"]["namespace"] = "kuma-system".into();
        world.create("meshtimeouts", &second).await?;
        let note = world.told("NotTaken", "twice.shop").await?;
        ensure!(note == "shop/twice is older and has the same name in the mesh", "{note}");
        world.goes_on().await
    })
}

pub(crate) fn what_another_definition_lets_through_is_told_on_the_object() -> Result<()> {
    run(Options::default(), async |mut world: World| {
        let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
        let anything = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
        let patch = json!([{ "op": "replace", "path": path, "value": anything }]);
        world.redefine("meshtimeouts", &patch)?;
        let wrong = timeout_of("with-a-mistake", json!({}), json!({ "idleTimeout": "soon" }));
        // The API server follows its definitions a moment later.
        let creating = async { while world.create("meshtimeouts", &wrong).await.is_err() {} };
        timeout(PATIENCE, creating).await.context("the other definition is not followed")?;
        let note = world.told("NotTaken", "with-a-mistake").await?;
        let expected = r#"spec.to[0].default.idleTimeout: "soon" is not a duration such as "1h30m" or "500ms""#;
        ensure!(note == expected, "{note}");

        // Fields of a newer version are left alone, and what is known counts.
        let mut newer = json!({ "idleTimeout": "1s", "patience": "1s" });
        for i in 0..10_000 {
            newer[format!("wish-{i}")] = i.into();
        }
        world.create("meshtimeouts", &timeout_of("newer", json!({}), newer)).await?;
        world.is_there(kinds::mesh_timeout::KIND.kind, "newer.shop").await?;
        // A watch that was open before the definition changed shows none of them, until it ends.
        let note = tokio::select! {
            biased;
            note = world.told("UnknownFields", "newer") => note?,
            failed = world.touch_again_and_again("meshtimeouts", "newer") => failed?,
        };
        let expected = "nobody here knows these fields: spec.to[0].default.patience, spec.to[0].default.wish-0, ";
        ensure!(note.starts_with(expected) && note.ends_with(", and 9991 more"), "{note}");
        world.goes_on().await
    })
}

pub(crate) fn what_an_older_definition_loses_is_not_written_again_and_again() -> Result<()> {
    run(Options::default(), async |mut world: World| {
        let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/ports/items\
                    /properties/appProtocol";
        world.redefine("meshservices", &json!([{ "op": "remove", "path": path }]))?;
        let protocol = |zone: &Zone, name: &str| -> Result<String> {
            let row = zone.get(kinds::mesh_service::KIND, &format!("{name}.shop"))?;
            let row = row.context("it goes")?;
            let service = kinds::read::<kinds::mesh_service::MeshService>(&row)?;
            Ok(service.ports.first().context("a port")?.app_protocol.clone())
        };
        let mut lost = 0;
        for i in 0..10 {
            let name = format!("app-{i}");
            world::service(&world.client, "shop", &name).await?;
            world.is_there(kinds::mesh_service::KIND, &format!("{name}.shop")).await?;
            lost += usize::from(protocol(&world.zone, &name)? == "tcp");
        }
        // The API server follows its definitions a moment later.
        ensure!(lost > 0, "nothing is lost");
        world.goes_on().await?;
        let written = world.written();
        let each = |sort: &str| written.get(sort).copied().unwrap_or_default();
        ensure!(each("POST meshservices") == 10 && each("PUT meshservices") <= 20, "{written:?}");
        Ok(())
    })
}

pub(crate) fn pods_and_services_at_their_limits() -> Result<()> {
    run(Options::default(), async |mut world: World| {
        let (long, label) = ("x".repeat(253), "y".repeat(63));
        let none = || json!({});
        let running = async |world: &World, name: &str, ip: &str| {
            world::status(&world.client, ("shop", name), ip, true).await
        };
        // It has no address yet.
        world.create("pods", &pod("early", none(), none())).await?;
        world.create("pods", &pod(&long, none(), none())).await?;
        running(&world, &long, "10.1.0.1").await?;
        let note = world.told("NameTooLong", &long).await?;
        ensure!(
            note.starts_with("the name of its Dataplane, the name and the namespace, has 258"),
            "{note}"
        );

        let labels = json!({ "app": label, label.as_str(): label });
        let annotations = json!({ "example.org/notes": "z".repeat(200_000) });
        world.create("pods", &pod("full", labels, annotations)).await?;
        running(&world, "full", "10.1.0.2").await?;
        world.is_there(kinds::dataplane::KIND, "full.shop").await?;
        let row = world.zone.get(kinds::dataplane::KIND, "full.shop")?.context("it goes")?;
        ensure!(row.head.labels.get(&label) == Some(&label), "{:?}", row.head.labels);

        let wrong = json!({ "kuma.io/reachable-backends": "{" });
        world.create("pods", &pod("wrong", none(), wrong)).await?;
        running(&world, "wrong", "10.1.0.3").await?;
        let note = world.told("InvalidAnnotation", "wrong").await?;
        ensure!(note.starts_with("kuma.io/reachable-backends: EOF"), "{note}");
        world.create("pods", &pod("lost", json!({ "kuma.io/mesh": "nobody" }), none())).await?;
        running(&world, "lost", "10.1.0.4").await?;
        let note = world.told("NoMesh", "lost").await?;
        ensure!(note == "mesh \"nobody\" does not exist; once it does, this goes on", "{note}");

        let spec = json!({ "clusterIP": "None", "selector": { "app": "cart" } });
        world.create("services", &json!({ "metadata": { "name": "mute" }, "spec": spec })).await?;
        let note = world.told("NoPort", "mute").await?;
        ensure!(note == "the Service is not in the mesh: it has no port", "{note}");

        world.goes_on().await?;
        ensure!(world.zone.get(kinds::dataplane::KIND, "early.shop")?.is_none());
        running(&world, "early", "10.1.0.5").await?;
        world.is_there(kinds::dataplane::KIND, "early.shop").await
    })
}

pub(crate) fn names_that_are_cut_stay_apart() -> Result<()> {
    run(Options::default(), async |mut world: World| {
        let stem = "x".repeat(200);
        let ports = json!([{ "name": "http", "port": 80, "targetPort": "http" }]);
        let service = |name: &str, namespace: &str, ip: &str| {
            let spec = json!({ "clusterIP": ip, "selector": { "app": "db" }, "ports": ports });
            json!({ "metadata": { "name": name, "namespace": namespace }, "spec": spec })
        };
        world.create("services", &service("db", "shop", "None")).await?;
        for (name, ip) in [(format!("{stem}-1"), "10.1.0.1"), (format!("{stem}-2"), "10.1.0.2")] {
            world.create("pods", &pod(&name, json!({ "app": "db" }), json!({}))).await?;
            world::status(&world.client, ("shop", &name), ip, true).await?;
            world.is_there(kinds::dataplane::KIND, &format!("{name}.shop")).await?;
        }
        let two = |rows: &store::view::Rows| rows.len() == 2;
        world.zone.until(kinds::mesh_service::KIND, two).await?;
        // The longest names of a Service and of its namespace.
        let (name, namespace) = ("s".repeat(63), "n".repeat(63));
        world::namespace(&world.client, &namespace, true).await?;
        let longest = json!({
            "metadata": { "name": name, "namespace": namespace },
            "spec": { "selector": { "app": "db" }, "ports": ports },
        });
        world.create("services", &longest).await?;
        world.is_there(kinds::mesh_service::KIND, &format!("{name}.{namespace}")).await?;
        world.goes_on().await
    })
}

pub(crate) fn a_namespace_goes_while_its_pods_come() -> Result<()> {
    run(Options { controllers: true, ..Options::default() }, async |mut world: World| {
        world::namespace(&world.client, "going", true).await?;
        for namespace in ["going", "shop"] {
            world::account(&world.client, namespace).await?;
        }
        for i in 1..=30 {
            let name = format!("cart-{i}");
            world::pod(&world.client, "going", &name, "cart").await?;
            world::status(&world.client, ("going", &name), &format!("10.1.0.{i}"), true).await?;
        }
        let namespaces = Api::<Namespace>::all(world.client.clone());
        namespaces.delete("going", &DeleteParams::default()).await?;
        world.goes_on().await?;
        let gone = await_condition(namespaces, "going", |it: Option<&Namespace>| it.is_none());
        timeout(PATIENCE, gone).await.context("the namespace stays")??;
        let none = |rows: &store::view::Rows| {
            !rows.iter().any(|row| row.head.key.name.ends_with(".going"))
        };
        world.zone.until(kinds::dataplane::KIND, none).await?;
        world.goes_on().await?;
        // Nothing is tried that cannot be.
        let written = world.written();
        let made = written.get("POST dataplanes").copied().unwrap_or_default();
        ensure!(made <= 2 * 30 + 2, "{written:?}");
        Ok(())
    })
}
