//! The one that writes: items become requests, answers become what the view shows.
//!
//! Items about one resource are done in their order, all others side by side. Each is decided by
//! what the view shows when its turn comes. What the API server cannot do now is tried again, for
//! ever, while others go on.

mod decide;
mod memory;
mod pace;
mod request;

use self::{
    decide::Step,
    memory::is_memory,
    pace::Pace,
    request::{Answer, Ask, Verdict, Write},
};
use crate::{cluster::Cluster, metrics::Metrics, watch::Failure};
use daemon::{Backoff, Clock};
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use kube::{Client, core::DynamicObject};
use resource::{Kind, ResourceKey};
use serde_json::Value;
use std::collections::{BTreeSet, HashMap, VecDeque};
use store::{
    Committed, Expected, Item, Kinds, Outcome, Requests, StoreError, Waiting,
    view::{Edit, KindId},
};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

/// How many items may wait; beyond that batches wait.
const MANY: usize = 8192;
/// How often in a row others may be faster before it is left alone for a moment.
const PATIENT: u32 = 3;

/// An item on its way.
#[derive(Debug)]
struct Job {
    batch: u64,
    index: usize,
    kind: KindId,
    key: ResourceKey,
    expected: Expected,
    edit: Edit,
    backoff: Backoff,
    /// How often somebody else was faster.
    overtaken: u32,
    /// Whether a request went out that nobody answered.
    uncertain: bool,
    /// Whether somebody else has the name that its object would have.
    renamed: bool,
    /// Whether it needs no request of its own if only places change.
    quiet: bool,
    /// Whether the API server could not do it yet.
    troubled: bool,
}

/// A batch on its way.
#[derive(Debug)]
struct Batch {
    waiting: Waiting,
    outcomes: Vec<Option<Outcome>>,
    left: usize,
    /// What is written when all else is.
    last: Vec<Job>,
    /// Whether something was written.
    durable: bool,
}

struct Landed {
    job: Job,
    ask: Ask,
    answer: Result<Answer, Failure>,
}

/// See the module.
pub(crate) struct Writer {
    client: Client,
    cluster: Cluster,
    kinds: Box<[Kind]>,
    clock: Clock,
    metrics: Metrics,
    asked: Requests,
    batches: HashMap<u64, Batch>,
    next_batch: u64,
    /// The resources that somebody is at, and who comes next.
    busy: HashMap<(KindId, ResourceKey), VecDeque<Job>>,
    /// Whose turn it is.
    due: VecDeque<Job>,
    /// Who needs a request.
    ready: VecDeque<Job>,
    under_way: FuturesUnordered<BoxFuture<'static, Landed>>,
    resting: FuturesUnordered<BoxFuture<'static, Job>>,
    pace: Pace,
    jobs: usize,
    troubled: usize,
    /// Kinds whose definition does not know all fields.
    older: BTreeSet<KindId>,
}

impl Writer {
    pub(crate) fn new(
        client: Client,
        cluster: Cluster,
        kinds: &Kinds,
        clock: Clock,
        metrics: Metrics,
        asked: Requests,
    ) -> Self {
        Self {
            client,
            cluster,
            kinds: kinds.list.clone(),
            clock,
            metrics,
            asked,
            batches: HashMap::new(),
            next_batch: 0,
            busy: HashMap::new(),
            due: VecDeque::new(),
            ready: VecDeque::new(),
            under_way: FuturesUnordered::new(),
            resting: FuturesUnordered::new(),
            pace: Pace::default(),
            jobs: 0,
            troubled: 0,
            older: BTreeSet::new(),
        }
    }

    /// Writes until every handle of the store is gone, and then finishes what the API server takes.
    pub(crate) async fn run(mut self) -> Result<(), StoreError> {
        let mut open = true;
        loop {
            self.begin();
            if !open && (self.jobs == 0 || self.troubled > 0 && self.pace.is_idle()) {
                return Ok(());
            }
            tokio::select! {
                biased;
                Some(landed) = self.under_way.next() => self.landed(landed),
                Some(job) = self.resting.next() => self.due.push_back(job),
                () = self.pace.over(), if self.pace.is_paused() => {}
                turn = self.cluster.next() => match turn {
                    Some(turn) => self.cluster.take(turn),
                    None => return Err(StoreError::Closed),
                },
                batch = self.asked.next(), if open && self.jobs < MANY => match batch {
                    Some((batch, waiting)) => self.accept(batch, waiting),
                    None => open = false,
                },
            }
        }
    }

    /// Begins with a batch.
    fn accept(&mut self, items: Vec<Item>, waiting: Waiting) {
        let (batch, outcomes) = (self.next_batch, items.iter().map(|_| None).collect());
        self.next_batch += 1;
        let (mut first, mut last) = (Vec::new(), Vec::new());
        for (index, Item { kind, expected, edit }) in items.into_iter().enumerate() {
            let key = match &edit {
                Edit::Put(row) => row.head.key.clone(),
                Edit::Delete(key) => key.clone(),
            };
            let quiet = self.kind(kind).is_some_and(|kind| is_memory(kind.name, &key));
            let job = Job {
                batch,
                index,
                kind,
                key,
                expected,
                edit,
                backoff: pace::backoff(),
                overtaken: 0,
                uncertain: false,
                renamed: false,
                quiet,
                troubled: false,
            };
            if quiet { last.push(job) } else { first.push(job) }
        }
        self.jobs += first.len() + last.len();
        let left = first.len();
        let state = Batch { waiting, outcomes, left, last, durable: false };
        self.batches.insert(batch, state);
        first.into_iter().for_each(|job| self.queue(job));
        if left == 0 {
            self.through(batch);
        }
    }

    fn kind(&self, id: KindId) -> Option<&Kind> {
        self.kinds.get(id.index())
    }

    /// A job waits for those before it that are about the same.
    fn queue(&mut self, job: Job) {
        match self.busy.get_mut(&(job.kind, job.key.clone())) {
            Some(others) => others.push_back(job),
            None => {
                self.busy.insert((job.kind, job.key.clone()), VecDeque::new());
                self.due.push_back(job);
            }
        }
    }

    /// Begins with all that can begin.
    fn begin(&mut self) {
        loop {
            if let Some(job) = self.due.pop_front() {
                self.step(job);
            } else if self.pace.is_free()
                && let Some(job) = self.ready.pop_front()
            {
                self.step(job);
            } else {
                return;
            }
        }
    }

    fn step(&mut self, job: Job) {
        let Some(kind) = self.kinds.get(job.kind.index()) else {
            let reason = "there is no such kind".into();
            return self.finish(job, Outcome::Refused { reason });
        };
        match job.decide(&mut self.cluster, kind, self.clock.now()) {
            Step::Finish(outcome) => self.finish(job, outcome),
            Step::Show(edit) => {
                self.cluster.apply(vec![(job.kind, edit)]);
                self.finish(job, Outcome::Done);
            }
            Step::Ask(ask) if self.pace.is_free() => self.ask(job, ask),
            // Decided anew when there is room.
            Step::Ask(_) => self.ready.push_back(job),
        }
    }

    fn ask(&mut self, job: Job, ask: Ask) {
        let Some(shelf) = self.cluster.shelf(job.kind) else { return };
        let (client, api) = (self.client.clone(), shelf.place.api.clone());
        let metrics = self.metrics.clone();
        self.pace.started();
        let request = async move {
            let answer = ask.send(client, &api, &metrics).await;
            Landed { job, ask, answer }
        };
        self.under_way.push(request.boxed());
    }

    fn landed(&mut self, Landed { job, ask, answer }: Landed) {
        let failure = match answer {
            Ok(answer) => {
                self.pace.answered();
                return self.done(job, &ask, answer);
            }
            Err(failure) => failure,
        };
        match ask.judge(&failure) {
            Verdict::Refused(reason) => {
                self.pace.answered();
                self.finish(job, Outcome::Refused { reason: reason.into() });
            }
            Verdict::Overtaken => {
                self.pace.answered();
                self.overtaken(job, &ask);
            }
            Verdict::Absent => {
                self.pace.answered();
                self.absent(job, &ask);
            }
            Verdict::Later => {
                self.pace.failed();
                let job = self.in_trouble(job, &failure);
                self.rest(job);
            }
            Verdict::Away(wish) => {
                self.pace.is_away(wish);
                let job = self.in_trouble(job, &failure);
                self.ready.push_front(job);
            }
        }
    }

    /// The API server did it.
    fn done(&mut self, mut job: Job, ask: &Ask, answer: Answer) {
        match (ask, answer) {
            (Ask::Create { write, .. } | Ask::Replace { write, .. }, Answer::Object(object)) => {
                let outcome = self.wrote(&job, write, &object);
                self.finish(job, outcome);
            }
            (Ask::Delete { at, uid, .. }, Answer::Deleted | Answer::Object(_)) => {
                let edits = self.cluster.shelf(job.kind).map(|shelf| shelf.deleted(at, uid));
                self.cluster.apply(edits.unwrap_or_default());
                self.finish(job, Outcome::Done);
            }
            (Ask::Read { at, .. }, Answer::Object(object)) => {
                let Some(shelf) = self.cluster.shelf(job.kind) else { return };
                let ours = shelf.place.is_ours(&object);
                let edits = if ours { shelf.written(&object) } else { Vec::new() };
                let same = ours && shelf.place.key(&object).is_ok_and(|key| key == job.key);
                self.cluster.apply(edits);
                if same {
                    return self.again(job);
                }
                if job.renamed {
                    let reason = format!("{at} is the name of another object").into();
                    return self.finish(job, Outcome::Refused { reason });
                }
                job.renamed = true;
                self.again(job);
            }
            (Ask::Create { .. } | Ask::Replace { .. } | Ask::Read { .. }, Answer::Deleted) => {
                self.again(job)
            }
        }
    }

    /// Shows what was written as the API server has it.
    fn wrote(&mut self, job: &Job, write: &Write, object: &DynamicObject) -> Outcome {
        let at = |object: &DynamicObject| object.metadata.resource_version.clone();
        let Some(shelf) = self.cluster.shelf(job.kind) else { return Outcome::Done };
        let edits = shelf.written(object);
        let lost =
            lost(&shelf.place.content(&write.object.data), &shelf.place.content(&object.data));
        let silent = edits.is_empty() && at(object) == at(&write.object);
        self.cluster.apply(edits);
        if let Some(field) = lost
            && self.older.insert(job.kind)
        {
            let kind = self.kind(job.kind).map_or("", |kind| kind.name);
            warn!(
                kind,
                field,
                "the definition of the kind is older, and loses fields: `atoll install crds` renews it"
            );
        }
        let wanted = &write.row.head;
        let shown = self.cluster.reader.get(job.kind, &job.key);
        if let Some(shown) = shown.filter(|shown| shown.head.version == wanted.version)
            && shown.head.audience != wanted.audience
        {
            let shown = shown.shown_to(wanted.audience.clone());
            self.cluster.apply(vec![(job.kind, Edit::Put(shown.into()))]);
        }
        if let (Edit::Put(row), Some(version)) = (&job.edit, at(object))
            && let Some(shelf) = self.cluster.shelf(job.kind)
        {
            let asked = (row.head.version, row.head.audience.clone());
            shelf.asked(&job.key, Some((asked, version.into())));
        }
        if silent && !job.uncertain { Outcome::Unchanged } else { Outcome::Done }
    }

    /// Somebody else wrote the object: what it is now decides.
    fn overtaken(&mut self, mut job: Job, ask: &Ask) {
        self.metrics.retries.inc();
        job.overtaken += 1;
        let (at, uid) = match ask {
            Ask::Create { at, .. } => (at, String::new()),
            Ask::Replace { at, write } => {
                (at, write.object.metadata.uid.clone().unwrap_or_default())
            }
            Ask::Delete { at, uid, .. } | Ask::Read { at, uid } => (at, uid.clone()),
        };
        self.ask(job, Ask::Read { at: at.clone(), uid });
    }

    /// There is no object where one was.
    fn absent(&mut self, job: Job, ask: &Ask) {
        let uid = match ask {
            Ask::Replace { write, .. } => write.object.metadata.uid.as_deref().unwrap_or_default(),
            Ask::Delete { uid, .. } | Ask::Read { uid, .. } => uid,
            Ask::Create { .. } => "",
        };
        let edits = self.cluster.shelf(job.kind).map(|shelf| shelf.deleted(ask.at(), uid));
        self.cluster.apply(edits.unwrap_or_default());
        self.again(job);
    }

    /// Decides anew; not at once if others were faster again and again.
    fn again(&mut self, job: Job) {
        if job.overtaken > PATIENT { self.rest(job) } else { self.due.push_back(job) }
    }

    fn rest(&mut self, mut job: Job) {
        let until = Instant::now() + job.backoff.next(fastrand::f64());
        self.resting.push(
            async move {
                sleep_until(until).await;
                job
            }
            .boxed(),
        );
    }

    fn in_trouble(&mut self, mut job: Job, failure: &Failure) -> Job {
        self.metrics.retries.inc();
        job.uncertain = true;
        if !std::mem::replace(&mut job.troubled, true) {
            self.troubled += 1;
            if self.troubled == 1 {
                let error = request::told(failure);
                warn!(key = %job.key, error, "the API server cannot write now, it is asked again");
            }
        }
        job
    }

    /// What became of an item is known.
    fn finish(&mut self, job: Job, outcome: Outcome) {
        self.jobs -= 1;
        if job.troubled {
            self.troubled -= 1;
            if self.troubled == 0 {
                info!("the API server wrote all that it could not before");
            }
        }
        let here = (job.kind, job.key);
        match self.busy.get_mut(&here).and_then(VecDeque::pop_front) {
            Some(next) => self.due.push_back(next),
            None => drop(self.busy.remove(&here)),
        }
        let durable = outcome == Outcome::Done && self.cluster.shelf(job.kind).is_some();
        let Some(batch) = self.batches.get_mut(&job.batch) else { return };
        batch.durable |= durable;
        batch.left -= 1;
        if let Some(place) = batch.outcomes.get_mut(job.index) {
            *place = Some(outcome);
        }
        if batch.left == 0 {
            self.through(job.batch);
        }
    }

    /// All of a batch but what comes last is done, or all.
    fn through(&mut self, id: u64) {
        let Some(batch) = self.batches.get_mut(&id) else { return };
        if !batch.last.is_empty() {
            let (last, durable) = (std::mem::take(&mut batch.last), batch.durable);
            batch.left = last.len();
            for job in last {
                self.queue(Job { quiet: !durable, ..job });
            }
            return;
        }
        let Some(Batch { waiting, outcomes, .. }) = self.batches.remove(&id) else { return };
        let revision = self.cluster.reader.revision();
        let outcomes = outcomes.into_iter().flatten().collect();
        waiting.answer(Ok(Committed { revision, outcomes }));
    }
}

/// The path of something that was written and is not there.
fn lost(written: &Value, there: &Value) -> Option<String> {
    let Value::Object(fields) = written else { return None };
    fields.iter().filter(|(_, value)| !value.is_null()).find_map(|(name, value)| {
        let Some(there) = there.get(name) else { return Some(name.clone()) };
        lost(value, there).map(|path| format!("{name}.{path}"))
    })
}
