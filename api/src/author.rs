//! Rows that a control plane writes by itself.

use kinds::{
    config,
    labels::{self, Place},
};
use resource::{AnySpec, Kind, Labels, RejectedSpec, Resource, ResourceKey};
use serde_json::{Value, json};
use std::sync::Arc;
use store::{
    Expected, Item, Kinds,
    view::{Edit, KindId, Reader},
};

/// Makes rows as a user's writes would make them.
#[derive(Clone, Debug)]
pub struct Author {
    /// The kinds of the store.
    pub kinds: Arc<Kinds>,
    /// Where it writes.
    pub place: Place,
}

impl Author {
    /// The id of a kind that every control plane has.
    #[must_use]
    pub fn id(&self, kind: Kind) -> KindId {
        self.kinds.id_of(kind.name).expect("a control plane has every kind")
    }

    /// The step that creates a resource, unless it is there.
    pub fn create(&self, kind: Kind, key: ResourceKey, spec: Value) -> Result<Item, RejectedSpec> {
        self.write(kind, key, &kind.from_json(spec)?, Expected::Nothing)
    }

    /// The step that creates a resource with more labels than it has anyway, unless it is there.
    pub fn create_with(
        &self,
        kind: Kind,
        key: ResourceKey,
        more: &Labels,
        spec: Value,
    ) -> Result<Item, RejectedSpec> {
        let own = labels::own(kind, &key, &self.place);
        let labels = more.iter().chain(own.iter()).collect();
        let spec = kind.encode(&kind.from_json(spec)?)?;
        let row = kind.resource(key, labels, spec, "".into(), self.kinds.peer)?;
        let edit = Edit::Put(Arc::new(row));
        Ok(Item { kind: self.id(kind), expected: Expected::Nothing, edit })
    }

    /// The step that writes a resource.
    pub fn write(
        &self,
        kind: Kind,
        key: ResourceKey,
        spec: &AnySpec,
        expected: Expected,
    ) -> Result<Item, RejectedSpec> {
        let labels = labels::own(kind, &key, &self.place);
        let row = kind.resource(key, labels, kind.encode(spec)?, "".into(), self.kinds.peer)?;
        Ok(Item { kind: self.id(kind), expected, edit: Edit::Put(Arc::new(row)) })
    }

    /// The step that deletes a resource, if it is there.
    #[must_use]
    pub fn delete(&self, kind: Kind, key: ResourceKey) -> Item {
        let expected = Expected::Anything;
        Item { kind: self.id(kind), expected, edit: Edit::Delete(key) }
    }

    /// The row of a resource.
    #[must_use]
    pub fn get(&self, reader: &Reader, kind: Kind, key: &ResourceKey) -> Option<Arc<Resource>> {
        reader.get(self.id(kind), key)
    }

    /// What the control plane remembers under `name`. Such rows never leave it.
    #[must_use]
    pub fn remembered(&self, reader: &Reader, name: &str) -> Option<String> {
        let row = self.get(reader, config::KIND, &ResourceKey::global(name))?;
        kinds::read::<config::Config>(&row).ok().map(|config| config.0.config.clone())
    }

    /// The step that remembers `text` under `name`.
    pub fn remember(&self, name: &str, text: &str) -> Result<Item, RejectedSpec> {
        let (kind, key) = (config::KIND, ResourceKey::global(name));
        let spec = kind.from_json(json!({ "config": text }))?;
        self.write(kind, key, &spec, Expected::Anything)
    }

    /// The step that forgets `name`.
    #[must_use]
    pub fn forget(&self, name: &str) -> Item {
        self.delete(config::KIND, ResourceKey::global(name))
    }
}
