//! The examples of the documentation, as a user applies them: they are taken; and with a mistake, what
//! the user is told.

use crate::{
    admission::{answering, asked},
    world::{self, Asked, PATIENCE},
};
use anyhow::{Context as _, Result, bail, ensure};
use apiserver::{ApiServer, Options};
use daemon::Clock;
use futures::StreamExt as _;
use k8s_openapi::api::events::v1::Event;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::Value;
use std::{fs, path::PathBuf};
use tokio::time::timeout;

use Told::{AtOnce, ByEvent};

const PAGE: &str = include_str!("../../../docs/kubernetes.md");

/// Where the user is told of a mistake.
#[derive(Clone, Copy)]
enum Told {
    /// By `kubectl apply`.
    AtOnce,
    /// By an event with this reason about an object of this kind.
    ByEvent(&'static str, &'static str),
}

/// The example by kind and name; what stands there, what a user wrote instead, and how that is told.
type Mistake = (&'static str, &'static str, &'static str, Told);

const MISTAKES: &[Mistake] = &[
    ("Namespace shop", "injection: enabled", "injection: enable", ByEvent("InvalidLabel", "Pod")),
    (
        "Namespace shop",
        "injection: enabled",
        "injection: enabled\n    kuma.io/mesh: Shop",
        ByEvent("FailedCreate", "ReplicaSet"),
    ),
    (
        "MeshTrafficPermission cart-callers",
        "spiffeID:\n          type: Exact",
        "spiffeId:\n          type: Exact",
        AtOnce,
    ),
    (
        "MeshTrafficPermission cart-callers",
        "value: spiffe://default.k8s-1",
        "value: default.k8s-1",
        AtOnce,
    ),
    ("MeshTrafficPermission cart-callers", "type: Exact", "type: Exactly", AtOnce),
    (
        "MeshTrafficPermission cart-callers",
        "kuma.io/mesh: default",
        "kuma.io/mesh: defualt",
        AtOnce,
    ),
    ("ContainerPatch more-memory", "op: replace", "op: replce", AtOnce),
    ("ContainerPatch more-memory", "value: '\"1Gi\"'", "value: 1Gi", AtOnce),
    ("ContainerPatch more-memory", "namespace: kuma-system", "namespace: shop", AtOnce),
    (
        "Deployment cart",
        "concurrency: \"2\"",
        "concurrency: \"two\"",
        ByEvent("FailedCreate", "ReplicaSet"),
    ),
    (
        "Deployment cart",
        "ports: \"5432\"",
        "ports: postgres",
        ByEvent("FailedCreate", "ReplicaSet"),
    ),
    ("Service cart", "port: 8080,", "port: 8080, protocol: UDP,", ByEvent("NoPort", "Service")),
    ("MeshTimeout cart-is-quick", "requestTimeout: 2s", "requestTimeout: 2 seconds", AtOnce),
    ("MeshTimeout cart-is-quick", "requestTimeout", "requestTimeuot", AtOnce),
    ("MeshTimeout cart-is-quick", "kind: MeshService", "kind: Service", AtOnce),
    (
        "MeshTimeout zone-wide",
        "  - targetRef:\n      kind: Mesh\n    default",
        "  - default",
        AtOnce,
    ),
    (
        "MeshTimeout zone-wide",
        "kuma.io/origin: zone",
        "kuma.io/origin: zone\n    kuma.io/zone: k8s-2",
        AtOnce,
    ),
    ("MeshTimeout zone-wide", "kuma.io/origin: zone", "kuma.io/origin: global", AtOnce),
];

struct Example {
    name: String,
    text: String,
}

fn examples() -> Result<Vec<Example>> {
    let parts = PAGE.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let example = |text: &str| {
        let read: Value = serde_saphyr::from_str(text)?;
        let field = |pointer: &str| read.pointer(pointer).and_then(Value::as_str).context("a name");
        let name = format!("{} {}", field("/kind")?, field("/metadata/name")?);
        Ok(Example { name, text: text.to_owned() })
    };
    parts.map(example).collect()
}

/// What `kubectl` says if it does not `apply`, or `delete`, a manifest.
fn kubectl(server: &ApiServer, verb: &str, text: &str) -> Result<Option<String>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("example.yaml");
    fs::write(&path, text)?;
    let path = path.display().to_string();
    let said = server.kubectl(&[verb, "-f", &path]).err().map(|error| error.to_string());
    let prefix = format!("kubectl {verb} -f {path}: ");
    Ok(said.map(|said| said.replace(&prefix, "").replace(&path, "example.yaml")))
}

/// What an event with a reason about an object of a kind says that was not said before.
async fn event(client: &Client, (reason, kind): (&str, &str), said: &[String]) -> Result<String> {
    let events = Api::<Event>::all(client.clone());
    let events = watcher(events, watcher::Config::default()).default_backoff().applied_objects();
    let mut events = events.boxed();
    let found = async {
        while let Some(event) = events.next().await {
            let event = event?;
            let regarding = event.regarding.and_then(|it| it.kind);
            let is = event.reason.as_deref() == Some(reason) && regarding.as_deref() == Some(kind);
            let (sort, note) = (event.type_.unwrap_or_default(), event.note.unwrap_or_default());
            let told = format!("{sort} event {reason} of the {kind}: {note}");
            if is && !said.contains(&told) {
                return Ok(told);
            }
        }
        bail!("no more events")
    };
    let found = timeout(PATIENCE, found).await;
    found.with_context(|| format!("no event {reason} of a {kind}"))?
}

pub(crate) fn examples_are_taken_and_mistakes_are_told() -> Result<()> {
    let options = Options { controllers: true, ..Options::default() };
    world::run(options, async |server: ApiServer| {
        let client = world::client(&server, &Asked::default()).await?;
        let answering = answering(&client, &Clock::system()).await?;
        world::account(&client, "shop").await?;
        server.kubectl(&["create", "serviceaccount", "cart", "--namespace=shop"])?;
        asked(&client).await?;
        let examples = examples()?;
        for Example { name, text } in &examples {
            let said = kubectl(&server, "apply", text)?;
            ensure!(said.is_none(), "{name}: {said:?}");
            let is_wrong_once = MISTAKES.iter().any(|(of, ..)| of == name);
            ensure!(is_wrong_once, "{name}: no user ever makes a mistake there");
            // A user makes a mistake in what is new; what pods come from stays.
            if text.contains("kuma.io/v1alpha1") {
                ensure!(kubectl(&server, "delete", text)?.is_none(), "{name} stays");
            }
        }
        let (mut told, mut page) = (Vec::new(), String::new());
        for (of, right, wrong, how) in MISTAKES {
            let example = examples.iter().find(|it| it.name == *of).with_context(|| *of)?;
            let text = example.text.replacen(right, wrong, 1);
            ensure!(text != example.text, "{of}: {right:?} does not stand there");
            let said = kubectl(&server, "apply", &text)?;
            let said = match (how, said) {
                (AtOnce, Some(said)) => said,
                (AtOnce, None) => bail!("{of}: {wrong:?} was taken"),
                (ByEvent(..), Some(said)) => bail!("{of}: {wrong:?} is told at once: {said}"),
                (ByEvent(reason, kind), None) => {
                    // What a namespace says counts for those that come.
                    let all = ["delete", "pods", "--all", "--namespace=shop", "--wait=false"];
                    server.kubectl(&all)?;
                    let said = event(&client, (reason, kind), &told).await;
                    let said = said.with_context(|| format!("{of}: {wrong:?}"))?;
                    told.push(said.clone());
                    ensure!(
                        kubectl(&server, "apply", &example.text)?.is_none(),
                        "{of}: it is not repaired"
                    );
                    said
                }
            };
            page += &format!("{of}: {right:?} as {wrong:?}\n{}\n\n", said.trim());
        }
        drop(answering);
        compare(&page)
    })
}

fn compare(page: &str) -> Result<()> {
    let file: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "tests/cluster/testdata/mistakes.txt"].iter().collect();
    if bless() {
        fs::write(&file, page)?;
    }
    let golden = fs::read_to_string(&file).unwrap_or_default();
    ensure!(page == golden, "{} is not what is told:\n{page}", file.display());
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a test, and `make` says so by a variable")]
fn bless() -> bool {
    std::env::var("BLESS").is_ok()
}
