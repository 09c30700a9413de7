//! See the library.

use anyhow::Result;
use std::process::ExitCode;

fn main() -> ExitCode {
    daemon::program::run("global-cp", async |config: global_cp::Config, shutdown| -> Result<()> {
        global_cp::bind(&config, &shutdown).await?.run(shutdown).await
    })
}
