//! Keeps nothing: for tests and for trying things out.

use super::{
    Contents, Journal, Kinds, StoreError,
    view::{Edit, KindId, Loaded, Revision},
};

/// A journal that forgets.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    epoch: u64,
}

impl Memory {
    /// A journal whose history is called `epoch`, which no other store may have been called.
    #[must_use]
    pub const fn new(epoch: u64) -> Self {
        Self { epoch }
    }
}

impl Journal for Memory {
    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn load(&mut self, kinds: &Kinds) -> Result<Contents, StoreError> {
        let kinds = kinds.iter().map(|_| Loaded::default()).collect();
        Ok(Contents { kinds, revision: Revision::default() })
    }

    fn write(
        &mut self,
        _kinds: &Kinds,
        _revision: Revision,
        _edits: &[(KindId, Edit)],
    ) -> Result<(), StoreError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[tokio::test(start_paused = true)]
    async fn conforms() {
        crate::conformance::check(super::Memory::new(1)).await;
    }
}
