//! Rows that global writes by itself.

use kinds::{
    config,
    labels::{self, Place},
};
use resource::{AnySpec, Kind, RejectedSpec, Resource, ResourceKey};
use serde_json::{Value, json};
use std::sync::Arc;
use store::{
    Expected, Item, Kinds,
    view::{Edit, KindId, Reader},
};

/// Makes rows as a user's writes would make them.
#[derive(Clone, Debug)]
pub(crate) struct Author {
    pub(crate) kinds: Arc<Kinds>,
}

impl Author {
    /// The id of a kind that every global has.
    pub(crate) fn id(&self, kind: Kind) -> KindId {
        self.kinds.id_of(kind.name).expect("global has every kind")
    }

    /// The step that creates a resource, unless it is there.
    pub(crate) fn create(
        &self,
        kind: Kind,
        key: ResourceKey,
        spec: Value,
    ) -> Result<Item, RejectedSpec> {
        self.write(kind, key, &kind.from_json(spec)?, Expected::Nothing)
    }

    /// The step that writes a resource.
    pub(crate) fn write(
        &self,
        kind: Kind,
        key: ResourceKey,
        spec: &AnySpec,
        expected: Expected,
    ) -> Result<Item, RejectedSpec> {
        let labels = labels::own(kind, &key, &Place::Global);
        let row = kind.resource(key, labels, kind.encode(spec)?, "".into(), self.kinds.peer)?;
        Ok(Item { kind: self.id(kind), expected, edit: Edit::Put(Arc::new(row)) })
    }

    /// The step that deletes a resource, if it is there.
    pub(crate) fn delete(&self, kind: Kind, key: ResourceKey) -> Item {
        let expected = Expected::Anything;
        Item { kind: self.id(kind), expected, edit: Edit::Delete(key) }
    }

    /// The row of a resource.
    pub(crate) fn get(
        &self,
        reader: &Reader,
        kind: Kind,
        key: &ResourceKey,
    ) -> Option<Arc<Resource>> {
        reader.get(self.id(kind), key)
    }

    /// What global remembers under `name`. Such rows never leave it.
    pub(crate) fn remembered(&self, reader: &Reader, name: &str) -> Option<String> {
        let row = self.get(reader, config::KIND, &ResourceKey::global(name))?;
        kinds::read::<config::Config>(&row).ok().map(|config| config.0.config.clone())
    }

    /// The step that remembers `text` under `name`.
    pub(crate) fn remember(&self, name: &str, text: &str) -> Result<Item, RejectedSpec> {
        let (kind, key) = (config::KIND, ResourceKey::global(name));
        let spec = kind.from_json(json!({ "config": text }))?;
        self.write(kind, key, &spec, Expected::Anything)
    }

    /// The step that forgets `name`.
    pub(crate) fn forget(&self, name: &str) -> Item {
        self.delete(config::KIND, ResourceKey::global(name))
    }
}
