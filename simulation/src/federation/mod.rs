//! Global, zones, and those who write to them, while everything that can go wrong does.
//!
//! What runs is the product: both ends of KDS, the embedded store on a simulated disk, the REST
//! API, and what global and zones do by themselves and needs no port. What is simulated is time,
//! the network, the disk, and who does what when.

mod content;
mod faults;
mod fresh;
mod machine;
mod operations;
mod oracle;
mod statuses;
mod truth;
mod world;

pub use self::world::Summary;

use anyhow::{Result, bail};
use std::time::Duration;
use tokio::{runtime::Builder, time::timeout};

/// In simulated time; nothing takes so long.
const DAY: Duration = Duration::from_secs(86_400);

/// Runs the history of `seed`, and tells what it was like and what was wrong.
pub fn look(seed: u64) -> Result<Summary> {
    // What the product draws by itself.
    fastrand::seed(seed);
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build()?;
    Ok(runtime.block_on(async { timeout(DAY, world::history(seed)).await })?)
}

/// Runs the history of `seed`. Fails if something was not as it must be.
pub fn run(seed: u64) -> Result<Summary> {
    let summary = look(seed)?;
    if summary.wrong.is_empty() {
        return Ok(summary);
    }
    bail!("{}", summary.wrong.join("\n  "))
}
