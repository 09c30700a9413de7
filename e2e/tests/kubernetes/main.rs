//! Scenarios in real clusters, with real pods.

mod certificates;
mod clusters;
mod definitions;
mod leaders;
mod long;
mod policies;
mod rights;
mod rival;
mod spire;
mod twins;
mod world;
mod zones;

use anyhow::{Context, Result, anyhow};
use apiserver::{Programs, apart};
use e2e::{cluster::Images, namespace, wait};
use libtest_mimic::{Arguments, Failed, Trial};
use std::{
    process::ExitCode,
    sync::{Arc, OnceLock},
};

fn main() -> ExitCode {
    // Set already when several clients are made.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let mut words = std::env::args().skip(1);
    if let (Some(clusters::HOLD), Some(images)) = (words.next().as_deref(), words.next()) {
        return if clusters::hold(&images).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let mut arguments = Arguments::from_args();
    // They share the processors of the machine.
    arguments.test_threads = Some(1);
    let missing = Programs::find().map_err(|error| format!("no Kubernetes: {error:#}")).err();
    let missing = missing.or_else(namespace::missing);
    let images = Arc::default();
    let of = |name: String, run| apart(trial(&images, name, run), missing.as_deref());
    let all = [clusters::ALL, zones::ALL].concat();
    let mut trials: Vec<Trial> =
        all.iter().map(|(name, run)| of(format!("kubernetes_{name}"), *run)).collect();
    // It needs no node, and so nothing that others need.
    trials.push(apiserver::trial(
        "kubernetes_a_control_plane_may_do_what_it_does_and_nothing_else",
        rights::a_control_plane_may_do_what_it_does_and_nothing_else,
    ));
    let long =
        [long::ALL, leaders::ALL, certificates::ALL, definitions::ALL, twins::ALL, spire::ALL]
            .concat();
    let long = long.iter().map(|(name, run)| of(format!("kubernetes-long_{name}"), *run));
    trials.extend(long.map(|it| it.with_kind("make soak").with_ignored_flag(true)));
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A scenario and its name, which is a sentence.
type Scenario = (&'static str, fn(&Images) -> Result<()>);

/// Images are built by the first scenario that runs.
fn trial(
    images: &Arc<OnceLock<Result<Images>>>,
    name: String,
    run: fn(&Images) -> Result<()>,
) -> Trial {
    let images = images.clone();
    Trial::test(name, move || {
        let images = images.get_or_init(|| {
            let (images, took) = wait::timed(Images::build);
            note(&format!("images after {took:?}"));
            images
        });
        let images = images.as_ref();
        let images = images.map_err(|error| anyhow!("{error:#}")).context("images");
        images.and_then(run).map_err(|error| Failed::from(format!("{error:#}")))
    })
}

/// Prints what was measured.
#[expect(clippy::print_stdout, reason = "what was measured is part of the report")]
pub(crate) fn note(what: &str) {
    println!("     {what}");
}
