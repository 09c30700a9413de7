//! See the library.

use anyhow::Result;
use std::process::ExitCode;

fn main() -> ExitCode {
    daemon::program::run("zone-cp", async |config: zone_cp::Config, shutdown| -> Result<()> {
        Box::pin(zone_cp::bind(&config).await?.run(shutdown)).await
    })
}
