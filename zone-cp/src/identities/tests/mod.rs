mod changes;
mod spire;
mod trust;

use super::*;
use crate::generate::Trust;
use daemon::Clock;
use identity::{Authority, SpiffeId, TrustDomain};
use jiff::Timestamp;
use kinds::{
    Condition,
    labels::{Env, Place, own},
    mesh, mesh_identity, mesh_trust, secret,
};
use parking_lot::Mutex;
use resource::{Kind, Labels, MeshName, Peer, Resource, ResourceKey, ZoneName, label};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use store::{
    Backend, Committed, Expected, Item, Kinds, Local, Memory as Journal, Outcome, StoreError,
    view::{Edit, KindSet, Reader, Revision},
};
use tokio::{sync::watch, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

/// Virtual time; longer than anything takes but a certificate.
const PATIENCE: Duration = Duration::from_secs(10);

const BUNDLED: &str = r#"{
    "selector": {"dataplane": {"matchLabels": {}}},
    "provider": {"type": "Bundled", "bundled": {"autogenerate": {"enabled": true}}}
}"#;

fn start() -> Timestamp {
    "2030-05-01T12:00:00Z".parse().unwrap()
}

fn shop() -> MeshName {
    MeshName::new("shop").unwrap()
}

fn zone(name: &str) -> ZoneName {
    ZoneName::new(name).unwrap()
}

fn domain(name: &str) -> TrustDomain {
    TrustDomain::new(name).unwrap()
}

fn proxy(name: &str) -> ResourceKey {
    ResourceKey::in_mesh(&shop(), name)
}

fn workload(name: &str) -> Labels {
    Labels::from_iter([(label::WORKLOAD, name)])
}

fn kinds() -> Kinds {
    Kinds { list: kinds::all().collect(), peer: Peer::Global }
}

fn secret(name: &str, text: &str) -> Edit {
    let secret = Arc::new(secret::Secret::of(text)) as _;
    let bytes = secret::KIND.encode(&secret).unwrap();
    let labels = Labels::from_iter([(label::ORIGIN, label::ORIGIN_ZONE)]);
    let resource = secret::KIND.resource(proxy(name), labels, bytes, "".into(), Peer::Global);
    Edit::Put(Arc::new(resource.unwrap()))
}

/// A store where somebody else may be faster.
struct Racing {
    store: Local,
    kinds: Kinds,
    secret: Mutex<Option<&'static str>>,
}

impl Backend for Racing {
    async fn commit(&self, batch: Vec<Item>) -> Result<Committed, StoreError> {
        let name = self.secret.lock().take();
        if let Some(name) = name {
            let kind = self.kinds.id_of("Secret").unwrap();
            let edit = secret(name, "somebody else's");
            self.store.commit(vec![Item { kind, expected: Expected::Nothing, edit }]).await?;
        }
        self.store.commit(batch).await
    }

    async fn wait_for(&self, revision: Revision) -> Result<(), StoreError> {
        self.store.wait_for(revision).await
    }

    fn reader(&self) -> Reader {
        self.store.reader()
    }

    fn epoch(&self) -> u64 {
        self.store.epoch()
    }
}

/// A zone called east, with a store and the task under test.
struct East {
    store: Local,
    kinds: Kinds,
    issuer: Issuer,
    changes: Changes,
    _tasks: JoinSet<()>,
}

impl East {
    /// What a proxy without a SPIRE agent has.
    fn svid(&self, proxy: &ResourceKey, labels: &Labels) -> Result<Arc<Issued>, NoSvid> {
        self.issuer.issue(proxy, labels, false)
    }

    async fn new() -> Self {
        Self::interfered(None).await
    }

    /// Somebody else writes the Secret of this name just before the first commit of the task.
    async fn interfered(secret: Option<&'static str>) -> Self {
        Self::of(secret, None).await
    }

    async fn of(
        secret: Option<&'static str>,
        global: Option<watch::Receiver<kds::zone::State>>,
    ) -> Self {
        let clock = Clock::since(start());
        let kinds = kinds();
        let (store, writer) = store::open(Journal::new(1), kinds.clone(), clock.clone()).unwrap();
        let (issuer, changes) = Issuer::new(clock.clone());
        let racing =
            Racing { store: store.clone(), kinds: kinds.clone(), secret: Mutex::new(secret) };
        let identities =
            Identities::new(racing, &kinds, zone("east"), Env::Universal, issuer.clone(), clock);
        let mut tasks = JoinSet::new();
        tasks.spawn(async { writer.run().await.unwrap() });
        let identities = identities.unwrap().under(global);
        tasks.spawn(async { identities.run(CancellationToken::new()).await.unwrap() });
        let east = Self { store, kinds, issuer, changes, _tasks: tasks };
        east.put(mesh::KIND, ResourceKey::global("shop"), Labels::default(), json!({})).await;
        east
    }

    fn resource(&self, kind: Kind, key: ResourceKey, labels: Labels, spec: Value) -> Arc<Resource> {
        let spec = kind.from_json(spec).unwrap();
        let spec = kind.encode(&spec).unwrap();
        let before = self.get(kind, &key);
        let status = before.map(|before| before.status.clone()).unwrap_or_default();
        Arc::new(kind.resource(key, labels, spec, status, Peer::Global).unwrap())
    }

    async fn commit(&self, kind: Kind, edit: Edit) {
        let kind = self.kinds.id_of(kind.name).unwrap();
        let item = Item { kind, expected: Expected::Anything, edit };
        let committed = self.store.commit(vec![item]).await.unwrap();
        assert_ne!(committed.outcomes, [Outcome::Conflict { found: None }]);
    }

    async fn put(&self, kind: Kind, key: ResourceKey, labels: Labels, spec: Value) {
        self.commit(kind, Edit::Put(self.resource(kind, key, labels, spec))).await;
    }

    async fn delete(&self, kind: Kind, key: ResourceKey) {
        self.commit(kind, Edit::Delete(key)).await;
    }

    /// A MeshIdentity as it comes from global.
    async fn identity(&self, spec: &str) {
        let labels = [(label::DISPLAY_NAME, "identity"), (label::ORIGIN, label::ORIGIN_GLOBAL)];
        let spec = serde_json::from_str(spec).unwrap();
        self.put(mesh_identity::KIND, proxy("identity-x7"), labels.into_iter().collect(), spec)
            .await;
    }

    async fn secret(&self, name: &str, text: &str) {
        self.commit(secret::KIND, secret(name, text)).await;
    }

    fn get(&self, kind: Kind, key: &ResourceKey) -> Option<Arc<Resource>> {
        self.store.reader().get(self.kinds.id_of(kind.name).unwrap(), key)
    }

    fn text(&self, name: &str) -> Option<String> {
        let secret = self.get(secret::KIND, &proxy(name))?;
        let secret = kinds::read::<secret::Secret>(&secret).unwrap();
        Some(String::from_utf8(secret.data().to_vec()).unwrap())
    }

    fn trusts(&self) -> Option<mesh_trust::MeshTrust> {
        let trust = self.get(mesh_trust::KIND, &proxy("identity-x7"))?;
        Some((*kinds::read::<mesh_trust::MeshTrust>(&trust).unwrap()).clone())
    }

    fn conditions(&self) -> Vec<Condition> {
        let identity = self.get(mesh_identity::KIND, &proxy("identity-x7")).unwrap();
        kinds::status::<mesh_identity::MeshIdentity>(&identity).unwrap().conditions
    }

    /// Waits until `look` sees something.
    async fn until<T>(&self, look: impl Fn(&Self) -> Option<T>) -> T {
        let all = self.kinds.iter().fold(KindSet::default(), |all, (id, _)| all.with(id));
        let mut watch = self.store.reader().watch(all);
        let wait = async {
            loop {
                if let Some(seen) = look(self) {
                    return seen;
                }
                watch.dirty().await.unwrap();
            }
        };
        timeout(PATIENCE, wait).await.expect("it does not come to this")
    }

    async fn reported(&self, conditions: &[Condition]) {
        let same = |east: &Self| (east.conditions() == conditions).then_some(());
        let wait = timeout(PATIENCE, self.until(same));
        wait.await.unwrap_or_else(|_| panic!("{:?}", self.conditions()));
    }

    async fn ready(&self) {
        self.reported(&ready()).await;
    }

    /// Waits until the task has nothing left to do.
    async fn idle(&self) {
        tokio::time::sleep_until(tokio::time::Instant::now() + Duration::from_millis(1)).await;
    }

    async fn dirty(&mut self) -> Dirty {
        self.idle().await;
        timeout(PATIENCE, self.changes.next()).await.expect("nothing is dirty")
    }
}

/// Another authority is about to issue.
fn waiting() -> [Condition; 4] {
    let message = "the new authority issues when other zones had time to learn of it from global; \
                   until then the one before does";
    let [provider, trust, ready] = ready();
    let waits = Condition::fails("DependenciesReady", "MeshTrustNotRelayed", message);
    [provider, trust, waits, ready]
}

fn ready() -> [Condition; 3] {
    [
        Condition::holds("Provider", "ProviderInitialized", "Provider successfully initialized"),
        Condition::holds(
            "MeshTrustCreated",
            "MeshTrustCreated",
            "MeshTrust has been successfully created",
        ),
        Condition::holds("Ready", "Ready", "Successfully initialized"),
    ]
}

fn not_ready(reason: &str, message: &str) -> [Condition; 2] {
    ["Provider", "Ready"].map(|aspect| Condition::fails(aspect, reason, message))
}

/// What was good goes on.
fn damaged(message: &str) -> [Condition; 2] {
    let goes_on = format!("what was good before goes on: {message}");
    [
        Condition::fails("Provider", "ProviderNotReady", message),
        Condition::holds("Ready", "LastGood", goes_on),
    ]
}

/// The certificates that a text holds, to be compared.
fn pems(text: &str) -> BTreeSet<String> {
    identity::certificates(text).unwrap().iter().map(identity::to_pem).collect()
}

fn trusting(domains: &[(&str, &[&str])]) -> Trust {
    let domains = domains
        .iter()
        .map(|(name, texts)| (domain(name), texts.iter().flat_map(|text| pems(text)).collect()));
    Trust(domains.collect())
}

#[tokio::test(start_paused = true)]
async fn a_zone_makes_its_authority_and_shows_it() {
    let mut east = East::new().await;
    east.identity(BUNDLED).await;
    east.ready().await;
    let certificate = east.text("identity-root-ca").unwrap();
    Authority::from_pem(&certificate, &east.text("identity-private-key").unwrap()).unwrap();

    let key = proxy("identity-root-ca");
    let place = Place::Zone { name: zone("east"), env: Env::Universal };
    let labels = own(secret::KIND, &key, &place).with(label::MANAGED_BY, "meshidentity-provider");
    assert_eq!(east.get(secret::KIND, &key).unwrap().head.labels, labels);

    let trust = east.get(mesh_trust::KIND, &proxy("identity-x7")).unwrap();
    assert_eq!(
        trust.head.labels,
        Labels::from_iter([
            ("kuma.io/display-name", "identity-x7"),
            ("kuma.io/env", "universal"),
            ("kuma.io/mesh", "shop"),
            ("kuma.io/origin", "zone"),
            ("kuma.io/zone", "east"),
        ])
    );
    assert_eq!(&*trust.status, br#"{"origin":{"kri":"kri_mid_shop___identity_"}}"#);
    assert_eq!(
        east.trusts().unwrap(),
        mesh_trust::MeshTrust {
            trust_domain: "shop.east.mesh.local".into(),
            ca_bundles: vec![mesh_trust::CaBundle::pem(&certificate)],
        }
    );
    let dirty = east.dirty().await;
    assert_eq!(dirty, Dirty { trust: [shop()].into(), proxies: BTreeSet::new() });
    assert_eq!(*east.issuer.trust(&shop()), trusting(&[("shop.east.mesh.local", &[&certificate])]));

    let issued = east.svid(&proxy("cart-1"), &workload("cart")).unwrap();
    let id: SpiffeId = "spiffe://shop.east.mesh.local/workload/cart".parse().unwrap();
    assert_eq!(
        (&issued.svid().unwrap().id, issued.identity.to_string()),
        (&id, "kri_mid_shop___identity_".into())
    );
    let again = east.svid(&proxy("cart-1"), &workload("cart")).unwrap();
    assert!(Arc::ptr_eq(&issued, &again));
    let other = east.svid(&proxy("cart-2"), &workload("cart")).unwrap();
    assert_eq!(other.svid().unwrap().id, id);
    assert_ne!(
        other.svid().unwrap().key_pem,
        issued.svid().unwrap().key_pem,
        "each proxy has a key of its own"
    );
    assert!(east.issuer.needs_workload(&shop(), &workload("cart")));
}

#[tokio::test(start_paused = true)]
async fn what_was_made_goes_with_its_identity() {
    let mut east = East::new().await;
    east.secret("other-root-ca", "a user's").await;
    east.identity(BUNDLED).await;
    east.ready().await;
    east.svid(&proxy("cart-1"), &workload("cart")).unwrap();
    east.dirty().await;
    east.delete(mesh_identity::KIND, proxy("identity-x7")).await;
    let gone = |east: &East| east.trusts().is_none().then_some(());
    east.until(gone).await;
    assert_eq!(east.text("identity-root-ca"), None);
    assert_eq!(east.text("identity-private-key"), None);
    assert!(east.text("other-root-ca").is_some());
    let dirty = east.dirty().await;
    assert_eq!(dirty, Dirty { trust: [shop()].into(), proxies: [proxy("cart-1")].into() });
    assert_eq!(east.svid(&proxy("cart-1"), &workload("cart")), Err(NoSvid::NoIdentity));
    assert_eq!(*east.issuer.trust(&shop()), Trust::default());
}

#[tokio::test(start_paused = true)]
async fn half_an_authority_is_neither_used_nor_completed() {
    let east = East::new().await;
    let (one, two) = (authority("east"), authority("east"));
    east.secret("identity-root-ca", one.certificate_pem()).await;
    east.identity(BUNDLED).await;
    let message =
        "the Secret \"identity-private-key\" is missing, while \"identity-root-ca\" is there";
    east.reported(&not_ready("ProviderNotReady", message)).await;
    assert_eq!((east.text("identity-private-key"), east.trusts()), (None, None));
    let refused = east.svid(&proxy("cart-1"), &workload("cart")).unwrap_err();
    assert_eq!(refused.to_string(), "MeshIdentity kri_mid_shop___identity_ has no authority");

    east.secret("identity-private-key", two.key_pem()).await;
    let message = "the private key does not belong to the certificate";
    east.reported(&not_ready("ProviderNotReady", message)).await;
    assert_eq!(east.trusts(), None);

    east.secret("identity-private-key", one.key_pem()).await;
    east.ready().await;
    assert_eq!(east.text("identity-root-ca").as_deref(), Some(one.certificate_pem()));
    assert_eq!(
        pems(&east.trusts().unwrap().ca_bundles[0].pem.as_ref().unwrap().value),
        pems(one.certificate_pem())
    );
}

#[tokio::test(start_paused = true)]
async fn who_is_faster_with_one_half_does_not_get_the_other() {
    for (theirs, ours) in
        [("identity-private-key", "identity-root-ca"), ("identity-root-ca", "identity-private-key")]
    {
        let east = East::interfered(Some(theirs)).await;
        east.identity(BUNDLED).await;
        let message = format!("the Secret {ours:?} is missing, while {theirs:?} is there");
        east.reported(&not_ready("ProviderNotReady", &message)).await;
        assert_eq!(east.text(theirs).as_deref(), Some("somebody else's"));
        assert_eq!((east.text(ours), east.trusts()), (None, None));
    }
}

#[tokio::test(start_paused = true)]
async fn an_authority_that_was_deleted_is_replaced_and_stays_trusted() {
    let mut east = East::new().await;
    east.identity(BUNDLED).await;
    east.ready().await;
    east.svid(&proxy("cart-1"), &workload("cart")).unwrap();
    let old = east.text("identity-root-ca").unwrap();
    // The first half alone changes nothing.
    east.delete(secret::KIND, proxy("identity-private-key")).await;
    let message =
        "the Secret \"identity-private-key\" is missing, while \"identity-root-ca\" is there";
    east.reported(&damaged(message)).await;
    east.dirty().await;
    east.delete(secret::KIND, proxy("identity-root-ca")).await;
    east.ready().await;
    let new = east.text("identity-root-ca").unwrap();
    let dirty = east.dirty().await;
    assert_eq!(dirty, Dirty { trust: [shop()].into(), proxies: [proxy("cart-1")].into() });
    let both = trusting(&[("shop.east.mesh.local", &[&old, &new])]);
    assert_eq!((old == new, &*east.issuer.trust(&shop())), (false, &both));
}

#[tokio::test(start_paused = true)]
async fn an_authority_that_expired_is_reported() {
    let east = East::new().await;
    east.identity(BUNDLED).await;
    east.ready().await;
    let ten_years = Duration::from_secs(3650 * 24 * 3600);
    let end = tokio::time::Instant::now() + ten_years;
    tokio::time::sleep_until(end - Duration::from_secs(5)).await;
    east.ready().await;
    tokio::time::sleep_until(end).await;
    let message = "the authority's certificate expired at 2040-04-28T12:00:00Z";
    east.reported(&not_ready("ProviderNotReady", message)).await;
    let refused = east.svid(&proxy("cart-1"), &workload("cart")).unwrap_err();
    assert!(matches!(refused, NoSvid::NoAuthority(_)), "{refused:?}");

    // What takes its place is trusted alone.
    let new = Authority::generate(&domain("shop.east.mesh.local"), start() + ten_years).unwrap();
    east.secret("identity-root-ca", new.certificate_pem()).await;
    east.secret("identity-private-key", new.key_pem()).await;
    east.ready().await;
    let alone = trusting(&[("shop.east.mesh.local", &[new.certificate_pem()])]);
    assert_eq!(*east.issuer.trust(&shop()), alone);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_made_before_the_mesh_is_there() {
    let east = East::new().await;
    east.delete(mesh::KIND, ResourceKey::global("shop")).await;
    east.identity(BUNDLED).await;
    east.idle().await;
    assert_eq!((east.text("identity-root-ca"), east.conditions()), (None, vec![]));
    east.put(mesh::KIND, ResourceKey::global("shop"), Labels::default(), json!({})).await;
    east.ready().await;
}

#[tokio::test(start_paused = true)]
async fn a_template_without_its_label_is_reported() {
    let east = East::new().await;
    east.identity(
        r#"{"selector": {"dataplane": {"matchLabels": {}}},
            "spiffeID": {"trustDomain": "{{ label \"team\" }}.local"},
            "provider": {"type": "Bundled", "bundled": {"autogenerate": {"enabled": true}}}}"#,
    )
    .await;
    let message = "label \"team\" is missing";
    let of = |aspect| Condition::fails(aspect, "TrustDomainNotRendered", message);
    east.reported(&[of("SpiffeIDProvider"), of("Ready")]).await;
    assert_eq!(east.text("identity-root-ca"), None);
    let refused = east.svid(&proxy("cart-1"), &workload("cart")).unwrap_err();
    assert!(matches!(refused, NoSvid::TrustDomain { .. }), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_proxy_without_what_its_path_says_has_no_certificate() {
    let east = East::new().await;
    east.identity(BUNDLED).await;
    east.ready().await;
    let refused = east.svid(&proxy("cart-1"), &Labels::default()).unwrap_err();
    let NoSvid::Path { source, .. } = refused else { panic!("{refused:?}") };
    assert_eq!(source.to_string(), "\"Workload\" is empty");
}

fn authority(of_zone: &str) -> Authority {
    Authority::generate(&domain(&format!("shop.{of_zone}.mesh.local")), start()).unwrap()
}

fn given(certificate: Value, key: Value, self_signed: bool) -> String {
    let bundled = json!({
        "ca": {"certificate": certificate, "privateKey": key},
        "insecureAllowSelfSigned": self_signed,
        "certificateParameters": {"expiry": "24h"},
    });
    json!({
        "selector": {"dataplane": {"matchLabels": {}}},
        "provider": {"type": "Bundled", "bundled": bundled},
    })
    .to_string()
}

fn inline(text: &str) -> Value {
    json!({"type": "InsecureInline", "insecureInline": {"value": text}})
}

fn in_secret(name: &str) -> Value {
    json!({"type": "Secret", "secretRef": {"kind": "Secret", "name": name}})
}

#[tokio::test(start_paused = true)]
async fn an_authority_that_is_given_is_used() {
    let east = East::new().await;
    let own = authority("east");
    let spec =
        |self_signed| given(inline(own.certificate_pem()), inline(own.key_pem()), self_signed);
    east.identity(&spec(false)).await;
    let message = "the authority is self-signed, which insecureAllowSelfSigned does not allow";
    east.reported(&not_ready("ProviderNotReady", message)).await;
    east.identity(&spec(true)).await;
    east.ready().await;
    let issued = east.svid(&proxy("cart-1"), &workload("cart")).unwrap();
    let tomorrow = start() + Duration::from_secs(24 * 3600);
    assert_eq!(issued.svid().unwrap().not_after, tomorrow);
    assert_eq!(east.text("identity-root-ca"), None);

    east.identity(&given(in_secret("ours"), in_secret("key"), true)).await;
    east.reported(&damaged("the Secret \"ours\" is missing")).await;
    let variable = json!({"type": "EnvVar", "envVar": {"name": "CA"}});
    east.identity(&given(variable, in_secret("key"), true)).await;
    let message =
        "data of type EnvVar cannot be read here: only File, Secret and InsecureInline can";
    east.reported(&not_ready("ProviderNotReady", message)).await;

    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let in_file = |name: &str| json!({"type": "File", "file": {"path": file(name)}});
    let files = given(in_file("ca.pem"), in_file("key.pem"), true);
    east.identity(&files).await;
    let message = format!(
        "the file {:?} cannot be read: No such file or directory (os error 2)",
        file("ca.pem")
    );
    east.reported(&damaged(&message)).await;
    std::fs::write(file("ca.pem"), own.certificate_pem()).unwrap();
    std::fs::write(file("key.pem"), own.key_pem()).unwrap();
    // Files are looked at when something else of the mesh changes.
    east.secret("any", "thing").await;
    east.ready().await;
}

#[tokio::test(start_paused = true)]
async fn another_authority_is_trusted_before_it_issues_and_damage_stops_nothing() {
    let mut east = East::new().await;
    let (old, new) = (authority("east"), authority("east"));
    east.secret("ca", old.certificate_pem()).await;
    east.secret("key", old.key_pem()).await;
    east.identity(&given(in_secret("ca"), in_secret("key"), true)).await;
    east.ready().await;
    let first = east.svid(&proxy("cart-1"), &workload("cart")).unwrap();
    east.dirty().await;

    east.secret("ca", new.certificate_pem()).await;
    let message = "the private key does not belong to the certificate";
    east.reported(&damaged(message)).await;
    let later = east.svid(&proxy("cart-2"), &workload("cart")).unwrap();
    assert!(is_signed_by(&later, &old), "what was good goes on");
    assert_eq!(east.svid(&proxy("cart-1"), &workload("cart")), Ok(first.clone()));

    east.secret("key", new.key_pem()).await;
    east.ready().await;
    let dirty = east.dirty().await;
    let proxies = [proxy("cart-1"), proxy("cart-2")].into();
    assert_eq!(dirty, Dirty { trust: [shop()].into(), proxies });
    let both = [old.certificate_pem(), new.certificate_pem()];
    assert_eq!(*east.issuer.trust(&shop()), trusting(&[("shop.east.mesh.local", &both)]));
    let second = east.svid(&proxy("cart-1"), &workload("cart")).unwrap();
    assert!(is_signed_by(&first, &old) && is_signed_by(&second, &new));
}

#[tokio::test(start_paused = true)]
async fn no_certificate_is_older_than_the_trust_in_it() {
    let East { store, kinds, issuer, mut changes, _tasks } = East::new().await;
    let (_, unused) = Issuer::new(Clock::since(start()));
    let east = East { store, kinds, issuer: issuer.clone(), changes: unused, _tasks };
    let mut watcher = JoinSet::new();
    watcher.spawn(async move {
        let mut seen = BTreeSet::new();
        loop {
            let issued = issuer.issue(&proxy("cart-1"), &workload("cart"), false);
            let trust = issuer.trust(&shop());
            let trusted = trust.0.values().flatten().flat_map(|pem| identity::certificates(pem));
            let trusted: Vec<_> = trusted.flatten().collect();
            if let Ok(issued) = issued {
                let leaf =
                    identity::certificates(&issued.svid().unwrap().chain_pem).unwrap().remove(0);
                let known = trusted.iter().any(|ca| identity::is_issued_by(&leaf, ca));
                assert!(known, "issued by an authority that nobody knows");
                seen.insert(issued.svid().unwrap().chain_pem.clone());
            }
            if seen.len() == 3 {
                return;
            }
            changes.next().await;
        }
    });
    east.identity(BUNDLED).await;
    east.ready().await;
    east.idle().await;
    for _ in 0..2 {
        let new = authority("east");
        east.secret("identity-root-ca", new.certificate_pem()).await;
        east.secret("identity-private-key", new.key_pem()).await;
        east.reported(&waiting()).await;
        east.ready().await;
    }
    timeout(PATIENCE, watcher.join_next()).await.unwrap().unwrap().unwrap();
}

fn is_signed_by(issued: &Issued, authority: &Authority) -> bool {
    let verifies = |pem: &str| {
        let leaf = identity::certificates(&issued.svid().unwrap().chain_pem).unwrap().remove(0);
        let ca = identity::certificates(pem).unwrap().remove(0);
        identity::is_issued_by(&leaf, &ca)
    };
    verifies(authority.certificate_pem())
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_replaced_before_it_ends() {
    let mut east = East::new().await;
    east.identity(BUNDLED).await;
    east.ready().await;
    let first = east.svid(&proxy("cart-1"), &workload("cart")).unwrap();
    east.svid(&proxy("gone-1"), &workload("cart")).unwrap();
    east.issuer.forget(&proxy("gone-1"));
    east.dirty().await;

    let four_days = Duration::from_secs(4 * 24 * 3600);
    let fifth_of_a_day = Duration::from_secs(24 * 3600 / 4);
    let idle = timeout(four_days - fifth_of_a_day, east.changes.next()).await;
    assert!(idle.is_err(), "{idle:?} came too early");
    let dirty = timeout(fifth_of_a_day, east.changes.next()).await.expect("it comes too late");
    assert_eq!(dirty, Dirty { trust: BTreeSet::new(), proxies: [proxy("cart-1")].into() });
    let second = east.svid(&proxy("cart-1"), &workload("cart")).unwrap();
    assert_eq!(second.svid().unwrap().id, first.svid().unwrap().id);
    assert!(first.svid().unwrap().not_after < second.svid().unwrap().not_after);

    // It goes on like this.
    let dirty = timeout(four_days, east.changes.next()).await.unwrap();
    assert_eq!(dirty.proxies, [proxy("cart-1")].into());
}

#[tokio::test(start_paused = true)]
async fn authorities_and_certificates_are_listed_with_their_ends() {
    use api::expiry::{Holder as _, Several, Sort};
    let east = East::new().await;
    east.identity(BUNDLED).await;
    east.ready().await;
    let first = east.svid(&proxy("cart-1"), &workload("cart")).unwrap();
    tokio::time::advance(Duration::from_secs(60)).await;
    let second = east.svid(&proxy("cart-2"), &workload("cart")).unwrap();
    assert!(first.svid().unwrap().not_after < second.svid().unwrap().not_after);
    let [authority, certificates] =
        <[_; 2]>::try_from(east.issuer.entries(first.svid().unwrap().not_after)).unwrap();
    assert_eq!((authority.sort, &*authority.name), (Sort::Authority, "identity"));
    assert!(!authority.renewal.automatic && first.svid().unwrap().not_after < authority.not_after);
    assert_eq!(
        (certificates.sort, &*certificates.name, certificates.not_after, certificates.several),
        (
            Sort::ProxyCertificates,
            "cart-1",
            first.svid().unwrap().not_after,
            Some(Several { count: 2, soon: 1 })
        )
    );
    assert!(certificates.renewal.automatic);
    assert_eq!(authority.mesh, certificates.mesh);
}

#[tokio::test(start_paused = true)]
async fn the_closest_identity_is_taken() {
    let mut east = East::new().await;
    east.identity(BUNDLED).await;
    east.ready().await;
    let labels = workload("cart").with("team", "a");
    let first = east.svid(&proxy("cart-1"), &labels).unwrap();
    east.dirty().await;
    let closer = json!({
        "selector": {"dataplane": {"matchLabels": {"team": "a"}}},
        "spiffeID": {"path": "/team/{{ label \"team\" }}"},
        "provider": {"type": "Bundled", "bundled": {"autogenerate": {"enabled": true}}},
    });
    east.put(mesh_identity::KIND, proxy("closer"), Labels::default(), closer).await;
    let there = |east: &East| east.text("closer-root-ca");
    east.until(there).await;
    let dirty = east.dirty().await;
    assert_eq!(dirty.proxies, [proxy("cart-1")].into());
    let second = east.svid(&proxy("cart-1"), &labels).unwrap();
    let paths = [&first, &second].map(|issued| issued.svid().unwrap().id.path().to_owned());
    assert_eq!(paths, ["/workload/cart", "/team/a"]);
    assert_eq!(second.identity.name, "closer");
    let other = east.svid(&proxy("pay-1"), &workload("pay")).unwrap();
    assert_eq!(other.identity.name, "identity");
    assert!(!east.issuer.needs_workload(&shop(), &labels));
}

#[tokio::test(start_paused = true)]
async fn a_status_causes_no_work() {
    let mut east = East::new().await;
    east.identity(BUNDLED).await;
    east.ready().await;
    east.svid(&proxy("cart-1"), &workload("cart")).unwrap();
    east.dirty().await;
    let before = east.store.reader().revision();
    let identity = east.get(mesh_identity::KIND, &proxy("identity-x7")).unwrap();
    let blank = Arc::new(identity.with_status("".into()));
    east.commit(mesh_identity::KIND, Edit::Put(blank)).await;
    east.ready().await;
    east.idle().await;
    assert_eq!(east.store.reader().revision().0, before.0 + 2, "blanked, and reported again");
    let quiet = timeout(PATIENCE, east.changes.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
}

#[tokio::test(start_paused = true)]
async fn trust_of_other_zones_arrives() {
    let mut east = East::new().await;
    east.identity(BUNDLED).await;
    east.ready().await;
    east.dirty().await;
    let west = authority("west");
    let labels = [(label::ZONE, "west"), (label::ORIGIN, label::ORIGIN_GLOBAL)];
    let labels = || labels.into_iter().collect::<Labels>();
    let spec = |domain: &str, pem: &str| json!({"trustDomain": domain, "caBundles": [{"type": "Pem", "pem": {"value": pem}}]});
    let relayed = spec("shop.west.mesh.local", west.certificate_pem());
    east.put(mesh_trust::KIND, proxy("west-1"), labels(), relayed).await;
    assert_eq!(east.dirty().await, Dirty { trust: [shop()].into(), proxies: BTreeSet::new() });
    let own = east.text("identity-root-ca").unwrap();
    let both = trusting(&[
        ("shop.east.mesh.local", &[&own]),
        ("shop.west.mesh.local", &[west.certificate_pem()]),
    ]);
    assert_eq!(*east.issuer.trust(&shop()), both);

    let forged = spec("shop.east.mesh.local", west.certificate_pem());
    east.put(mesh_trust::KIND, proxy("west-2"), labels(), forged).await;
    east.idle().await;
    let quiet = timeout(PATIENCE, east.changes.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    assert_eq!(*east.issuer.trust(&shop()), both);
}

#[tokio::test(start_paused = true)]
async fn a_trust_from_elsewhere_is_left_alone() {
    let east = East::new().await;
    let foreign = json!({
        "trustDomain": "other.local",
        "caBundles": [{"type": "Pem", "pem": {"value": authority("west").certificate_pem()}}],
    });
    east.put(mesh_trust::KIND, proxy("identity-x7"), Labels::default(), foreign).await;
    let before = east.trusts();
    east.identity(BUNDLED).await;
    let message = "a MeshTrust \"identity-x7\" is there already, from elsewhere";
    east.reported(&[
        Condition::holds("Provider", "ProviderInitialized", "Provider successfully initialized"),
        Condition::fails("MeshTrustCreated", "NameTaken", message),
        Condition::fails("Ready", "NameTaken", message),
    ])
    .await;
    assert_eq!(east.trusts(), before);
}

#[tokio::test(start_paused = true)]
async fn one_display_name_has_one_authority() {
    let east = East::new().await;
    east.identity(BUNDLED).await;
    east.ready().await;
    tokio::time::advance(PATIENCE).await;
    let spec = serde_json::from_str(BUNDLED).unwrap();
    east.put(mesh_identity::KIND, proxy("identity"), Labels::default(), spec).await;
    let message = "the Secrets of \"identity\" belong to another MeshIdentity of the mesh with this \
                   display name";
    let look = |east: &East| {
        let second = east.get(mesh_identity::KIND, &proxy("identity"))?;
        let status = kinds::status::<mesh_identity::MeshIdentity>(&second).unwrap();
        (!status.conditions.is_empty()).then_some(status.conditions)
    };
    assert_eq!(east.until(look).await, not_ready("ProviderNotReady", message));
}
