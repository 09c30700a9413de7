//! What it costs global to know a million dataplanes.

mod report;

use report::{cpu_micros, middle, report, resident};
use resource::{Audience, Labels, MeshName, Resource, ResourceKey, ZoneName};
use serde_json::json;
use std::sync::Arc;
use store::view::{Edit, KindId, Loaded, Rows, view};

const COUNT: usize = 1_000_000;
const CHANGES: u32 = 1_000;
const ROUNDS: usize = 5;

/// A dataplane as a Kubernetes zone reports it: 9 labels, about 440 bytes of spec.
fn dataplane(mesh: &Option<MeshName>, at: usize, content: usize) -> Arc<Resource> {
    let (zone, service) = (format!("zone-{}", at % 1_000), format!("service-{}", at % 20_000));
    let name = format!("{service}-7f9c4d5b6-{at:07x}-cb6xdxxdc26z9czd");
    let labels = [
        ("app", &*service),
        ("kuma.io/display-name", &name),
        ("kuma.io/env", "kubernetes"),
        ("kuma.io/mesh", "default"),
        ("kuma.io/origin", "zone"),
        ("kuma.io/workload", &service),
        ("kuma.io/zone", &zone),
        ("k8s.kuma.io/namespace", "shop"),
        ("k8s.kuma.io/service-account", &service),
    ];
    let (a, b, c) = (at >> 16 & 255, at >> 8 & 255, at & 255);
    let padding = "-".repeat(300);
    let spec = format!(
        r#"{{"networking":{{"address":"10.{a}.{b}.{c}","inbound":[{{"name":"main","port":8080}}],"note":"{service} {zone} {padding}"}},"generation":{content}}}"#
    );
    let audience = Audience { owner: ZoneName::new(&zone).ok(), ..Audience::default() };
    let key = ResourceKey { mesh: mesh.clone(), name: name.as_str().into() };
    let labels = Labels::from_iter(labels);
    Arc::new(Resource::new(key, labels, spec.into(), "".into(), audience))
}

/// How long it takes to count the rows whose names have a part: none, few, and all.
fn search(rows: &Rows) {
    for part in ["absent", "service-77-", "service"] {
        let each = |count: &dyn Fn() -> usize| middle(&cpu_micros(ROUNDS, 1, |_| count()));
        let walked = each(&|| rows.iter().filter(|row| row.head.key.name.contains(part)).count());
        let first = cpu_micros(1, 1, |_| rows.named(None, None, part).count());
        let found = each(&|| rows.named(None, None, part).count());
        let figures =
            json!({ "part": part, "us-walked": walked, "us-first": middle(&first), "us": found });
        report("dataplanes", "search", figures);
    }
}

fn main() {
    let (writer, reader) = view([Loaded::default()], 4096);
    let mesh = MeshName::new("default").ok();
    let before = resident();
    let megabytes = || (resident() - before) >> 20;
    let times = u32::try_from(COUNT).unwrap_or(1);
    let figures = cpu_micros(1, times, |_| {
        for start in (0..COUNT).step_by(1_000) {
            let batch = (start..start + 1_000).map(|at| dataplane(&mesh, at, 0));
            writer.apply(batch.map(|row| (KindId::FIRST, Edit::Put(row))));
        }
    });
    report("dataplanes", "put", json!({ "n": COUNT, "us": middle(&figures) }));
    report("dataplanes", "held", json!({ "n": COUNT, "mb": megabytes() }));

    search(&reader.rows(KindId::FIRST).1);
    report("dataplanes", "held-with-names", json!({ "n": COUNT, "mb": megabytes() }));

    let held = reader.snapshot();
    let figures = cpu_micros(ROUNDS, CHANGES, |round| {
        for at in 0..CHANGES as usize {
            let row = dataplane(&mesh, at * 997, round + 1);
            writer.apply([(KindId::FIRST, Edit::Put(row))]);
        }
    });
    let n = ROUNDS * CHANGES as usize;
    report("dataplanes", "change-under-a-snapshot", json!({ "n": n, "us": middle(&figures) }));
    drop(held);
    report("dataplanes", "held-after-changes", json!({ "n": COUNT, "mb": megabytes() }));
}
