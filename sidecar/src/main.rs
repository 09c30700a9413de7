//! See the library.

use anyhow::Result;
use std::process::ExitCode;

fn main() -> ExitCode {
    daemon::program::run("sidecar", async |config: sidecar::Config, shutdown| -> Result<()> {
        sidecar::bind(&config).await?.run(shutdown).await
    })
}
