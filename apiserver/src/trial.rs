//! Tests that need what a machine may lack.

use crate::programs::Programs;
use anyhow::Result;
use libtest_mimic::{Failed, Trial};

/// A test that needs the programs of an API server.
pub fn trial(name: &str, run: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    let trial = Trial::test(name, move || run().map_err(|error| format!("{error:#}").into()));
    let missing = Programs::find().err().map(|error| format!("no Kubernetes: {error:#}"));
    apart(trial, missing.as_deref())
}

/// A test that cannot run if something is missing: then it is ignored, with the reason beside its
/// name. A run that must be complete fails instead.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "CI is how runners say that a run must be complete")]
pub fn apart(trial: Trial, missing: Option<&str>) -> Trial {
    let Some(reason) = missing else { return trial };
    if std::env::var("CI").is_ok_and(|ci| ci == "true") {
        let reason = reason.to_owned();
        let name = trial.name().to_owned();
        return Trial::test(name, move || Err(Failed::from(reason)));
    }
    trial.with_kind(reason).with_ignored_flag(true)
}
