//! What expires, and who is told.

use super::*;
use crate::expiry::{Entry, Expiry, Holder, Renewal, Sort, by_mesh};
use daemon::Metrics;

/// Tokens of proxies as a test says they are, and something of the control plane itself.
pub(super) struct Held;

const DAY: u64 = 24 * 3600;

fn in_days(days: u64) -> Timestamp {
    NOW.parse::<Timestamp>().unwrap() + Duration::from_secs(days * DAY)
}

fn mesh(name: &str) -> MeshName {
    MeshName::new(name).unwrap()
}

impl Holder for Held {
    fn entries(&self, soon: Timestamp) -> Vec<Entry> {
        let (shop, bank) = (mesh("shop"), mesh("bank"));
        let tokens = [(&shop, "web", 40), (&shop, "cart", 20), (&bank, "till", 7)];
        let tokens = tokens.map(|(mesh, name, days)| (mesh, name, in_days(days)));
        let by_hand = Renewal::by("ann");
        let mut entries = by_mesh(Sort::ProxyTokens, &by_hand, soon, tokens.into_iter());
        let own = Renewal::automatic("it");
        entries.push(Entry::one(Sort::ServerCertificate, "tls.certFile", in_days(1), own));
        entries.push(Entry::one(Sort::OwnToken, "global.tokenFile", in_days(0), by_hand));
        entries
    }
}

impl Cp {
    fn expiry(&self) -> Arc<Expiry> {
        let clock = Clock::since(NOW.parse::<Timestamp>().unwrap());
        let (shared, reader) = ((&*self.kinds, &Here::Global), self.store.reader());
        Expiry::new(shared, reader, clock, vec![Arc::new(Held)])
    }

    async fn trust(&self) -> Timestamp {
        let domain = identity::TrustDomain::new("shop.east.mesh.local").unwrap();
        let authority = identity::Authority::generate(&domain, NOW.parse().unwrap()).unwrap();
        let pem = json!({"type": "Pem", "pem": {"value": authority.certificate_pem()}});
        let spec = json!({"trustDomain": "shop.east.mesh.local", "caBundles": [pem]});
        let labels = [("kuma.io/zone", "east"), ("kuma.io/display-name", "identity")];
        self.store("MeshTrust", in_shop("identity-hash"), &labels, spec).await;
        authority.not_after()
    }
}

fn shown(list: &Value) -> Vec<(&str, &str, &str)> {
    let items = list["items"].as_array().unwrap().iter();
    items
        .map(|item| {
            let text = |field: &str| item[field].as_str().unwrap_or_default();
            (text("sort"), text("name"), text("state"))
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn what_expires_is_listed_by_its_end_with_who_renews_it() {
    let cp = Cp::at(global()).await;
    let ends = cp.trust().await;
    let list = cp.get("/_expiry").await.json();
    assert_eq!(
        shown(&list),
        [
            ("OwnToken", "global.tokenFile", "Ended"),
            ("ServerCertificate", "tls.certFile", "Valid"),
            ("ProxyTokens", "till", "Soon"),
            ("ProxyTokens", "cart", "Soon"),
            ("Trust", "identity", "Valid"),
        ]
    );
    let of_shop = json!({"sort": "ProxyTokens", "name": "cart", "mesh": "shop",
        "notAfter": in_days(20).to_string(), "renewal": {"automatic": false, "by": "ann"},
        "count": 2, "soon": 1, "state": "Soon"});
    assert_eq!(list["items"][3], of_shop);
    let trust = &list["items"][4];
    assert_eq!(
        (&trust["mesh"], &trust["zone"], &trust["notAfter"]),
        (&json!("shop"), &json!("east"), &json!(ends.to_string()))
    );
    let list = cp.get("/_expiry?within=50d&size=1&offset=3").await.json();
    assert_eq!((list["total"].as_u64(), list["items"][0]["soon"].as_u64()), (Some(5), Some(2)));
    assert!(list["next"].as_str().unwrap().contains("offset=4&size=1&within=50d"));
    let (status, _, fields) = cp.get("/_expiry?within=soon").await.refusal();
    assert_eq!((status, &*fields[0].0), (400, "within"));
    // What was stored is looked at again when that changed.
    let trusts = cp.kinds.id_of("MeshTrust").unwrap();
    let edit = Edit::Delete(in_shop("identity-hash"));
    let item = Item { kind: trusts, expected: Expected::Anything, edit };
    cp.store.commit(vec![item]).await.unwrap();
    assert_eq!(cp.get("/_expiry").await.json()["total"], 4);
}

#[tokio::test(start_paused = true)]
async fn who_may_not_look_into_a_mesh_is_not_told_what_of_it_expires() {
    let cp = Cp::at(global()).await;
    cp.trust().await;
    for (groups, sees) in [
        (&["mesh:shop:reader"][..], &["cart", "identity"][..]),
        (&["mesh:bank:writer"], &["till"]),
        (&["mesh:*:reader"], &["till", "cart", "identity"]),
        (&[], &[]),
    ] {
        let list = cp.as_user(groups, "GET", "/_expiry", None).await.json();
        assert_eq!(names(&list), sees, "{groups:?}");
        assert_eq!(list["total"], sees.len());
    }
}

#[tokio::test(start_paused = true)]
async fn an_authority_that_is_given_to_a_mesh_identity_is_found_where_it_is() {
    let cp = Cp::at(global()).await;
    let domain = identity::TrustDomain::new("shop").unwrap();
    let authority = identity::Authority::generate(&domain, NOW.parse().unwrap()).unwrap();
    let data = encoded(authority.certificate_pem());
    cp.store("Secret", in_shop("ca"), &[], json!({ "data": data })).await;
    let identity = |certificate: Value| {
        let key = json!({"type": "File", "file": {"path": "/key"}});
        let ca = json!({"certificate": certificate, "privateKey": key});
        json!({"selector": {"dataplane": {}}, "provider": {"type": "Bundled", "bundled": {"ca": ca}}})
    };
    let secret = json!({"type": "Secret", "secretRef": {"kind": "Secret", "name": "ca"}});
    cp.store("MeshIdentity", in_shop("in-secret"), &[], identity(secret)).await;
    let file = json!({"type": "File", "file": {"path": "/ca"}});
    cp.store("MeshIdentity", in_shop("in-file"), &[], identity(file)).await;
    let list = cp.get("/_expiry").await.json();
    assert_eq!(shown(&list).last(), Some(&("Authority", "in-secret", "Valid")));
    assert_eq!(list["total"], 5);
}

#[tokio::test(start_paused = true)]
async fn metrics_say_when_the_first_of_each_sort_ends() {
    let cp = Cp::at(global()).await;
    let metrics = Metrics::default();
    cp.expiry().publish(&metrics);
    let text = metrics.encode().unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("expiry_")).collect();
    assert_eq!(
        lines,
        [
            "expiry_seconds{sort=\"server-certificate\"} 86400.0",
            "expiry_seconds{sort=\"own-token\"} 0.0",
            "expiry_seconds{sort=\"proxy-tokens\"} 604800.0",
        ]
    );
}
