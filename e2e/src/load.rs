//! Requests without end, whose failures are counted.

use crate::peer::{Ask, Client, Told};
use anyhow::{Result, bail};

/// Clients that send requests until they are stopped, each on a connection of its own.
#[derive(Debug)]
pub struct Load(Vec<Client>);

impl Load {
    /// Starts `clients` of them in a namespace.
    pub fn start(namespace: &str, to: &str, clients: usize) -> Result<Self> {
        let client = |_| {
            let mut client = Client::start(Some(namespace))?;
            client.connect(to)?;
            client.ask(&Ask::Load)?;
            Ok(client)
        };
        (0..clients).map(client).collect::<Result<_>>().map(Self)
    }

    /// Stops them, and returns what came of all.
    pub fn stop(self) -> Result<Told> {
        let mut total = Told::default();
        for mut client in self.0 {
            let told = client.ask(&Ask::Stop)?;
            if !told.error.is_empty() {
                bail!("a load ended: {}", told.error);
            }
            total.good += told.good;
            total.bad += told.bad;
            total.opened += told.opened;
            total.slowest = total.slowest.max(told.slowest);
            total.gap = total.gap.max(told.gap);
            for (name, count) in told.by {
                *total.by.entry(name).or_default() += count;
            }
            if !told.body.is_empty() {
                total.body = told.body;
            }
        }
        Ok(total)
    }
}
