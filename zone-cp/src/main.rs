//! See the library.

use anyhow::Result;
use std::process::ExitCode;

fn main() -> ExitCode {
    daemon::program::run("zone-cp", async |config: zone_cp::Config, shutdown| -> Result<()> {
        // It may have to wait for its API server.
        let bound = shutdown.run_until_cancelled(Box::pin(zone_cp::bind(&config))).await;
        let Some(bound) = bound else { return Ok(()) };
        Box::pin(bound?.run(shutdown)).await
    })
}
