//! What follows when a MeshIdentity, or its authority, becomes another one.

use super::*;

fn bundled(templates: &Value, expiry: Option<&str>) -> String {
    let mut spec: Value = serde_json::from_str(BUNDLED).unwrap();
    spec["spiffeID"] = templates.clone();
    if let Some(expiry) = expiry {
        spec["provider"]["bundled"]["certificateParameters"] = json!({"expiry": expiry});
    }
    spec.to_string()
}

fn id(issued: &Issued) -> String {
    issued.svid().unwrap().id.to_string()
}

/// Whether the zone believes this certificate.
fn is_believed(east: &East, issued: &Issued) -> bool {
    let trust = east.issuer.trust(&shop());
    let of_domain = trust.0.get(issued.svid().unwrap().id.trust_domain()).into_iter().flatten();
    let leaf = identity::certificates(&issued.svid().unwrap().chain_pem).unwrap().remove(0);
    let mut authorities = of_domain.flat_map(|pem| identity::certificates(pem).unwrap());
    authorities.any(|authority| identity::is_issued_by(&leaf, &authority))
}

#[tokio::test(start_paused = true)]
async fn another_path_is_another_certificate_at_once() {
    let mut east = East::new().await;
    east.identity(BUNDLED).await;
    east.ready().await;
    let cart = || east.svid(&proxy("cart-1"), &workload("cart"));
    let first = cart().unwrap();
    let trust = east.issuer.trust(&shop());
    east.identity(&bundled(&json!({"path": "/team/{{ .Workload }}"}), None)).await;
    east.idle().await;
    let second = cart().unwrap();
    assert_eq!(id(&first), "spiffe://shop.east.mesh.local/workload/cart");
    assert_eq!(id(&second), "spiffe://shop.east.mesh.local/team/cart");
    assert_eq!(*east.issuer.trust(&shop()), *trust, "the authority is the same");
    east.ready().await;
    assert_eq!(east.dirty().await.proxies, [proxy("cart-1")].into());
}

#[tokio::test(start_paused = true)]
async fn another_trust_domain_is_believed_before_it_is_used() {
    let east = East::new().await;
    east.identity(BUNDLED).await;
    east.ready().await;
    east.identity(&bundled(&json!({"trustDomain": "{{ .Zone }}.example.org"}), None)).await;
    let mut used = false;
    // Looks between any two steps.
    for _ in 0..1000 {
        let issued = east.svid(&proxy("cart-1"), &workload("cart")).unwrap();
        assert!(is_believed(&east, &issued), "{}", id(&issued));
        used |= id(&issued) == "spiffe://east.example.org/workload/cart";
        tokio::task::yield_now().await;
    }
    assert!(used);
    east.ready().await;
    assert_eq!(east.trusts().unwrap().trust_domain, "east.example.org");
    let own = east.text("identity-root-ca").unwrap();
    assert_eq!(*east.issuer.trust(&shop()), trusting(&[("east.example.org", &[&own])]));
}

#[tokio::test(start_paused = true)]
async fn a_template_that_makes_nothing_leaves_what_was_good() {
    let east = East::new().await;
    east.identity(BUNDLED).await;
    east.ready().await;
    let cart = || east.svid(&proxy("cart-1"), &workload("cart"));
    let (first, trust) = (cart().unwrap(), east.issuer.trust(&shop()));
    let labelled = json!({"trustDomain": "{{ label \"team\" }}.example.org"});
    east.identity(&bundled(&labelled, None)).await;
    let broken = |east: &East| {
        let conditions = east.conditions();
        conditions.iter().any(|it| it.reason == "TrustDomainNotRendered").then_some(conditions)
    };
    let message = "label \"team\" is missing";
    let expected = [
        Condition::fails("SpiffeIDProvider", "TrustDomainNotRendered", message),
        Condition::holds("Ready", "LastGood", format!("what was good before goes on: {message}")),
    ];
    assert_eq!(east.until(broken).await, expected);
    assert_eq!(cart(), Ok(first));
    assert_eq!(*east.issuer.trust(&shop()), *trust);
}

#[tokio::test(start_paused = true)]
async fn certificates_of_seconds_are_replaced_within_seconds() {
    let mut east = East::new().await;
    east.identity(&bundled(&json!({}), Some("10s"))).await;
    east.ready().await;
    let mut issued = east.svid(&proxy("cart-1"), &workload("cart")).unwrap();
    east.dirty().await;
    for _ in 0..5 {
        let now = tokio::time::Instant::now();
        let dirty = timeout(Duration::from_secs(10), east.changes.next()).await.unwrap();
        assert_eq!(dirty, Dirty { trust: BTreeSet::new(), proxies: [proxy("cart-1")].into() });
        let after = now.elapsed();
        let four_fifths = Duration::from_secs(7)..=Duration::from_secs(8);
        assert!(four_fifths.contains(&after), "{after:?}");
        let next = east.svid(&proxy("cart-1"), &workload("cart")).unwrap();
        assert_eq!(id(&next), id(&issued));
        let overlap =
            issued.svid().unwrap().not_after.duration_since(next.svid().unwrap().not_before);
        assert!(overlap.as_secs() >= 2, "one is there before the other ends: {overlap:?}");
        issued = next;
    }

    // Another validity is another certificate at once.
    east.identity(&bundled(&json!({}), Some("1h"))).await;
    assert_eq!(east.dirty().await.proxies, [proxy("cart-1")].into());
    let next = east.svid(&proxy("cart-1"), &workload("cart")).unwrap();
    assert!(
        issued.svid().unwrap().not_after + Duration::from_secs(3000)
            < next.svid().unwrap().not_after
    );
}

#[tokio::test(start_paused = true)]
async fn the_last_certificate_of_an_authority_is_not_replaced_all_the_time() {
    let mut east = East::new().await;
    east.identity(BUNDLED).await;
    east.ready().await;
    let end = tokio::time::Instant::now() + Duration::from_secs(3650 * 24 * 3600);
    tokio::time::sleep_until(end - Duration::from_millis(5500)).await;
    east.svid(&proxy("cart-1"), &workload("cart")).unwrap();
    let mut times = 0;
    let count = async {
        loop {
            east.changes.next().await;
            times += 1;
            drop(east.svid(&proxy("cart-1"), &workload("cart")));
        }
    };
    assert!(timeout(Duration::from_secs(7), count).await.is_err());
    assert!((1..=7).contains(&times), "{times}");
}

#[tokio::test(start_paused = true)]
async fn another_authority_issues_when_global_and_others_had_time_to_learn_of_it() {
    let (connection, global) = watch::channel(kds::zone::State::default());
    let mut east = East::of(None, Some(global)).await;
    east.identity(BUNDLED).await;
    east.ready().await;
    // There was none before, so nobody loses anything.
    let first = east.svid(&proxy("cart-1"), &workload("cart")).unwrap();
    east.dirty().await;
    let old = Authority::from_pem(
        &east.text("identity-root-ca").unwrap(),
        &east.text("identity-private-key").unwrap(),
    );
    let (old, new) = (old.unwrap(), authority("east"));
    east.secret("identity-root-ca", new.certificate_pem()).await;
    east.secret("identity-private-key", new.key_pem()).await;
    east.reported(&waiting()).await;
    let both = [old.certificate_pem(), new.certificate_pem()];
    let both = trusting(&[("shop.east.mesh.local", &both)]);
    assert_eq!(*east.issuer.trust(&shop()), both, "it is told at once");
    assert_eq!(east.svid(&proxy("cart-1"), &workload("cart")), Ok(first));
    let later = east.svid(&proxy("cart-2"), &workload("cart")).unwrap();
    assert!(is_signed_by(&later, &old));

    let kind = east.kinds.id_of("MeshTrust").unwrap();
    let Revision(written) = east.store.reader().rows(kind).0;
    let knows = |revision| {
        connection.send_modify(|state| {
            state.known_to_global.insert("MeshTrust", Revision(revision));
        });
    };
    knows(written - 1);
    tokio::time::sleep_until(tokio::time::Instant::now() + Duration::from_secs(3600)).await;
    let later = east.svid(&proxy("cart-3"), &workload("cart")).unwrap();
    assert!(is_signed_by(&later, &old));
    // Proxies of other zones get it within a moment; they have more than that.
    knows(written);
    tokio::time::sleep_until(tokio::time::Instant::now() + Duration::from_millis(4900)).await;
    let later = east.svid(&proxy("cart-4"), &workload("cart")).unwrap();
    assert!(is_signed_by(&later, &old));
    east.ready().await;
    let issued = east.svid(&proxy("cart-1"), &workload("cart")).unwrap();
    assert!(is_signed_by(&issued, &new));
    assert_eq!(*east.issuer.trust(&shop()), both, "old certificates count until they are replaced");
}
