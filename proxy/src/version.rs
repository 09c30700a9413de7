//! Which Envoy there is.

use std::{io, process::Stdio, time::Duration};
use tokio::{process::Command, time::timeout};

/// A program that only prints its version is done by then.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a program is no Envoy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VersionError {
    /// It cannot be started.
    #[error("cannot run {program:?}")]
    Run {
        /// The program.
        program: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It does not come to an end.
    #[error("{0:?} does not print its version")]
    Silent(String),
    /// It says something else.
    #[error("{program:?} is no envoy: it says {said:?}")]
    Other {
        /// The program.
        program: String,
        /// Its first words.
        said: String,
    },
}

/// Asks `program` for its version.
pub(crate) async fn of(program: &str) -> Result<String, VersionError> {
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(PATIENCE, output)
        .await
        .map_err(|_| VersionError::Silent(program.into()))?
        .map_err(|source| VersionError::Run { program: program.into(), source })?;
    let said = String::from_utf8_lossy(&output.stdout);
    parse(&said).map(str::to_owned).ok_or_else(|| {
        let said = said.trim().chars().take(100).collect();
        VersionError::Other { program: program.into(), said }
    })
}

/// `…version: <commit>/<version>/<state>/<build>/<TLS library>`.
fn parse(said: &str) -> Option<&str> {
    let (_, build) = said.split_once("version: ")?;
    build.split('/').nth(1).filter(|version| version.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tells_an_envoy_from_other_programs() {
        let said = "\nenvoy  version: 9e5580/1.40.0/Clean/RELEASE/BoringSSL\n\n";
        assert_eq!(parse(said), Some("1.40.0"));
        let error = of("false").await.unwrap_err();
        assert!(matches!(error, VersionError::Other { .. }), "{error}");
        let error = of("/nowhere/envoy").await.unwrap_err();
        assert_eq!(error.to_string(), r#"cannot run "/nowhere/envoy""#);
    }
}
