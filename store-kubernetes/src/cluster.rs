//! All that is known of the cluster, shown in the view.

use super::{
    Settings,
    metrics::Metrics,
    place::{GROUP, Place},
    shelf::{Edits, Shelf},
    watch::{Definition, Failure, Heard, watch},
};
use futures::{Stream, StreamExt as _, stream::BoxStream, stream::SelectAll};
use kube::{
    Api, Client,
    core::{ApiResource, DynamicObject, PartialObjectMeta},
    runtime::{WatchStreamExt as _, watcher},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};
use store::{
    Kinds,
    view::{KindId, Reader, Writer},
};
use tracing::{error, info, warn};

type Seen = Result<watcher::Event<PartialObjectMeta<DynamicObject>>, watcher::Error>;

/// See the module.
pub(crate) struct Cluster {
    pub(crate) view: Writer,
    pub(crate) reader: Reader,
    /// By kind; `None` for those that are kept in memory only.
    shelves: Vec<Option<Shelf>>,
    names: Vec<&'static str>,
    sources: SelectAll<BoxStream<'static, (KindId, Heard)>>,
    definitions: BoxStream<'static, Seen>,
    defined: BTreeMap<String, (KindId, Arc<Definition>)>,
    /// The definitions of a list that is being read.
    listed: HashSet<String>,
    /// Kinds of which not all was heard yet.
    pub(crate) incomplete: BTreeSet<KindId>,
    /// Kinds that are not defined.
    unknown: BTreeSet<KindId>,
    /// Kinds of which nothing is heard at the moment.
    deaf: BTreeSet<KindId>,
}

/// Something was heard.
#[derive(Debug)]
pub(crate) enum Turn {
    Kind(KindId, Heard),
    Definitions(Box<Seen>),
}

impl Cluster {
    pub(crate) fn new(
        client: &Client,
        settings: &Settings,
        kinds: &Kinds,
        (view, reader): (Writer, Reader),
        metrics: &Metrics,
    ) -> Self {
        let system: Arc<str> = settings.system_namespace.as_str().into();
        let mut this = Self {
            view,
            reader: reader.clone(),
            shelves: Vec::new(),
            names: Vec::new(),
            sources: SelectAll::new(),
            definitions: definitions(client).boxed(),
            defined: BTreeMap::new(),
            listed: HashSet::new(),
            incomplete: BTreeSet::new(),
            unknown: BTreeSet::new(),
            deaf: BTreeSet::new(),
        };
        for (id, kind) in kinds.iter() {
            this.names.push(kind.name);
            let Some(place) = Place::of(kind, kinds.peer, &system) else {
                this.shelves.push(None);
                continue;
            };
            let definition = Arc::<Definition>::default();
            if let Some(name) = place.definition() {
                this.defined.insert(name, (id, definition.clone()));
            }
            let heard = watch(client, &place, definition, metrics.clone());
            this.sources.push(heard.map(move |heard| (id, heard)).boxed());
            this.incomplete.insert(id);
            let problems = settings.problems.clone();
            this.shelves.push(Some(Shelf::new(place, id, reader.clone(), problems)));
        }
        this
    }

    /// What is known of a kind; `None` if it is kept in memory only.
    pub(crate) fn shelf(&mut self, id: KindId) -> Option<&mut Shelf> {
        self.shelves.get_mut(id.index())?.as_mut()
    }

    /// Whether the cluster has no definition of a kind.
    pub(crate) fn is_unknown(&self, id: KindId) -> bool {
        self.unknown.contains(&id)
    }

    /// Waits until something is heard. Cancel safe: streams keep what they have not said.
    pub(crate) async fn next(&mut self) -> Option<Turn> {
        tokio::select! {
            biased;
            Some((id, heard)) = self.sources.next() => Some(Turn::Kind(id, heard)),
            Some(seen) = self.definitions.next() => Some(Turn::Definitions(seen.into())),
            else => None,
        }
    }

    /// Shows what follows from it.
    pub(crate) fn take(&mut self, turn: Turn) {
        match turn {
            Turn::Kind(id, heard) => self.heard(id, heard),
            Turn::Definitions(seen) => self.defined(*seen),
        }
    }

    pub(crate) fn apply(&self, edits: Edits) {
        if !edits.is_empty() {
            self.view.apply(edits);
        }
    }

    fn heard(&mut self, id: KindId, heard: Heard) {
        let Some(shelf) = self.shelf(id) else { return };
        let edits = match heard {
            Heard::Begun => {
                shelf.begin();
                return;
            }
            Heard::Listed(objects) => {
                for object in &objects {
                    if let Some(shelf) = self.shelf(id) {
                        let edits = shelf.listed(object);
                        self.apply(edits);
                    }
                }
                return;
            }
            Heard::Complete(version) => {
                let edits = shelf.complete(&version);
                self.incomplete.remove(&id);
                self.hears(id);
                edits
            }
            Heard::Watching => return self.hears(id),
            Heard::Changed(object) => {
                let edits = shelf.changed(&object);
                self.hears(id);
                edits
            }
            Heard::Removed(object) => {
                let edits = shelf.removed(&object);
                self.hears(id);
                edits
            }
            Heard::Unknown => return self.not_defined(id),
            Heard::Failed(failure) => return self.failed(id, &failure),
        };
        self.apply(edits);
    }

    fn name(&self, id: KindId) -> &'static str {
        self.names.get(id.index()).copied().unwrap_or_default()
    }

    fn hears(&mut self, id: KindId) {
        if self.unknown.remove(&id) {
            info!(kind = self.name(id), "the cluster defines the kind now");
        }
        if self.deaf.remove(&id) && self.deaf.is_empty() {
            info!("the API server answers again");
        }
    }

    fn failed(&mut self, id: KindId, failure: &Failure) {
        let first = self.deaf.is_empty();
        if !self.deaf.insert(id) {
            return;
        }
        let (kind, error) = (self.name(id), super::object::chain(failure));
        if failure.code() == 403 {
            error!(
                kind,
                error, "may not be watched: `atoll install control-plane` gives the right"
            );
        } else if first {
            warn!(kind, error, "the API server cannot be watched, what is known stays");
        }
    }

    fn not_defined(&mut self, id: KindId) {
        let absent = self
            .defined
            .values()
            .any(|(kind, definition)| *kind == id && definition.exists() == Some(false));
        self.incomplete.remove(&id);
        // An API server that just started may not know yet what it has.
        if absent && let Some(shelf) = self.shelf(id) {
            let edits = shelf.clear();
            self.apply(edits);
        }
        if self.unknown.insert(id) {
            let kind = self.name(id);
            error!(kind, "the cluster does not define the kind: `atoll install crds` does");
        }
        self.deaf.remove(&id);
    }

    fn defined(&mut self, seen: Seen) {
        let set = |object: &PartialObjectMeta<DynamicObject>, exists| {
            let name = object.metadata.name.as_deref().unwrap_or_default();
            if let Some((_, definition)) = self.defined.get(name) {
                definition.set(exists);
            }
            name.to_owned()
        };
        match seen {
            Ok(watcher::Event::Init) => self.listed.clear(),
            Ok(watcher::Event::InitApply(object)) => {
                let name = set(&object, true);
                if name.ends_with(GROUP) {
                    self.listed.insert(name);
                }
            }
            Ok(watcher::Event::InitDone) => {
                let missing = self.defined.iter().filter(|(name, _)| !self.listed.contains(*name));
                missing.for_each(|(_, (_, definition))| definition.set(false));
            }
            Ok(watcher::Event::Apply(object)) => drop(set(&object, true)),
            Ok(watcher::Event::Delete(object)) => drop(set(&object, false)),
            Err(error) => {
                let error = super::object::chain(&error);
                tracing::debug!(error, "definitions of kinds cannot be watched");
            }
        }
    }
}

fn definitions(client: &Client) -> impl Stream<Item = Seen> + Send + use<> {
    let api = ApiResource {
        group: "apiextensions.k8s.io".into(),
        version: "v1".into(),
        api_version: "apiextensions.k8s.io/v1".into(),
        kind: "CustomResourceDefinition".into(),
        plural: "customresourcedefinitions".into(),
    };
    let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(client.clone(), &api);
    watcher(api, watcher::Config::default()).default_backoff()
}
