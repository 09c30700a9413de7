//! Feeds what anybody may send, and what comes of it when it is changed at random, to the code that
//! reads it.
//!
//! An input that is answered as none before it was is kept and changed further, so a run gets
//! deeper than a random one. The same seed gives the same run. A finding is a panic, or a rule of
//! the target that does not hold; its input is kept in a file.

mod mutate;
mod run;
mod target;
mod wire;

use self::run::{Found, Plan, Tally};
use anyhow::{Context as _, Result, bail};
use clap::Parser;
use parking_lot::Mutex;
use std::{fs, path::PathBuf, process::ExitCode, thread};

/// Changed inputs for everything that reads what others send.
#[derive(Parser)]
struct Arguments {
    /// Only targets whose name contains this.
    #[arg(long, default_value = "")]
    target: String,
    /// How many inputs for each target.
    #[arg(long, default_value_t = 1_000_000)]
    runs: u64,
    /// What everything is drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// So many targets at once; as many as there are processors if it is not said.
    #[arg(long)]
    jobs: Option<usize>,
    /// Where inputs of findings are kept.
    #[arg(long, default_value = "target/fuzz")]
    findings: PathBuf,
    /// Runs one target with this input and no other.
    #[arg(long)]
    input: Option<PathBuf>,
}

fn main() -> ExitCode {
    match fuzz(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether nothing was found.
fn fuzz(arguments: &Arguments) -> Result<bool> {
    let chosen = target::ALL.iter().filter(|(name, _)| name.contains(&arguments.target));
    let mut chosen: Vec<_> = chosen.rev().copied().collect();
    if let Some(path) = &arguments.input {
        let [(name, open)] = chosen[..] else { bail!("--input needs one target") };
        let input = fs::read(path).with_context(|| path.display().to_string())?;
        eprintln!("{name}: {}", open()?.run(&input)?);
        return Ok(true);
    }
    if chosen.is_empty() {
        bail!("no target is called {:?}", arguments.target);
    }
    let jobs =
        arguments.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, Into::into));
    let (waiting, clean) = (Mutex::new(&mut chosen), Mutex::new(true));
    let next = || waiting.lock().pop();
    let work = || {
        while let Some((name, open)) = next() {
            let plan = Plan { runs: arguments.runs, seed: arguments.seed };
            let told = match plan.run(open) {
                Ok(Tally { runs, answers, kept, took }) => Ok(format!(
                    "{runs} runs, {answers} different answers, {kept} inputs kept, {took:.1} s"
                )),
                Err(found) => Err(keep(arguments, name, &found)),
            };
            match told {
                Ok(tally) => eprintln!("{name}: {tally}"),
                Err(finding) => {
                    eprintln!("{name} FAILED: {finding}");
                    *clean.lock() = false;
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(work);
        }
    });
    Ok(clean.into_inner())
}

/// Writes the input of a finding to a file, and tells how to run it again.
fn keep(arguments: &Arguments, name: &str, found: &Found) -> String {
    let Found { run, why, input } = found;
    let path = arguments.findings.join(format!("{name}-{run}"));
    let written = fs::create_dir_all(&arguments.findings).and_then(|()| fs::write(&path, input));
    let again = match written {
        Ok(()) => format!("--target {name} --input {}", path.display()),
        Err(error) => format!("its input cannot be kept: {error}"),
    };
    format!("run {run}: {why}; {again}")
}
