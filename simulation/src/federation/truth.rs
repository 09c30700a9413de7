//! What users were told, and what control planes may hold because of it.

use super::{
    content::{PREFIX, WRITE, looked_at},
    machine::Answer,
};
use http::StatusCode;
use resource::{Kind, Resource, ResourceKey, label};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// A control plane: global is the first, zones follow.
pub(crate) type Node = usize;
/// A resource of a control plane.
pub(crate) type Name = (&'static str, ResourceKey);

/// One write of a user.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) node: Node,
    pub(crate) name: Name,
    /// Whether others can take it.
    pub(crate) good: bool,
    /// Whether it must not leave.
    pub(crate) private: bool,
    /// Whether its name elsewhere is that of something else.
    pub(crate) forged: bool,
}

/// What a user knows of a resource.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// The last write that was acknowledged; `None` if it was a deletion.
    pub(crate) now: Option<u64>,
    /// Writes of which nothing was said: each may have been done.
    pub(crate) maybe: Vec<Option<u64>>,
    /// When the last deletion was asked for, counted as writes are.
    pub(crate) deleted: u64,
}

/// What a control plane was seen to hold.
#[derive(Clone, Debug, Default)]
struct Seen {
    write: u64,
    there: bool,
    /// It was gone when all writes before this one were deleted.
    buried: u64,
    /// The zone that it was of.
    zone: Option<String>,
}

/// Everything that is known in one history.
#[derive(Debug)]
pub(crate) struct Truth {
    began: Instant,
    pub(crate) trace: Vec<String>,
    pub(crate) wrong: Vec<String>,
    /// By number.
    pub(crate) writes: Vec<Written>,
    pub(crate) known: BTreeMap<(Node, Name), Known>,
    seen: BTreeMap<(Node, Name), Seen>,
    pub(crate) nodes: Vec<String>,
    /// Zones of which what they wrote may vanish elsewhere without a deletion: somebody disabled or
    /// deleted them.
    pub(crate) excused: BTreeSet<Node>,
    /// Names that two wanted: who has such a one, and where, is a matter of time.
    pub(crate) contended: BTreeSet<Name>,
}

impl Truth {
    pub(crate) fn new(nodes: Vec<String>) -> Self {
        let (trace, wrong, known, seen, excused) = Default::default();
        let (began, writes, contended) = (Instant::now(), Vec::new(), BTreeSet::new());
        Self { began, trace, wrong, writes, known, seen, nodes, excused, contended }
    }

    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) fn note(&mut self, what: impl std::fmt::Display) {
        let line = format!("{:9.3} {what}", self.now().as_secs_f64());
        self.trace.push(line);
    }

    pub(crate) fn wrong(&mut self, what: impl std::fmt::Display) {
        let line = format!("WRONG: {what}");
        self.note(&line);
        self.wrong.push(format!("at {:.3} s: {what}", self.now().as_secs_f64()));
    }

    pub(crate) fn called(&self, node: Node) -> &str {
        self.nodes.get(node).map_or("?", String::as_str)
    }

    /// The number of a new write.
    pub(crate) fn begin(&mut self, written: Written) -> u64 {
        if written.name.0 == "Secret" {
            // Its name stays on the way.
            self.contended.insert(written.name.clone());
        }
        self.writes.push(written);
        self.writes.len() as u64
    }

    pub(crate) fn write(&self, n: u64) -> Option<&Written> {
        self.writes.get(usize::try_from(n.checked_sub(1)?).ok()?)
    }

    /// The names of `node` that hold something, as far as users know.
    pub(crate) fn live(&self, node: Node) -> Vec<(Name, u64)> {
        let of = self.known.range((node, ("", ResourceKey::global("")))..);
        let of = of.take_while(|((of, _), _)| *of == node);
        of.filter_map(|((_, name), known)| Some((name.clone(), known.now?))).collect()
    }

    /// Whether users know of something there.
    pub(crate) fn is_live(&self, node: Node, kind: &'static str, key: &ResourceKey) -> bool {
        let known = self.known.get(&(node, (kind, key.clone())));
        known.is_some_and(|known| known.now.is_some())
    }

    /// A user asks for a write, or for a deletion. Others may hear of it before the user does.
    pub(crate) fn asks(&mut self, node: Node, name: Name, n: Option<u64>) {
        let last = self.writes.len() as u64;
        let known = self.known.entry((node, name)).or_default();
        known.maybe.push(n);
        if n.is_none() {
            known.deleted = last;
        }
    }

    /// A user was told what became of what it asked for.
    pub(crate) fn told(&mut self, node: Node, name: Name, n: Option<u64>, answer: Answer) {
        let at = format!("{} {} {}", self.called(node), name.0, name.1);
        let what = n.map_or_else(|| "deletion".into(), |n| format!("write {n}"));
        let known = self.known.entry((node, name)).or_default();
        match answer {
            Answer::Done => {
                known.now = n;
                known.maybe.clear();
                self.note(format_args!("{at}: {what} is done"));
            }
            Answer::Unknown => {
                self.note(format_args!("{at}: {what} was not answered"));
            }
            Answer::Refused(status, text) => {
                known.maybe.pop();
                let there = known.now.is_some() && known.maybe.is_empty();
                self.note(format_args!("{at}: {what} is refused: {status} {text}"));
                if n.is_none() && status == StatusCode::NOT_FOUND && there {
                    self.wrong(format_args!("{at} is lost: it cannot be deleted"));
                }
            }
        }
    }

    /// A control plane began or changed something.
    pub(crate) fn saw(
        &mut self,
        node: Node,
        kind: &Kind,
        key: &ResourceKey,
        now: Option<&Arc<Resource>>,
    ) {
        if !looked_at(kind) {
            return;
        }
        let name: Name = (kind.name, key.clone());
        let at = format!("{} {} {key}", self.called(node), kind.name);
        let Some(row) = now else {
            self.note(format_args!("{at} is gone"));
            return self.vanished(node, name, &at);
        };
        let labels = &row.head.labels;
        let Some(n) = labels.get(WRITE).and_then(|n| n.parse().ok()) else {
            let display = labels.get(label::DISPLAY_NAME).unwrap_or(&key.name);
            if display.starts_with(PREFIX) && labels.get(label::MANAGED_BY).is_none() {
                self.wrong(format_args!("{at} was never written: {labels:?}"));
            }
            return;
        };
        let zone = labels.get(label::ZONE).map(str::to_owned);
        self.note(format_args!("{at} is write {n}{}", hidden(row)));
        let Some(written) = self.write(n).cloned() else {
            return self.wrong(format_args!("{at} is of the unknown write {n}"));
        };
        let seen = self.seen.entry((node, name.clone())).or_default();
        let before = seen.clone();
        let buried = if before.zone == zone { before.buried } else { 0 };
        *seen = Seen { write: n, there: true, zone: zone.clone(), buried };
        if written.node == node {
            return;
        }
        if written.private {
            self.wrong(format_args!("{at}: write {n} must not leave its control plane"));
        }
        if !written.good {
            self.wrong(format_args!("{at}: write {n} is bad and was taken"));
        }
        let owner = if written.node == 0 { None } else { self.nodes.get(written.node).cloned() };
        if zone != owner {
            self.wrong(format_args!("{at} says it is of {zone:?}, but {owner:?} wrote it"));
        }
        if before.there && before.zone != zone {
            let still = self.known.get(&(written_by(self, &before), self.named(&before)));
            if still.is_some_and(|known| known.now.is_some() && known.maybe.is_empty()) {
                self.wrong(format_args!("{at} was of {:?} and is of {zone:?} now", before.zone));
            }
            return;
        }
        if before.zone == zone && n < before.write {
            self.wrong(format_args!("{at} went back from write {} to {n}", before.write));
        }
        if n <= buried {
            self.wrong(format_args!("{at}: write {n} was deleted and came back"));
        }
    }

    fn named(&self, seen: &Seen) -> Name {
        self.write(seen.write).map_or_else(|| ("", ResourceKey::global("")), |it| it.name.clone())
    }

    fn vanished(&mut self, node: Node, name: Name, at: &str) {
        let place = (node, name);
        let Some(seen) = self.seen.get(&place).filter(|seen| seen.there).cloned() else { return };
        let Some(written) = self.write(seen.write).cloned() else { return };
        let known = self.known.get(&(written.node, written.name.clone()));
        let known = known.cloned().unwrap_or_default();
        let deleted = known.now.is_none() || known.maybe.contains(&None);
        // What a zone deleted and global does not know of yet may be hidden and shown again.
        let on_global = self.seen.get(&(0, place.1.clone())).is_some_and(|seen| seen.there);
        let stale = node != 0 && written.node != 0 && on_global;
        let for_good = known.now.is_none() && known.maybe.is_empty() && !stale;
        let buried = if for_good { known.deleted } else { seen.buried };
        self.seen.insert(place, Seen { there: false, buried, ..seen.clone() });
        // One that was deleted and written anew may be seen gone in between.
        let anew = known.deleted >= seen.write;
        let judged = written.name.0 == "MeshTrust";
        // Its name elsewhere is another one now; or who holds it cannot read it itself any more.
        let latest = known.now.iter().chain(known.maybe.iter().flatten());
        let mut latest = latest.filter_map(|n| self.write(*n));
        let other = latest.any(|latest| latest.forged != written.forged || !latest.good);
        let elsewhere = written.node != node;
        let excused = deleted || anew || judged || other || self.excused.contains(&written.node);
        if elsewhere && !excused {
            self.wrong(format_args!("{at}: write {} vanished without a deletion", seen.write));
        }
    }

    /// What a control plane held before it began anew and does not hold now.
    pub(crate) fn missed(&mut self, node: Node, there: &BTreeSet<Name>) -> Vec<Name> {
        let of = self
            .seen
            .iter()
            .filter(|((of, name), seen)| *of == node && seen.there && !there.contains(name));
        of.map(|((_, name), _)| name.clone()).collect()
    }
}

fn written_by(truth: &Truth, seen: &Seen) -> Node {
    truth.write(seen.write).map_or(usize::MAX, |written| written.node)
}

fn hidden(row: &Resource) -> &'static str {
    if row.head.audience.hidden { ", hidden" } else { "" }
}
