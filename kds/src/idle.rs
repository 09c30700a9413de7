//! How long a peer may go on saying nothing.

use crate::{dialect::Broken, limit};

/// Counts messages in a row that change nothing: each costs as little as a peer wants, so they have
/// to be bounded by their number.
#[derive(Debug, Default)]
pub(crate) struct Idle(u32);

impl Idle {
    /// A message came, and `changes` something or not.
    pub(crate) fn note(&mut self, changes: bool) -> Result<(), Broken> {
        self.0 = if changes { 0 } else { self.0.saturating_add(1) };
        if self.0 > limit::IDLE { Err(Broken::Idle) } else { Ok(()) }
    }
}
