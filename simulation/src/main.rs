//! Runs many histories, and names the seeds of those that went wrong.

use clap::Parser;
use std::process::ExitCode;

/// Simulated histories with faults.
#[derive(Parser)]
struct Arguments {
    /// How many histories of each sort.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
}

/// Runs the history of a seed.
type Run = fn(u64) -> anyhow::Result<()>;

fn main() -> ExitCode {
    let Arguments { seeds, from } = Arguments::parse();
    let sorts: [(&str, Run); 3] = [
        ("power failures of a store", simulation::power::run),
        ("full disks", simulation::power::fill),
        ("crashes of global", |seed| simulation::run(seed).map(drop)),
    ];
    let mut outcome = ExitCode::SUCCESS;
    for (sort, run) in sorts {
        let mut wrong = 0;
        for seed in from..from.saturating_add(seeds) {
            if let Err(error) = run(seed) {
                eprintln!("{sort}, seed {seed}: {error:#}");
                wrong += 1;
                outcome = ExitCode::FAILURE;
            }
        }
        eprintln!("{sort}: {seeds} histories, {wrong} went wrong");
    }
    outcome
}
