//! Watching: `GET /{path}?watch=true` is a stream of lines, each a JSON object.
//!
//! | line | meaning |
//! |---|---|
//! | `{"event":"put","resource":…}` | it was created or changed |
//! | `{"event":"delete","mesh":…,"name":…}` | it is gone, or is no longer what was asked for |
//! | `{"event":"bookmark","revision":"…"}` | everything until this revision was said |
//! | `{"event":"reset"}` | too much happened: forget everything, all of it follows |
//!
//! Without `revision` all there is comes first. A revision is that of a list's header
//! `atoll-revision` or of a bookmark. Intermediate states may be skipped; nothing is queued for a
//! client, so a slow one holds up nobody.

use super::{
    Problem,
    access::User,
    asked::{Asked, Served},
    query::Filter,
    read::within,
    render,
    state::Api,
};
use axum::{
    body::{Body, Bytes},
    response::{IntoResponse, Response},
};
use futures::{Stream, stream};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use resource::{Kind, MeshName, Resource, ResourceKey};
use serde_json::{Value, json};
use std::convert::Infallible;
use store::{
    Backend,
    view::{Change, Changes, KindId, KindSet, Reader, Revision, Watch},
};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

const REVISION: HeaderName = HeaderName::from_static("atoll-revision");

/// Where a list stands in the history of its store.
pub(crate) fn place<B: Backend>(api: &Api<B>, revision: Revision) -> HeaderMap {
    let text = printed(api.given.backend.epoch(), revision);
    HeaderValue::from_str(&text).into_iter().map(|value| (REVISION, value)).collect()
}

fn printed(epoch: u64, Revision(revision): Revision) -> String {
    format!("{epoch:x}-{revision}")
}

/// A revision of this history; `None` for one of another.
fn parsed(text: &str, epoch: u64) -> Result<Option<Revision>, Problem> {
    let parts = text.split_once('-').and_then(|(epoch, revision)| {
        Some((u64::from_str_radix(epoch, 16).ok()?, revision.parse().ok()?))
    });
    let (of, revision) = parts.ok_or_else(|| {
        Problem::field(
            "Could not watch resources",
            "revision",
            "is not one that a list or a watch gave",
        )
    })?;
    Ok((of == epoch).then_some(Revision(revision)))
}

/// Answers with a stream of changes.
pub(crate) fn stream<B: Backend>(
    served: &Served<B>,
    asked: &Asked,
    mesh: Option<MeshName>,
) -> Result<Response, Problem> {
    let api = &served.api;
    let epoch = api.given.backend.epoch();
    let since = match asked.query.get("revision") {
        None => Since::Nothing,
        Some(text) => parsed(text, epoch)?.map_or(Since::Lost, Since::At),
    };
    let filter = Filter::of(&asked.query, &asked.route(&served.kind), &served.kind)?;
    let permit = api.watches.clone().try_acquire_owned().map_err(|_| {
        let detail =
            format_args!("{} watches are open, which is the limit", super::limits::WATCHES);
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "Service unavailable", detail)
    })?;
    // Before the first look, so that no change falls between.
    let watch = api.reader.watch(KindSet::default().with(served.id));
    let follower = Follower {
        reader: api.reader.clone(),
        watch,
        since,
        scope: Scope { id: served.id, kind: served.kind, mesh, filter, user: asked.user.clone() },
        epoch,
        shutdown: api.given.shutdown.clone(),
        _permit: permit,
    };
    let content_type = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((content_type, Body::from_stream(follower.lines())).into_response())
}

/// How far a client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    Nothing,
    Lost,
    At(Revision),
}

struct Scope {
    id: KindId,
    kind: Kind,
    mesh: Option<MeshName>,
    filter: Filter,
    user: User,
}

impl Scope {
    fn holds(&self, key: &ResourceKey) -> bool {
        (self.mesh.is_none() || key.mesh == self.mesh) && self.user.reads(&self.kind, key)
    }

    fn put(&self, row: &Resource) -> Option<Value> {
        if !self.filter.selects(row) {
            return None;
        }
        let shown = render::listed(&self.kind, row).ok()?;
        Some(json!({"event": "put", "resource": shown}))
    }

    fn change(&self, Change { key, before, now }: &Change) -> Option<Value> {
        if !self.holds(key) {
            return None;
        }
        let put = now.as_ref().and_then(|row| self.put(row));
        // What the filter no longer selects is gone for this client.
        put.or_else(|| {
            let mesh = key.mesh.as_ref().map(MeshName::as_str);
            let gone = json!({"event": "delete", "mesh": mesh, "name": &*key.name});
            before.is_some().then_some(gone)
        })
    }

    fn everything(&self, reader: &Reader) -> (Revision, Vec<Value>) {
        let (revision, rows) = reader.rows(self.id);
        let rows = within(&rows, self.mesh.as_ref()).filter(|row| self.holds(&row.head.key));
        (revision, rows.filter_map(|row| self.put(row)).collect())
    }
}

struct Follower {
    reader: Reader,
    watch: Watch,
    since: Since,
    scope: Scope,
    epoch: u64,
    shutdown: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Follower {
    /// The lines that are due, and the revision they reach.
    fn due(&self) -> (Revision, Vec<Value>) {
        let since = match self.since {
            Since::Nothing => return self.scope.everything(&self.reader),
            Since::Lost => None,
            Since::At(revision) => Some(revision),
        };
        let changes = since.map(|revision| self.reader.changes(self.scope.id, revision));
        if let Some(Changes::Keys { revision, changes }) = changes {
            return (
                revision,
                changes.iter().filter_map(|change| self.scope.change(change)).collect(),
            );
        }
        let (revision, rows) = self.scope.everything(&self.reader);
        (revision, [json!({"event": "reset"})].into_iter().chain(rows).collect())
    }

    /// One chunk for all that is due; the next is made when the client took it.
    fn lines(self) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
        stream::unfold(self, |mut follower| async {
            if let Since::At(_) = follower.since
                && follower.caught_up()
            {
                tokio::select! {
                    biased;
                    () = follower.shutdown.cancelled() => return None,
                    dirty = follower.watch.dirty() => drop(dirty.ok()?),
                }
            }
            let (revision, mut lines) = follower.due();
            follower.since = Since::At(revision);
            lines.push(json!({"event": "bookmark", "revision": printed(follower.epoch, revision)}));
            let text = lines.iter().fold(String::new(), |text, line| format!("{text}{line}\n"));
            Some((Ok(text.into()), follower))
        })
    }

    fn caught_up(&self) -> bool {
        let (now, _) = self.reader.rows(self.scope.id);
        self.since == Since::At(now)
    }
}
