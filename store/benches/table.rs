//! What a table costs, by how many rows it has.

mod report;

use report::{cpu_micros, middle, report};
use resource::{MeshName, ResourceKey};
use serde_json::json;
use std::sync::Arc;
use store::table::{Keyed, Table};

#[derive(Debug)]
struct Row(ResourceKey);

impl Keyed for Row {
    type Key = ResourceKey;

    fn key(&self) -> &ResourceKey {
        &self.0
    }
}

/// The rows of a kind, in an order that is not that of their names.
fn rows(count: u32) -> Vec<Arc<Row>> {
    let mesh = MeshName::new("default").ok();
    // 7919 is prime to each count, so every name comes once.
    let names = (0..u64::from(count)).map(|i| i * 7919 % u64::from(count));
    let key = |i| ResourceKey { mesh: mesh.clone(), name: format!("mesh-timeout-{i:07}").into() };
    names.map(|i| Arc::new(Row(key(i)))).collect()
}

/// Rows touched in a round.
const STEP: usize = 2000;
const TIMES: u32 = 2000;

fn main() {
    for count in [10_000, 100_000, 1_000_000] {
        let rows = rows(count);
        let say = |name: &str, figures: &[f64]| {
            let figures = json!({ "n": figures.len(), "rows": count, "us": middle(figures) });
            report("table", name, figures);
        };
        let mut table = Table::<Row>::default();
        say(
            "fill",
            &cpu_micros(1, count, |_| rows.iter().for_each(|r| drop(table.insert(r.clone())))),
        );
        let some = |round: usize| rows.iter().cycle().skip(round * STEP).take(STEP);
        let replace = |round| some(round).for_each(|row| drop(table.insert(row.clone())));
        say("replace", &cpu_micros(9, TIMES, replace));
        let under_snapshot = |round| {
            for row in some(round) {
                let snapshot = table.clone();
                table.insert(row.clone());
                drop(snapshot);
            }
        };
        say("replace-under-a-snapshot", &cpu_micros(9, TIMES, under_snapshot));
        let find = |round| some(round).filter(|row| table.get(&row.0).is_some()).count();
        say("find", &cpu_micros(9, TIMES, find));
        let iterate = |_| table.iter().map(|row| row.0.name.len()).sum::<usize>();
        say("iterate", &cpu_micros(9, count, iterate));
    }
}
