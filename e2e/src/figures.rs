//! What benchmarks print: one JSON line a figure.

use serde_json::{Map, Value, json};
use std::time::Duration;

/// What half of `figures`, all but a hundredth, and all are not above, in milliseconds.
#[must_use]
pub fn percentiles(mut figures: Vec<Duration>) -> Value {
    figures.sort();
    let at = |part: usize| {
        let rank = (figures.len() * part).div_ceil(100).max(1);
        let figure = figures.get(rank - 1).copied().unwrap_or_default();
        (figure.as_secs_f64() * 1e5).round() / 100.0
    };
    json!({ "n": figures.len(), "p50_ms": at(50), "p99_ms": at(99), "max_ms": at(100) })
}

/// Prints the figures of `name`.
#[expect(clippy::print_stdout, reason = "figures are what a bench is for")]
pub fn report(bench: &str, name: &str, figures: Value) {
    let mut line =
        Map::from_iter([("bench".to_owned(), json!(bench)), ("name".into(), json!(name))]);
    if let Value::Object(figures) = figures {
        line.extend(figures);
    }
    println!("{}", Value::Object(line));
}
