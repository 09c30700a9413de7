//! The frame of every program: flags, configuration, logs, signals, exit code.

use crate::{
    config::{self, Config, Problem},
    shutdown::{Signals, run_until},
};
use anyhow::Context as _;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use std::{ffi::OsString, future::Future, io::Write as _, path::PathBuf, process::ExitCode};
use tokio_util::sync::CancellationToken;

/// A whole `main`: reads flags, file and environment, logs, and runs `program` until it ends or a
/// signal stops it.
///
/// The exit code is 0 after an orderly stop, 1 after an error, 2 after wrong flags.
pub fn run<C, F>(name: &'static str, program: impl FnOnce(C, CancellationToken) -> F) -> ExitCode
where
    C: Config,
    F: Future<Output = anyhow::Result<()>>,
{
    let flags = match flags(name).try_get_matches() {
        Ok(flags) => flags,
        Err(error) => {
            // Help is an error without a failure. A closed terminal is none of our business.
            drop(error.print());
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let (config, problems): (C, _) = match read(&flags, std::env::vars_os()) {
        Ok(read) => read,
        Err(error) => {
            say(&format!("{error:#}\n"));
            return ExitCode::FAILURE;
        }
    };
    let asked = Asked::of(&flags);
    let Step { settings, complaint, then } = asked.step(&config, &problems);
    say(&complaint);
    if std::io::stdout().write_all(settings.as_bytes()).is_err() {
        return ExitCode::FAILURE;
    }
    match then {
        Then::Run => {}
        Then::Exit { failed: true } => return ExitCode::FAILURE,
        Then::Exit { failed: false } => return ExitCode::SUCCESS,
    }
    match start(name, config, program) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn flags(name: &'static str) -> Command {
    let switch = |name, help| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    Command::new(name)
        .version(env!("CARGO_PKG_VERSION"))
        .after_help("Every setting can also be given as a variable: kds.tls.certFile as ATOLL_KDS_TLS_CERT_FILE.")
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Reads settings from this YAML file"),
        )
        .arg(switch("validate", "Checks the settings and exits"))
        .arg(switch("print", "Prints the settings in effect, without secrets, and exits, also when they are incomplete"))
}

/// What is wanted of the settings.
#[derive(Clone, Copy, Debug)]
struct Asked {
    print: bool,
    validate: bool,
}

/// What is done before the program runs, or instead.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    /// For standard output.
    settings: String,
    /// For standard error.
    complaint: String,
    then: Then,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Run,
    Exit { failed: bool },
}

impl Asked {
    fn of(flags: &ArgMatches) -> Self {
        Self { print: flags.get_flag("print"), validate: flags.get_flag("validate") }
    }

    /// Settings are printed whether they are complete or not: they may be what somebody begins with.
    /// Only the check, and a program that is to run, fail because of them.
    fn step<C: Config>(self, config: &C, problems: &[Problem]) -> Step {
        Step {
            settings: if self.print { config::print(config) } else { String::new() },
            complaint: complaint(problems),
            then: match (self.print, self.validate) {
                (false, false) if problems.is_empty() => Then::Run,
                (true, false) => Then::Exit { failed: false },
                (false, false) | (_, true) => Then::Exit { failed: !problems.is_empty() },
            },
        }
    }
}

fn read<C: Config>(
    flags: &ArgMatches,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> anyhow::Result<(C, Vec<Problem>)> {
    let file = match flags.get_one::<PathBuf>("config") {
        Some(path) => Some(
            std::fs::read_to_string(path)
                .with_context(|| format!("--config: cannot read {}", path.display()))?,
        ),
        None => None,
    };
    // A variable of ours that is not text is refused by name or value, like any other mistake.
    let env = env.into_iter().map(|(name, value)| {
        (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
    });
    Ok(config::read(file.as_deref(), env)?)
}

/// There are no logs yet: a mistake a line.
fn complaint(problems: &[Problem]) -> String {
    if problems.is_empty() {
        return String::new();
    }
    let lines = problems.iter().map(|problem| format!("  {problem}\n"));
    std::iter::once("invalid configuration:\n".to_owned()).chain(lines).collect()
}

fn say(text: &str) {
    // Nobody is left to tell if this fails.
    drop(std::io::stderr().write_all(text.as_bytes()));
}

fn start<C, F>(
    name: &'static str,
    config: C,
    program: impl FnOnce(C, CancellationToken) -> F,
) -> anyhow::Result<()>
where
    C: Config,
    F: Future<Output = anyhow::Result<()>>,
{
    config.log().install().context("log")?;
    let effective = serde_json::to_string(&config).context("configuration")?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), config = %effective, "{name} starting");
    let runtime = tokio::runtime::Runtime::new().context("cannot start threads")?;
    let ended = runtime.block_on(async {
        let mut signals = Signals::install().context("cannot watch signals")?;
        let shutdown = CancellationToken::new();
        let within = config.stop_within();
        let program = program(config, shutdown.clone());
        run_until(program, async || signals.next().await, shutdown, within).await
    });
    // What still runs after the deadline is not waited for.
    runtime.shutdown_background();
    ended
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Problems;
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Default, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Zone {
        zone: String,
    }

    impl Config for Zone {
        fn check(&self, problems: &mut Problems) {
            if self.zone.is_empty() {
                problems.add("zone", "must be set");
            }
        }
    }

    fn zone(arguments: &[&str], env: &[(&str, &str)]) -> Result<String, String> {
        let flags = flags("zone-cp").try_get_matches_from(arguments).unwrap();
        let env = env.iter().map(|(name, value)| (name.into(), value.into()));
        match read::<Zone>(&flags, env) {
            Ok((config, problems)) if problems.is_empty() => Ok(config.zone),
            Ok((_, problems)) => Err(complaint(&problems)),
            Err(error) => Err(format!("{error:#}")),
        }
    }

    /// What happens without a file.
    fn step(arguments: &[&str]) -> Step {
        let flags = flags("zone-cp").try_get_matches_from(arguments).unwrap();
        let (config, problems) = read::<Zone>(&flags, []).unwrap();
        Asked::of(&flags).step(&config, &problems)
    }

    #[test]
    fn settings_come_from_the_file_and_the_environment() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/zone.yaml");
        let arguments = ["zone-cp", "--config", file];
        assert_eq!(zone(&arguments, &[]), Ok("east".into()));
        assert_eq!(zone(&arguments, &[("ATOLL_ZONE", "west")]), Ok("west".into()));
        let incomplete = "invalid configuration:\n  zone: must be set\n";
        assert_eq!(zone(&["zone-cp"], &[]), Err(incomplete.into()));
    }

    #[test]
    fn incomplete_settings_are_printed_but_not_valid_and_not_run() {
        let complaint = || "invalid configuration:\n  zone: must be set\n".to_owned();
        let failed = Then::Exit { failed: true };
        let printed = || config::print(&Zone::default());
        assert_eq!(
            step(&["zone-cp", "--print"]),
            Step {
                settings: printed(),
                complaint: complaint(),
                then: Then::Exit { failed: false }
            }
        );
        assert_eq!(
            step(&["zone-cp", "--print", "--validate"]),
            Step { settings: printed(), complaint: complaint(), then: failed }
        );
        for arguments in [&["zone-cp", "--validate"][..], &["zone-cp"]] {
            let expected = Step { settings: String::new(), complaint: complaint(), then: failed };
            assert_eq!(step(arguments), expected);
        }
    }

    #[test]
    fn complete_settings_are_run_unless_they_are_only_looked_at() {
        let step = |arguments: &[&str]| {
            let flags = flags("zone-cp").try_get_matches_from(arguments).unwrap();
            Asked::of(&flags).step(&Zone { zone: "east".into() }, &[])
        };
        let quiet = |then| Step { settings: String::new(), complaint: String::new(), then };
        assert_eq!(step(&["zone-cp"]), quiet(Then::Run));
        assert_eq!(step(&["zone-cp", "--validate"]), quiet(Then::Exit { failed: false }));
        let settings = "zone: east\n".to_owned();
        let printed = Step { settings, ..quiet(Then::Exit { failed: false }) };
        assert_eq!(step(&["zone-cp", "--print"]), printed);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = zone(&["zone-cp", "--config", "/nowhere/zone.yaml"], &[]).unwrap_err();
        let named = "--config: cannot read /nowhere/zone.yaml: No such file or directory";
        assert!(error.starts_with(named), "{error}");
    }

    #[test]
    fn flags_are_sound() {
        flags("zone-cp").debug_assert();
    }
}
