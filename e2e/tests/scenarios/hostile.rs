//! Clients that are not who they should be.

use super::Scenario;

pub(crate) const ALL: &[Scenario] = &[];
