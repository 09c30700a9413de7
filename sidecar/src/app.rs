//! From settings to a running proxy.

use crate::Config;
use anyhow::Result;
use proxy::Bound;

/// Reads what the settings name and opens the ports.
pub async fn bind(config: &Config) -> Result<Bound> {
    proxy::bind(config.settings()).await
}
