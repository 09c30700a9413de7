//! Measures and prints: one JSON line a figure.
#![allow(dead_code, reason = "each bench uses a part")]

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Map, Value, json};
use std::{fs, hint::black_box, time::Duration};

/// How long this thread was on a processor. Wall time would count the neighbours' work.
pub(crate) fn on_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::from_secs(seconds)
        + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or_default())
}

/// Memory of this process that is really there.
pub(crate) fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kilobytes.unwrap_or_default() * 1024
}

/// Processor time of one of `times` repetitions in `rounds` runs, in microseconds, sorted.
pub(crate) fn cpu_micros<T>(
    rounds: usize,
    times: u32,
    mut run: impl FnMut(usize) -> T,
) -> Vec<f64> {
    let mut figures: Vec<f64> = (0..rounds)
        .map(|round| {
            let start = on_cpu();
            black_box(run(round));
            (on_cpu() - start).as_secs_f64() * 1e6 / f64::from(times)
        })
        .collect();
    figures.sort_by(f64::total_cmp);
    figures
}

/// The middle one of sorted figures.
pub(crate) fn middle(figures: &[f64]) -> Value {
    figures.get(figures.len() / 2).map(|figure| round(*figure)).into()
}

/// Three digits say enough.
fn round(figure: f64) -> f64 {
    if figure >= 100.0 { figure.round() } else { (figure * 1000.0).round() / 1000.0 }
}

/// Prints the figures of `name`.
#[expect(clippy::print_stdout, reason = "figures are what a bench is for")]
pub(crate) fn report(bench: &str, name: &str, figures: Value) {
    let mut line =
        Map::from_iter([("bench".to_owned(), json!(bench)), ("name".into(), json!(name))]);
    if let Value::Object(figures) = figures {
        line.extend(figures);
    }
    println!("{}", Value::Object(line));
}
