//! A MeshIdentity whose certificates SPIRE agents have.

use super::*;
use crate::{generate::SpireAgent, identities::Proof};
use api::expiry::Holder as _;

const SPIRE: &str = r#"{"selector": {"dataplane": {}}, "provider": {"type": "Spire"}}"#;

fn by_agent(east: &East, has_agent: bool) -> Result<Arc<Issued>, NoSvid> {
    east.issuer.issue(&proxy("cart-1"), &workload("cart"), has_agent)
}

fn initialized() -> [Condition; 2] {
    let message = "SPIRE agents beside proxies have their certificates";
    [
        Condition::holds("Provider", "ProviderInitialized", message),
        Condition::holds("Ready", "Ready", "Successfully initialized"),
    ]
}

#[tokio::test(start_paused = true)]
async fn its_proxies_ask_their_agents_and_the_zone_makes_nothing() {
    let east = East::new().await;
    east.identity(SPIRE).await;
    east.reported(&initialized()).await;
    let id = "spiffe://shop.east.mesh.local/workload/cart".parse().unwrap();
    let agent = SpireAgent { id, timeout: Duration::from_secs(1) };
    assert_eq!(by_agent(&east, true).unwrap().proof, Proof::Agent(agent));
    assert_eq!(east.text("identity-root-ca"), None);
    assert_eq!(east.trusts(), None);
    let far = start() + Duration::from_secs(20 * 365 * 86_400);
    assert_eq!(east.issuer.entries(far), [], "an agent renews by itself");
}

#[tokio::test(start_paused = true)]
async fn a_proxy_without_an_agent_is_told_what_it_lacks() {
    let east = East::new().await;
    east.identity(SPIRE).await;
    east.reported(&initialized()).await;
    let expected = "MeshIdentity kri_mid_shop___identity_ is of type Spire, and the proxy names no SPIRE \
                    agent: spire.socketPath of its settings, or of its pod the annotation \
                    k8s.kuma.io/spire-support: enabled";
    assert_eq!(by_agent(&east, false).unwrap_err().to_string(), expected);
}

#[tokio::test(start_paused = true)]
async fn how_long_it_may_take_and_who_has_it_change_at_once() {
    let mut east = East::new().await;
    east.identity(BUNDLED).await;
    east.ready().await;
    let before = by_agent(&east, true).unwrap();
    assert!(before.svid().is_some(), "an agent that nobody asks");
    east.dirty().await;

    let slow = SPIRE.replace(r#""Spire""#, r#""Spire", "spire": {"agent": {"timeout": "7s"}}"#);
    for (spec, seconds) in [(SPIRE, 1), (&*slow, 7)] {
        east.identity(spec).await;
        assert_eq!(east.dirty().await.proxies, [proxy("cart-1")].into());
        let Proof::Agent(agent) = &by_agent(&east, true).unwrap().proof else { panic!("{spec}") };
        assert_eq!(agent.timeout, Duration::from_secs(seconds));
    }
    east.identity(BUNDLED).await;
    assert_eq!(east.dirty().await.proxies, [proxy("cart-1")].into());
    assert!(by_agent(&east, true).unwrap().svid().is_some());
}
