//! Runs many histories, and names the seeds of those that went wrong.

use clap::Parser;
use parking_lot::Mutex;
use simulation::{federation, power};
use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

/// Simulated histories with faults.
#[derive(Parser)]
struct Arguments {
    /// How many histories of each sort.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Only this history of a federation, with all that happens in it.
    #[arg(long)]
    seed: Option<u64>,
    /// Only histories of federations, and no more after the first that goes wrong.
    #[arg(long)]
    hunt: bool,
    /// So many at once; as many as there are processors if it is not said.
    #[arg(long)]
    jobs: Option<usize>,
}

/// Runs the history of a seed and tells what it was like.
type Run = fn(u64) -> anyhow::Result<String>;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(seed) = arguments.seed {
        return show(seed);
    }
    let federations: (&str, Run) =
        ("federations", |seed| federation::run(seed).map(|summary| summary.to_string()));
    let stores: [(&str, Run); 2] = [
        ("power failures of a store", |seed| power::run(seed).map(|()| String::new())),
        ("full disks", |seed| power::fill(seed).map(|()| String::new())),
    ];
    let sorts = if arguments.hunt { Vec::new() } else { stores.to_vec() };
    let mut outcome = ExitCode::SUCCESS;
    for (sort, run) in sorts.into_iter().chain([federations]) {
        if !all(&arguments, sort, run) {
            outcome = ExitCode::FAILURE;
        }
    }
    outcome
}

/// Whether all histories of a sort went well.
fn all(arguments: &Arguments, sort: &str, run: Run) -> bool {
    let Arguments { from, seeds, jobs, hunt, .. } = *arguments;
    let jobs = jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, Into::into));
    let (next, end, wrong) = (AtomicU64::new(from), from.saturating_add(seeds), AtomicU64::new(0));
    let began = tokio::time::Instant::now();
    let told = Mutex::new(InOrder { next: from, waiting: BTreeMap::new() });
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end || (hunt && wrong.load(Ordering::Relaxed) > 0) {
                return;
            }
            let line = match run(seed) {
                Ok(summary) if summary.is_empty() => summary,
                Ok(summary) => format!("seed {seed}: {summary}"),
                Err(error) => {
                    wrong.fetch_add(1, Ordering::Relaxed);
                    format!("{sort}, seed {seed} FAILED: {error:#}")
                }
            };
            told.lock().tell(seed, line);
        }
    };
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(work);
        }
    });
    let (wrong, took) = (wrong.into_inner(), began.elapsed().as_secs_f64());
    eprintln!("{sort}: {seeds} histories, {wrong} went wrong, {took:.1} s");
    wrong == 0
}

/// Tells what came of histories in the order of their seeds, whichever ends first.
struct InOrder {
    next: u64,
    waiting: BTreeMap<u64, String>,
}

impl InOrder {
    fn tell(&mut self, seed: u64, line: String) {
        self.waiting.insert(seed, line);
        while let Some(line) = self.waiting.remove(&self.next) {
            self.next += 1;
            if !line.is_empty() {
                eprintln!("{line}");
            }
        }
    }
}

/// One history with its trace.
fn show(seed: u64) -> ExitCode {
    match federation::look(seed) {
        Ok(summary) => {
            for line in &summary.trace {
                eprintln!("{line}");
            }
            eprintln!("seed {seed}: {summary}");
            for wrong in &summary.wrong {
                eprintln!("WRONG: {wrong}");
            }
            if summary.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("seed {seed}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
