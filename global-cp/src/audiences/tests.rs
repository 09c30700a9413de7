use super::*;
use daemon::Clock;
use jiff::Timestamp;
use kinds::{mesh_service, mesh_timeout};
use resource::{Labels, Peer};
use serde_json::{Value, json};
use std::time::Duration;
use store::{Kinds, Local, Memory};
use tokio::{task::JoinSet, time::timeout};

const PATIENCE: Duration = Duration::from_secs(60);

/// A store of global, and the one who decides about audiences.
struct Global {
    store: Local,
    author: Author,
    audiences: Audiences,
    ca: String,
    _tasks: JoinSet<()>,
}

impl Global {
    async fn new(allowed: &[AllowedTrust]) -> Self {
        let kinds = Kinds { list: kinds::all().collect(), peer: Peer::Zone };
        let clock = Clock::since("2026-11-24T12:00:00Z".parse::<Timestamp>().unwrap());
        let (store, writer) = store::open(Memory::new(1), kinds.clone(), clock.clone()).unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async { writer.run().await.unwrap() });
        let author = Author { kinds: Arc::new(kinds), place: Place::Global };
        let domain = identity::TrustDomain::new("shop.east.mesh.local").unwrap();
        let ca = identity::Authority::generate(&domain, clock.now()).unwrap();
        let audiences = Audiences::new(author.clone(), store.reader(), allowed.to_vec());
        let mut global =
            Self { store, author, audiences, ca: ca.certificate_pem().into(), _tasks: tasks };
        global.settle().await;
        global
    }

    /// Steps until nothing changes any more.
    async fn settle(&mut self) {
        let step = async |audiences: &mut Audiences, store: &Local| audiences.step(store).await;
        // In paused time a step that waits for changes gives up at once.
        while timeout(PATIENCE, step(&mut self.audiences, &self.store)).await.is_ok() {}
    }

    async fn write(&mut self, kind: Kind, key: ResourceKey, zone: Option<&str>, spec: Value) {
        self.label(kind, key, zone, &[], spec).await;
    }

    async fn label(
        &mut self,
        kind: Kind,
        key: ResourceKey,
        zone: Option<&str>,
        more: &[(&str, &str)],
        spec: Value,
    ) {
        let spec = kind.encode(&kind.from_json(spec).unwrap()).unwrap();
        let labels: Labels = match zone {
            None => [(label::ORIGIN, label::ORIGIN_GLOBAL)].into_iter().collect(),
            Some(zone) => {
                [(label::ORIGIN, label::ORIGIN_ZONE), (label::ZONE, zone)].into_iter().collect()
            }
        };
        let labels = labels.iter().chain(more.iter().copied()).collect();
        let row = kind.resource(key, labels, spec, "".into(), Peer::Zone).unwrap();
        let edit = Edit::Put(Arc::new(row));
        let item = Item { kind: self.author.id(kind), expected: Expected::Anything, edit };
        self.store.commit(vec![item]).await.unwrap();
        self.settle().await;
    }

    async fn identity(&mut self, zone: Option<&str>, template: Option<&str>) {
        let spec = match template {
            None => json!({}),
            Some(template) => json!({"spiffeID": {"trustDomain": template}}),
        };
        let name = zone.map_or_else(|| "identity".into(), |zone| format!("identity-{zone}"));
        self.write(mesh_identity::KIND, in_shop(&name), zone, spec).await;
    }

    async fn trust(&mut self, zone: &str, name: &str, domain: &str) {
        let ca = json!([{"type": "Pem", "pem": {"value": self.ca}}]);
        let spec = json!({"trustDomain": domain, "caBundles": ca});
        self.write(mesh_trust::KIND, in_shop(name), Some(zone), spec).await;
    }

    async fn zone(&mut self, name: &str, enabled: bool) {
        let spec = json!({"enabled": enabled});
        self.write(zone::KIND, ResourceKey::global(name), None, spec).await;
    }

    async fn service(&mut self, zone: &str, name: &str) {
        let spec = json!({"selector": {}, "ports": [{"port": 80}]});
        self.write(mesh_service::KIND, in_shop(name), Some(zone), spec).await;
    }

    fn row(&self, kind: Kind, name: &str) -> Arc<Resource> {
        self.author.get(&self.store.reader(), kind, &in_shop(name)).unwrap()
    }

    fn is_shown(&self, kind: Kind, name: &str) -> bool {
        let audience = &self.row(kind, name).head.audience;
        assert!(audience.owner.is_some(), "its zone is not told what it said");
        !audience.hidden
    }

    /// Why a MeshTrust is not relayed; empty if it is.
    fn reason(&self, name: &str) -> String {
        let row = self.row(mesh_trust::KIND, name);
        let status = kinds::status::<MeshTrust>(&row).unwrap();
        let reasons: Vec<String> =
            status.conditions.into_iter().map(|condition| condition.reason).collect();
        assert_eq!(reasons.is_empty(), self.is_shown(mesh_trust::KIND, name));
        reasons.join(" ")
    }
}

fn in_shop(name: &str) -> ResourceKey {
    ResourceKey::in_mesh(&MeshName::new("shop").unwrap(), name)
}

#[tokio::test(start_paused = true)]
async fn trust_reaches_the_other_zones_by_itself() {
    let mut global = Global::new(&[]).await;
    global.trust("east", "t", "shop.east.mesh.local").await;
    assert_eq!(global.reason("t"), "ForeignTrustDomain", "nothing says whose it is");
    global.identity(None, None).await;
    assert_eq!(global.reason("t"), "");
    global.trust("west", "u", "shop.west.mesh.local").await;
    assert_eq!(global.reason("u"), "");
    assert_eq!(global.row(mesh_trust::KIND, "u").status, "", "the zone's own status is left alone");
}

#[tokio::test(start_paused = true)]
async fn a_zone_cannot_vouch_for_another() {
    let mut global = Global::new(&[]).await;
    global.identity(None, None).await;
    global.trust("west", "evil", "shop.east.mesh.local").await;
    assert_eq!(global.reason("evil"), "ForeignTrustDomain");
    // Nor by an identity that it wrote itself.
    global.identity(Some("west"), Some("shop.east.mesh.local")).await;
    assert_eq!(global.reason("evil"), "ForeignTrustDomain");
    global.trust("east", "good", "shop.east.mesh.local").await;
    assert_eq!(
        (global.reason("good"), global.reason("evil")),
        (String::new(), "ForeignTrustDomain".into())
    );
}

#[tokio::test(start_paused = true)]
async fn a_trust_domain_that_another_zone_has_waits_until_it_is_free() {
    let allowed = |zone: &str| AllowedTrust {
        zone: zone.into(),
        mesh: "shop".into(),
        trust_domain: "example.org".into(),
    };
    let mut global = Global::new(&[allowed("east"), allowed("west")]).await;
    global.trust("east", "first", "example.org").await;
    tokio::time::advance(Duration::from_secs(1)).await;
    global.trust("west", "second", "example.org").await;
    assert_eq!(
        (global.reason("first"), global.reason("second")),
        (String::new(), "TrustDomainTaken".into())
    );
    let delete = global.author.delete(mesh_trust::KIND, in_shop("first"));
    global.store.commit(vec![delete]).await.unwrap();
    global.settle().await;
    assert_eq!(global.reason("second"), "");
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_disabled_zone_reaches_others() {
    let mut global = Global::new(&[]).await;
    global.identity(None, None).await;
    global.zone("east", true).await;
    global.trust("east", "t", "shop.east.mesh.local").await;
    global.service("east", "cart").await;
    global.service("west", "web").await;
    let shown = |global: &Global| {
        [
            global.is_shown(mesh_trust::KIND, "t"),
            global.is_shown(mesh_service::KIND, "cart"),
            global.is_shown(mesh_service::KIND, "web"),
        ]
    };
    assert_eq!(shown(&global), [true, true, true]);
    global.zone("east", false).await;
    assert_eq!(shown(&global), [false, false, true]);
    // What it writes now is hidden too.
    global.service("east", "late").await;
    assert!(!global.is_shown(mesh_service::KIND, "late"));
    global.zone("east", true).await;
    assert_eq!(shown(&global), [true, true, true]);
    assert!(global.is_shown(mesh_service::KIND, "late"));
}

#[tokio::test(start_paused = true)]
async fn a_change_that_concerns_nobody_else_writes_nothing() {
    let mut global = Global::new(&[]).await;
    global.identity(None, None).await;
    for zone in ["east", "west"] {
        let domain = format!("shop.{zone}.mesh.local");
        global.trust(zone, &format!("of-{zone}"), &domain).await;
    }
    let before = global.row(mesh_trust::KIND, "of-west");
    global.service("east", "cart").await;
    let revision = global.store.reader().revision();
    global.zone("north", true).await;
    assert_eq!(global.store.reader().revision().0, revision.0 + 1, "only the Zone was written");
    assert!(Arc::ptr_eq(&before, &global.row(mesh_trust::KIND, "of-west")));
}

#[tokio::test(start_paused = true)]
async fn a_zone_that_changes_its_ca_is_not_taken_from_the_others_meanwhile() {
    use kds::{
        apply::{Batch, Named, Names, Received, Sender, Visibility, Who, apply},
        dialect::Dialect,
    };
    let mut global = Global::new(&[]).await;
    global.identity(None, None).await;
    global.trust("east", "t", "shop.east.mesh.local").await;
    let stored = global.row(mesh_trust::KIND, "t");
    let sent = |domain: &str| {
        let ca = json!({"type": "Pem", "pem": {"value": global.ca}});
        let spec = json!({"trustDomain": domain, "caBundles": [ca, ca]}).to_string();
        let (key, labels) = (in_shop("t"), stored.head.labels.clone());
        let name = "t.shop".into();
        let received = Received { name, key, labels, spec: spec.into(), status: "".into() };
        let name = ZoneName::new("east").unwrap();
        let (visibility, names) = (Visibility::Shown, Names::Hashed);
        let who = Who::Zone { name, visibility, names };
        let sender = Sender { who, dialect: Dialect::Plain };
        let id = global.author.id(mesh_trust::KIND);
        let (_, rows) = global.store.reader().rows(id);
        let response = Batch { upserts: &[Ok(received)], removals: &[], complete: None::<&Named> };
        let mut applied = apply((id, &mesh_trust::KIND), &sender, &rows, response);
        match applied.batch.remove(0).edit {
            Edit::Put(row) => row.head.audience.clone(),
            Edit::Delete(key) => panic!("{key} was deleted"),
        }
    };
    assert_eq!(sent("shop.east.mesh.local"), stored.head.audience);
    assert!(sent("shop.west.mesh.local").hidden, "another trust domain is judged first");
}

impl Global {
    async fn labelled(&mut self, zone: &str, labels: &[(&str, &str)]) {
        let spec = json!({"enabled": true});
        self.label(zone::KIND, ResourceKey::global(zone), None, labels, spec).await;
    }

    async fn policy(&mut self, name: &str, labels: &[(&str, &str)]) {
        let spec = json!({"targetRef": {"kind": "Mesh"}, "to": [{"targetRef": {"kind": "Mesh"},
            "default": {"connectionTimeout": "1s"}}]});
        self.label(mesh_timeout::KIND.kind, in_shop(name), None, labels, spec).await;
    }

    /// The zones that a policy is for; `None` if it is for all.
    fn only(&self, name: &str) -> Option<Vec<String>> {
        let row = self.row(mesh_timeout::KIND.kind, name);
        row.head.audience.only.as_ref().map(|zones| zones.iter().map(ToString::to_string).collect())
    }
}

fn zones(names: &[&str]) -> Option<Vec<String>> {
    Some(names.iter().map(|name| (*name).to_owned()).collect())
}

#[tokio::test(start_paused = true)]
async fn what_is_limited_is_for_the_zones_that_have_all_of_its_labels() {
    let mut global = Global::new(&[]).await;
    global.labelled("east", &[("stage", "canary"), ("region", "eu")]).await;
    global.labelled("west", &[("stage", "canary")]).await;
    global.labelled("north", &[("stage", "late")]).await;
    let (canary, eu) = (("zones.atoll.io/stage", "canary"), ("zones.atoll.io/region", "eu"));
    global.policy("all", &[("stage", "canary")]).await;
    global.policy("canary", &[canary]).await;
    global.policy("both", &[canary, eu]).await;
    global.policy("none", &[("zones.atoll.io/stage", "x")]).await;
    assert_eq!(
        ["all", "canary", "both", "none"].map(|name| global.only(name)),
        [None, zones(&["east", "west"]), zones(&["east"]), zones(&[])]
    );
    // What a zone writes is not limited by what it says.
    let spec = json!({"selector": {}, "ports": [{"port": 80}]});
    global.label(mesh_service::KIND, in_shop("cart"), Some("east"), &[canary], spec).await;
    assert!(global.is_shown(mesh_service::KIND, "cart"));
    assert_eq!(global.row(mesh_service::KIND, "cart").head.audience.only, None);
}

#[tokio::test(start_paused = true)]
async fn a_zone_that_is_labelled_otherwise_changes_what_is_limited_and_looks_at_nothing_else() {
    let mut global = Global::new(&[]).await;
    global.labelled("east", &[("stage", "canary")]).await;
    global.labelled("west", &[]).await;
    for i in 0..100 {
        global.policy(&format!("all-{i}"), &[]).await;
        global.service("east", &format!("service-{i}")).await;
    }
    global.policy("canary", &[("zones.atoll.io/stage", "canary")]).await;
    global.policy("late", &[("zones.atoll.io/stage", "late")]).await;
    let late = global.row(mesh_timeout::KIND.kind, "late");
    let revision = global.store.reader().revision();
    global.audiences.looks.set(0);

    global.labelled("west", &[("stage", "canary")]).await;
    assert_eq!(global.only("canary"), zones(&["east", "west"]));
    assert_eq!(global.store.reader().revision().0, revision.0 + 2, "the Zone, and one row");
    // The row comes again because it was written.
    assert_eq!(global.audiences.looks.get(), 2);
    assert!(Arc::ptr_eq(&late, &global.row(mesh_timeout::KIND.kind, "late")));

    global.labelled("east", &[("stage", "late")]).await;
    assert_eq!((global.only("canary"), global.only("late")), (zones(&["west"]), zones(&["east"])));
    let delete = global.author.delete(zone::KIND, ResourceKey::global("west"));
    global.store.commit(vec![delete]).await.unwrap();
    global.settle().await;
    assert_eq!(global.only("canary"), zones(&[]));
    // What is not limited any more is for all at once.
    global.policy("canary", &[]).await;
    assert_eq!(global.only("canary"), None);
    global.audiences.looks.set(0);
    global.labelled("east", &[("stage", "canary")]).await;
    assert_eq!(global.audiences.looks.get(), 2, "late, before and after");
}
