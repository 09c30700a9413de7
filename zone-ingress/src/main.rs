//! See the library.

use anyhow::Result;
use std::process::ExitCode;

fn main() -> ExitCode {
    daemon::program::run(
        "zone-ingress",
        async |config: zone_ingress::Config, shutdown| -> Result<()> {
            zone_ingress::bind(&config).await?.run(shutdown).await
        },
    )
}
