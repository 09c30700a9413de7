//! The frame of every program: flags, configuration, logs, signals, exit code.

use crate::{
    config::{self, Config, ConfigError},
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
    let config: C = match load(&flags, std::env::vars_os()) {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    if flags.get_flag("print") {
        return match std::io::stdout().write_all(config::print(&config).as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    if flags.get_flag("validate") {
        return ExitCode::SUCCESS;
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
        .arg(switch("print", "Prints the settings in effect, without secrets, and exits"))
}

fn load<C: Config>(
    flags: &ArgMatches,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> anyhow::Result<C> {
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
    Ok(config::load(file.as_deref(), env)?)
}

/// There are no logs yet: a mistake a line.
fn refuse(error: &anyhow::Error) -> ExitCode {
    let mut lines = String::new();
    match error.downcast_ref::<ConfigError>() {
        Some(ConfigError::Invalid(problems)) => {
            lines.push_str("invalid configuration:\n");
            for problem in problems {
                lines.push_str(&format!("  {problem}\n"));
            }
        }
        Some(ConfigError::Malformed(_)) | None => lines.push_str(&format!("{error:#}\n")),
    }
    // Nobody is left to tell if this fails.
    drop(std::io::stderr().write_all(lines.as_bytes()));
    ExitCode::FAILURE
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
        let config: anyhow::Result<Zone> = load(&flags, env);
        config.map(|config| config.zone).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn settings_come_from_the_file_and_the_environment() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/zone.yaml");
        let arguments = ["zone-cp", "--config", file];
        assert_eq!(zone(&arguments, &[]), Ok("east".into()));
        assert_eq!(zone(&arguments, &[("ATOLL_ZONE", "west")]), Ok("west".into()));
        assert_eq!(zone(&["zone-cp"], &[]), Err("invalid configuration: zone: must be set".into()));
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
