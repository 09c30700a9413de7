//! Which of several control planes of a zone works: the one that holds a Lease.
//!
//! Whether another one still holds it is judged by when we saw it renewed, not by the times that it
//! wrote: clocks differ. Who holds it stops working before the others may begin.

use daemon::{Clock, Repeats, config::Problems};
use k8s_openapi::{
    api::coordination::v1::{Lease as Object, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout_at};

/// The section `kubernetes.lease`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Config {
    /// The name of the Lease.
    pub name: String,
    /// How long the others wait for who does not renew it.
    #[serde(with = "daemon::duration")]
    pub duration: Duration,
    /// How long who holds it tries to renew it before it stops working.
    #[serde(with = "daemon::duration")]
    pub renew_deadline: Duration,
    /// How often it is renewed, or asked for.
    #[serde(with = "daemon::duration")]
    pub retry_period: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "cp-leader-lease".into(),
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

impl Config {
    /// Adds every broken rule.
    pub fn check(&self, problems: &mut Problems) {
        if let Err(error) = resource::NameRule::Subdomain.check(&self.name) {
            problems.add("name", error);
        }
        if self.duration < Duration::from_secs(1) {
            problems.add("duration", "must be at least 1s");
        }
        if self.renew_deadline >= self.duration {
            problems.add("renewDeadline", "must be shorter than duration");
        }
        if self.retry_period.is_zero() || self.retry_period >= self.renew_deadline {
            problems.add("retryPeriod", "must be longer than 0s and shorter than renewDeadline");
        }
    }
}

/// A Lease that may be held.
#[derive(Clone)]
pub struct Lease {
    client: Client,
    namespace: String,
    /// Names this process.
    identity: String,
    config: Config,
    clock: Clock,
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { namespace, identity, config, .. } = self;
        let mut shown = f.debug_struct("Lease");
        shown.field("namespace", namespace).field("identity", identity).field("config", config);
        shown.finish_non_exhaustive()
    }
}

/// It is held, as long as it is renewed: by [`Held::lost`].
#[derive(Debug)]
pub struct Held {
    lease: Lease,
    /// As it was written last.
    object: Object,
    renewed: Instant,
}

/// It is not held any more, or may not be.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// Another process has it.
    #[error("the Lease {name} was taken by {holder}")]
    Taken {
        /// The Lease.
        name: String,
        /// Who has it.
        holder: String,
    },
    /// It could not be renewed in time.
    #[error("the Lease {name} was not renewed for {}", daemon::duration::print(*.waited))]
    Late {
        /// The Lease.
        name: String,
        /// For how long.
        waited: Duration,
        /// The last reason, if the server gave any.
        #[source]
        reason: Option<kube::Error>,
    },
}

/// What somebody else did with it, and when that was seen.
struct Seen {
    spec: LeaseSpec,
    at: Instant,
}

impl Lease {
    /// The Lease in `namespace` for the process called `identity`.
    #[must_use]
    pub const fn new(
        client: Client,
        namespace: String,
        identity: String,
        config: Config,
        clock: Clock,
    ) -> Self {
        Self { client, namespace, identity, config, clock }
    }

    /// Waits until this process holds it. A server that is away is asked again. `stands_by` is told
    /// who holds it meanwhile, each time that was seen.
    pub async fn acquire(self, mut stands_by: impl FnMut(&str)) -> Held {
        let (mut seen, repeats) = (None, Repeats::default());
        loop {
            let began = Instant::now();
            let tried = timeout_at(began + self.config.renew_deadline, self.attempt(&mut seen));
            match tried.await {
                Ok(Ok(Some(object))) => {
                    tracing::info!(lease = self.config.name, "this control plane works");
                    // By when it was asked for, which is before it was granted.
                    return Held { lease: self, object, renewed: began };
                }
                Ok(Ok(None)) => {
                    let holder = seen.as_ref().and_then(|seen| seen.spec.holder_identity.clone());
                    stands_by(holder.as_deref().unwrap_or_default());
                    if repeats.say(&holder) == Some(0) {
                        let lease = &self.config.name;
                        tracing::info!(lease, holder, "another control plane works: standing by");
                    }
                }
                Ok(Err(error)) => {
                    if let Some(unsaid) = repeats.say("error") {
                        let error = &error as &(dyn std::error::Error + 'static);
                        tracing::warn!(lease = self.config.name, error, unsaid, "no answer");
                    }
                }
                Err(_elapsed) => {
                    if let Some(unsaid) = repeats.say("late") {
                        tracing::warn!(lease = self.config.name, unsaid, "no answer in time");
                    }
                }
            }
            let jitter = self.config.retry_period.mul_f64(0.2 * fastrand::f64());
            sleep_until(began + self.config.retry_period + jitter).await;
        }
    }

    fn api(&self) -> Api<Object> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Takes it if nobody has it, or whoever had it was not seen for too long.
    async fn attempt(&self, seen: &mut Option<Seen>) -> Result<Option<Object>, kube::Error> {
        let api = self.api();
        let Some(mut object) = api.get_opt(&self.config.name).await? else {
            // Whoever has it does not know yet that somebody took it away.
            let waits =
                seen.as_ref().is_some_and(|seen| !self.is_free(&seen.spec, seen.at.elapsed()));
            return if waits { Ok(None) } else { self.create(None).await };
        };
        let spec = object.spec.take().unwrap_or_default();
        let now = Instant::now();
        if seen.as_ref().is_none_or(|seen| seen.spec != spec) {
            *seen = Some(Seen { spec: spec.clone(), at: now });
        }
        let at = seen.as_ref().map_or(now, |seen| seen.at);
        if self.is_free(&spec, now.duration_since(at)) {
            object.spec = Some(self.taken(Some(&spec)));
            return taken(api.replace(&self.config.name, &PostParams::default(), &object).await);
        }
        Ok(None)
    }

    /// Makes it, unless somebody is faster.
    async fn create(&self, before: Option<&LeaseSpec>) -> Result<Option<Object>, kube::Error> {
        let metadata = ObjectMeta { name: Some(self.config.name.clone()), ..ObjectMeta::default() };
        let object = Object { metadata, spec: Some(self.taken(before)) };
        taken(self.api().create(&PostParams::default(), &object).await)
    }

    /// Whether it may be taken, if it has been like this for `unchanged`.
    fn is_free(&self, spec: &LeaseSpec, unchanged: Duration) -> bool {
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let duration = seconds.map_or(self.config.duration, Duration::from_secs);
        holder.is_empty() || holder == self.identity || unchanged > duration
    }

    /// As it is when this process takes it from who had it `before`, or goes on.
    fn taken(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(self.clock.now());
        let ours = before.filter(|it| it.holder_identity.as_ref() == Some(&self.identity));
        let transitions = before.and_then(|it| it.lease_transitions).unwrap_or_default();
        let seconds = self.config.duration.as_secs().max(1);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(seconds).ok(),
            acquire_time: ours.and_then(|it| it.acquire_time.clone()).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: match (before, ours) {
                (Some(_), None) => Some(transitions.saturating_add(1)),
                _ => Some(transitions),
            },
            ..LeaseSpec::default()
        }
    }
}

/// Whether a write took it. A conflict means that somebody else was faster.
fn taken(written: Result<Object, kube::Error>) -> Result<Option<Object>, kube::Error> {
    match written {
        Ok(object) => Ok(Some(object)),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
        Err(error) => Err(error),
    }
}

impl Held {
    /// Renews it until that fails for too long or another process has it: then this process must not
    /// work on. May be called again after it was dropped.
    pub async fn lost(&mut self) -> Lost {
        let config = self.lease.config.clone();
        let mut reason = None;
        loop {
            let deadline = self.renewed + config.renew_deadline;
            let next = (Instant::now() + config.retry_period).min(deadline);
            sleep_until(next).await;
            let began = Instant::now();
            match timeout_at(deadline, self.renew()).await {
                Ok(Ok(None)) => (self.renewed, reason) = (began, None),
                Ok(Ok(Some(holder))) => return Lost::Taken { name: config.name, holder },
                Ok(Err(error)) => reason = Some(error),
                Err(_elapsed) => {}
            }
            if Instant::now() >= self.renewed + config.renew_deadline {
                let waited = self.renewed.elapsed();
                return Lost::Late { name: config.name, waited, reason };
            }
        }
    }

    /// Renews it once. Returns who has it, if that is another process.
    async fn renew(&mut self) -> Result<Option<String>, kube::Error> {
        let (lease, api) = (&self.lease, self.lease.api());
        loop {
            let mut object = self.object.clone();
            object.spec = Some(lease.taken(self.object.spec.as_ref()));
            let params = PostParams::default();
            let written = match api.replace(&lease.config.name, &params, &object).await {
                Err(kube::Error::Api(status)) if status.code == 404 => None,
                written => taken(written)?,
            };
            if let Some(object) = written {
                self.object = object;
                return Ok(None);
            }
            let Some(object) = api.get_opt(&lease.config.name).await? else {
                // Somebody took it away; who stands by waits as if it were there.
                let before = self.object.spec.clone();
                if let Some(object) = lease.create(before.as_ref()).await? {
                    self.object = object;
                    return Ok(None);
                }
                continue;
            };
            // Somebody wrote it, which need not be one that holds it.
            self.object = object;
            let spec = self.object.spec.as_ref();
            let holder = spec.and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
            if holder != lease.identity {
                return Ok(Some(holder));
            }
        }
    }

    /// Gives it up, so that another process need not wait. One that is not there any more, or is
    /// another's, is left alone.
    pub async fn release(self) -> Result<(), kube::Error> {
        let (lease, api) = (&self.lease, self.lease.api());
        let mut object = api.get(&lease.config.name).await?;
        let spec = object.spec.take().unwrap_or_default();
        if spec.holder_identity.as_ref() != Some(&lease.identity) {
            return Ok(());
        }
        let spec = LeaseSpec { holder_identity: Some(String::new()), ..lease.taken(Some(&spec)) };
        object.spec = Some(spec);
        api.replace(&lease.config.name, &PostParams::default(), &object).await?;
        tracing::info!(lease = lease.config.name, "given up");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;
    use jiff::{SignedDuration, Timestamp};
    use serde_json::Value;
    use tokio::{task::JoinSet, time::timeout};

    const URL: &str = "/apis/coordination.k8s.io/v1/namespaces/kuma-system/leases/cp-leader-lease";

    /// The Lease as `identity` sees it, whose clock is `ahead`.
    fn lease(fake: &Fake, identity: &str, ahead: SignedDuration) -> Lease {
        let clock = Clock::since(Timestamp::UNIX_EPOCH + ahead);
        let namespace = "kuma-system".to_owned();
        Lease::new(fake.client(), namespace, identity.into(), Config::default(), clock)
    }

    fn holder(fake: &Fake) -> Value {
        fake.object(URL).unwrap().pointer("/spec/holderIdentity").unwrap().clone()
    }

    async fn acquired(lease: Lease) -> Held {
        timeout(Duration::from_secs(60), lease.acquire(|_| {})).await.expect("nobody else has it")
    }

    #[tokio::test(start_paused = true)]
    async fn one_works_and_the_other_takes_over_when_it_is_given_up() {
        let fake = Fake::new();
        let none = SignedDuration::ZERO;
        let mut first = acquired(lease(&fake, "first", none)).await;
        let mut others = JoinSet::new();
        others.spawn(lease(&fake, "second", none).acquire(|_| {}));
        let minutes = timeout(Duration::from_secs(300), first.lost()).await;
        assert!(minutes.is_err(), "it is lost");
        assert!(others.try_join_next().is_none());
        assert_eq!(holder(&fake), "first");
        first.release().await.unwrap();
        let began = Instant::now();
        others.join_next().await.unwrap().unwrap();
        assert_eq!(holder(&fake), "second");
        assert!(began.elapsed() < Duration::from_secs(3), "it waited for {:?}", began.elapsed());
        let transitions = fake.object(URL).unwrap()["spec"]["leaseTransitions"].clone();
        assert_eq!(transitions, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_vanished_is_waited_for_whatever_its_clock_said() {
        for ahead in [-3600, 0, 3600].map(SignedDuration::from_secs) {
            let fake = Fake::new();
            drop(acquired(lease(&fake, "first", ahead)).await);
            let began = Instant::now();
            acquired(lease(&fake, "second", SignedDuration::ZERO)).await;
            let waited = began.elapsed();
            let range = Duration::from_secs(15)..Duration::from_secs(20);
            assert!(range.contains(&waited), "it waited for {waited:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_cannot_renew_it_stops_before_another_begins() {
        let fake = Fake::new();
        let mut first = acquired(lease(&fake, "first", SignedDuration::ZERO)).await;
        let renewed = Instant::now();
        fake.set_down(true);
        let lost = timeout(Duration::from_secs(60), first.lost()).await.unwrap();
        assert!(matches!(lost, Lost::Late { .. }), "{lost}");
        assert!(renewed.elapsed() <= Duration::from_secs(11), "{:?}", renewed.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_robbed_notices() {
        let fake = Fake::new();
        let mut first = acquired(lease(&fake, "first", SignedDuration::ZERO)).await;
        fake.edit(URL, |object| object["spec"]["holderIdentity"] = "thief".into());
        let lost = timeout(Duration::from_secs(60), first.lost()).await.unwrap();
        assert_eq!(lost.to_string(), "the Lease cp-leader-lease was taken by thief");
        // What is another's is not given up.
        first.release().await.unwrap();
        assert_eq!(holder(&fake), "thief");
    }

    #[tokio::test(start_paused = true)]
    async fn who_works_makes_a_lease_anew_that_somebody_took_away() {
        let fake = Fake::new();
        let none = SignedDuration::ZERO;
        let mut first = acquired(lease(&fake, "first", none)).await;
        let mut others = JoinSet::new();
        others.spawn(lease(&fake, "second", none).acquire(|_| {}));
        let disturb = async {
            for _ in 0..20 {
                sleep_until(Instant::now() + Duration::from_millis(2300)).await;
                fake.delete(&fake.object(URL).unwrap());
            }
            sleep_until(Instant::now() + Duration::from_secs(3)).await;
        };
        tokio::select! {
            lost = first.lost() => panic!("{lost}"),
            () = disturb => {}
        }
        assert!(others.try_join_next().is_none(), "both work");
        assert_eq!(holder(&fake), "first");
        // One that vanished does not; then the other one waits, and no longer.
        drop(first);
        let began = Instant::now();
        fake.delete(&fake.object(URL).unwrap());
        timeout(Duration::from_secs(60), others.join_next()).await.unwrap();
        let waited = began.elapsed();
        let range = Duration::from_secs(10)..Duration::from_secs(20);
        assert!(range.contains(&waited), "it waited for {waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_outage_and_a_foreign_annotation_are_no_loss() {
        let fake = Fake::new();
        let mut first = acquired(lease(&fake, "first", SignedDuration::ZERO)).await;
        let disturb = async {
            sleep_until(Instant::now() + Duration::from_secs(5)).await;
            fake.set_down(true);
            sleep_until(Instant::now() + Duration::from_secs(6)).await;
            fake.set_down(false);
            fake.edit(URL, |object| {
                object["metadata"]["annotations"] = serde_json::json!({"a": "b"})
            });
            sleep_until(Instant::now() + Duration::from_secs(60)).await;
        };
        tokio::select! {
            lost = first.lost() => panic!("{lost}"),
            () = disturb => {}
        }
        assert_eq!(fake.object(URL).unwrap()["metadata"]["annotations"]["a"], "b");
    }

    #[test]
    fn times_that_contradict_each_other_are_refused() {
        let mut config = Config::default();
        (config.renew_deadline, config.retry_period) = (config.duration, config.duration);
        config.name = "A".into();
        let mut problems = Problems::default();
        config.check(&mut problems);
        let found: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), 3, "{found:?}");
    }
}
