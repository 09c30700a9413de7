//! End-to-end scenarios: real programs, real Envoys.

mod alone;
mod away;
mod calls;
mod certificates;
mod changes;
mod command_line;
mod direct;
mod envoy_refuses;
mod fresh;
mod hostile;
mod identities;
mod ingresses;
mod inspect;
mod interception;
mod killed;
mod killed_proxies;
mod names;
mod outages;
mod permissions;
mod proxies;
mod redirected;
mod refused;
mod replicas;
mod restore;
mod secrets;
mod spire;
mod status;
mod workloads;
mod zones;

use anyhow::{Result, bail};
use apiserver::apart;
use e2e::{lab::envoy, namespace, peer::Told, process::programs};
use libtest_mimic::{Arguments, Failed, Trial};
use std::{
    process::{Command, ExitCode},
    time::Duration,
};

fn main() -> ExitCode {
    // Set already when several clients are made.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let mut arguments = Arguments::from_args();
    // They share the machine's ports.
    arguments.test_threads = Some(1);
    let mut trials = vec![trial("the_demo_does_what_it_shows", the_demo_does_what_it_shows)];
    trials.extend(alone::ALL.iter().map(|&(name, run)| trial(name, run)));
    trials.extend(command_line::ALL.iter().map(|&(name, run)| trial(name, run)));
    trials.extend(proxies::ALL.iter().map(|&(name, run)| trial(name, run)));
    trials.extend(status::ALL.iter().map(|&(name, run)| trial(name, run)));
    trials.extend(away::ALL.iter().map(|&(name, run)| trial(name, run)));
    trials.extend(restore::ALL.iter().map(|&(name, run)| trial(name, run)));
    trials.extend(certificates::ALL.iter().map(|&(name, run)| trial(name, run)));
    trials.extend(killed::ALL.iter().map(|&(name, run)| trial(name, run)));
    let soak = killed::SOAK.iter().map(|&(name, run)| trial(name, run));
    trials.extend(soak.map(|trial| trial.with_kind("make soak").with_ignored_flag(true)));
    let missing = namespace::missing();
    let in_namespaces = [
        calls::ALL,
        permissions::ALL,
        replicas::ALL,
        changes::ALL,
        ingresses::ALL,
        inspect::ALL,
        interception::ALL,
        redirected::ALL,
        direct::ALL,
        hostile::ALL,
        killed_proxies::ALL,
        outages::ALL,
        identities::ALL,
        envoy_refuses::ALL,
        fresh::ALL,
        refused::ALL,
        secrets::ALL,
        names::ALL,
        workloads::ALL,
        zones::ALL,
    ]
    .concat();
    trials.extend(
        in_namespaces.iter().map(|&(name, run)| apart(trial(name, run), missing.as_deref())),
    );
    let spire = spire::ALL.iter().map(|&(name, run)| trial(name, run));
    trials.extend(spire.map(|it| it.with_kind("make e2e NAME=spire").with_ignored_flag(true)));
    let missing = missing.or_else(workloads::missing);
    trials.extend(
        workloads::POSTGRESQL
            .iter()
            .map(|&(name, run)| apart(trial(name, run), missing.as_deref())),
    );
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A scenario and its name, which is a sentence.
type Scenario = (&'static str, fn() -> Result<()>);

fn trial(name: &str, run: fn() -> Result<()>) -> Trial {
    Trial::test(name, move || run().map_err(|error| Failed::from(format!("{error:#}"))))
}

/// Prints what was measured.
#[expect(clippy::print_stdout, reason = "what was measured is part of the report")]
pub(crate) fn note(what: &str) {
    println!("     {what}");
}

/// How long each of some took, in words.
pub(crate) fn spread(mut took: Vec<Duration>) -> String {
    took.sort_unstable();
    let at = |percent: usize| took.get((took.len().saturating_sub(1)) * percent / 100);
    let ms = |it: Option<&Duration>| it.map_or(0.0, Duration::as_secs_f64) * 1000.0;
    format!("n={} p50={:.1} max={:.1} ms", took.len(), ms(at(50)), ms(took.last()))
}

/// What came of a load, in words.
pub(crate) fn summary(told: &Told) -> String {
    let Told { good, bad, by, .. } = told;
    let (slowest, gap) = (told.slowest / 1000, told.gap / 1000);
    let first = if *bad > 0 { format!("; one: {}", told.body) } else { String::new() };
    format!(
        "{good} answered {by:?}, {bad} failed, slowest {slowest} ms, longest gap {gap} ms{first}"
    )
}

/// Two zones, real Envoys: the cross-zone call, permissions by change on an open connection, global
/// away and back. The demo fails where a step does not do what it shows.
#[expect(clippy::print_stdout, reason = "the steps are the report")]
fn the_demo_does_what_it_shows() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let demo = Command::new(programs()?.join("atoll"))
        .args(["demo", "--check", "--envoy-path"])
        .arg(envoy()?)
        .arg("--dir")
        .arg(folder.path().join("demo"))
        .output()?;
    let said = String::from_utf8_lossy(&demo.stdout);
    println!("{said}");
    if !demo.status.success() {
        bail!("{said}\n{}", String::from_utf8_lossy(&demo.stderr));
    }
    Ok(())
}
