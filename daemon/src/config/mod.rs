//! Reads a program's configuration: one YAML file, then the environment.

mod problem;
mod secret;
mod socket;
#[cfg(test)]
mod tests;
mod tree;

pub use self::{
    problem::{Problem, Problems},
    secret::Secret,
    socket::{InvalidSocket, check_socket},
};

use self::tree::Tree;
use crate::log::Log;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{fmt, time::Duration};

/// The configuration of a program.
///
/// Its structs have `#[serde(rename_all = "camelCase", default, deny_unknown_fields)]`. Every
/// section is present in the default: only what the serialised default names can be set by the
/// environment.
pub trait Config: Serialize + DeserializeOwned + Default {
    /// Adds every broken rule.
    fn check(&self, problems: &mut Problems);

    /// How the program logs.
    fn log(&self) -> Log {
        Log::default()
    }

    /// How long the program may take to stop.
    fn stop_within(&self) -> Duration {
        Duration::from_secs(30)
    }
}

/// Why a configuration was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file is not YAML.
    #[error("malformed configuration: {0}")]
    Malformed(String),
    /// Everything that is wrong.
    #[error("invalid configuration: {}", Joined(.0))]
    Invalid(Vec<Problem>),
}

struct Joined<'a>(&'a [Problem]);

impl fmt::Display for Joined<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if i == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

/// Reads the text of a file, lets the variables of `env` that begin with `ATOLL_` override it,
/// and checks every rule.
///
/// `kds.tls.certFile` is overridden by `ATOLL_KDS_TLS_CERT_FILE`; lists and maps are given as YAML.
pub fn load<C: Config>(
    file: Option<&str>,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<C, ConfigError> {
    let (config, problems) = read(file, env)?;
    if problems.is_empty() { Ok(config) } else { Err(ConfigError::Invalid(problems)) }
}

/// The same for somebody who looks at settings, which may be incomplete: what could not be read
/// stands at its default, and all that is wrong comes along.
pub fn read<C: Config>(
    file: Option<&str>,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<(C, Vec<Problem>), ConfigError> {
    let default = serde_json::to_value(C::default()).unwrap_or_default();
    let mut problems = Problems::default();
    let mut tree = Tree::of(parse(file.unwrap_or_default())?);
    tree.remove_unknown(&default, &mut problems);
    tree.override_by(env, &default, &mut problems);
    let config: C = tree.read(&mut problems);
    let mut broken = Problems::default();
    config.check(&mut broken);
    // What could not be read stands at its default, whose check would say something misleading.
    let unread = problems.clone();
    problems.extend(
        broken
            .into_vec()
            .into_iter()
            .filter(|problem| !unread.iter().any(|unread| overlap(&unread.path, &problem.path))),
    );
    let mut problems = problems.into_vec();
    // In one order, whichever order a map keeps its keys in.
    problems.sort_by(|one, other| one.path.cmp(&other.path));
    Ok((config, problems))
}

/// The effective configuration as YAML, without secrets.
#[must_use]
pub fn print<C: Config>(config: &C) -> String {
    serde_saphyr::to_string(config).unwrap_or_else(|error| format!("# {error}\n"))
}

fn parse(text: &str) -> Result<Value, ConfigError> {
    // A snippet could show a secret.
    let options = serde_saphyr::options! { with_snippet: false };
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| ConfigError::Malformed(error.to_string()))
}

/// Whether one path is the other, or lies within it.
fn overlap(one: &str, other: &str) -> bool {
    let (short, long) = if one.len() < other.len() { (one, other) } else { (other, one) };
    long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}
