use super::*;
use crate::target::{SpiffeIdMatch, SpiffeIdMatchType};
use proptest::prelude::*;
use resource::{Audience, Flow, Json, Labels, MeshName, NoStatus, ResourceKey, Scope, label};
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sample {
    target_ref: Option<TargetRef>,
    #[serde(default)]
    to: Vec<To<Conf>>,
    #[serde(default)]
    rules: Vec<Rule<Conf>>,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Conf {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seconds: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    idle: Option<u64>,
}

impl Spec for Sample {
    type Encoding = Json;
    type Status = NoStatus;

    const KIND: &'static str = "Sample";
    const PLURAL: &'static str = "samples";
    const SHORT: &'static str = "smp";
    const SCOPE: Scope = Scope::Mesh;
    const FLOW: Flow = Flow::Everywhere;
}

impl Policy for Sample {
    type Conf = Conf;
    const PHASE: Phase = Phase::Traffic;

    fn target_ref(&self) -> Option<&TargetRef> {
        self.target_ref.as_ref()
    }

    fn to(&self) -> &[To<Conf>] {
        &self.to
    }

    fn rules(&self) -> &[Rule<Conf>] {
        &self.rules
    }

    fn shape_outbound(conf: &Conf, draft: &mut OutboundDraft) {
        set(conf.seconds, &mut draft.route.timeout);
        set(conf.idle, &mut draft.cluster.idle_timeout);
    }

    fn shape_inbound(rules: &[InboundRule<Conf>], draft: &mut InboundDraft) {
        set(for_everybody(rules).seconds, &mut draft.route.timeout);
    }
}

fn set(seconds: Option<u64>, slot: &mut Duration) {
    if let Some(seconds) = seconds {
        *slot = Duration::from_secs(seconds);
    }
}

const KIND: PolicyKind = PolicyKind::of::<Sample>();

fn mesh() -> MeshName {
    MeshName::new("shop").unwrap()
}

fn policy(name: &str, labels: &[(&str, &str)], spec: &Value) -> Arc<Applied> {
    let labels: Labels = labels.iter().copied().chain([(label::DISPLAY_NAME, name)]).collect();
    // The name in transit is not the display name.
    let key = ResourceKey::in_mesh(&mesh(), &format!("{name}-x"));
    let spec = serde_json::to_vec(spec).unwrap().into();
    let resource = Resource::new(key, labels, spec, bytes::Bytes::new(), Audience::default());
    Arc::new(KIND.read(&resource).unwrap())
}

/// A policy that says how long a request to `to` may take.
fn timeout(name: &str, labels: &[(&str, &str)], target: Value, to: Value, s: u64) -> Arc<Applied> {
    let to = json!([{"targetRef": to, "default": {"seconds": s}}]);
    policy(name, labels, &json!({"targetRef": target, "to": to}))
}

fn proxy_selected(policy: &Applied, labels: &[(&str, &str)]) -> bool {
    let labels: Labels = labels.iter().copied().collect();
    policy.selects(&ProxyFacts { mesh: &mesh(), labels: &labels })
}

/// How long a request to port `http` (80) of the service `cart` of zone `east` may take.
fn seconds(policies: &[Arc<Applied>]) -> u64 {
    let mut policies = policies.to_vec();
    sort(&mut policies);
    let kri: Kri = "kri_msvc_shop_east__cart_http".parse().unwrap();
    let labels: Labels =
        [(label::DISPLAY_NAME, "cart"), (label::ZONE, "east")].into_iter().collect();
    let facts = DestinationFacts { kri: &kri, labels: &labels, port: 80 };
    outbound(&policies, &facts).route.timeout.as_secs()
}

const DEFAULT: u64 = 15;

fn all() -> Value {
    json!({"kind": "Mesh"})
}

fn service(labels: Value) -> Value {
    json!({"kind": "MeshService", "labels": labels})
}

fn port(section: &str) -> Value {
    let labels = json!({"kuma.io/display-name": "cart"});
    json!({"kind": "MeshService", "labels": labels, "sectionName": section})
}

#[test]
fn a_policy_without_a_target_is_for_the_whole_mesh() {
    let policy = policy("a", &[], &json!({"to": []}));
    assert!(proxy_selected(&policy, &[("app", "web")]));
    let (other, labels) = (MeshName::new("other").unwrap(), Labels::default());
    assert!(!policy.selects(&ProxyFacts { mesh: &other, labels: &labels }));
}

#[test]
fn a_policy_for_dataplanes_is_for_those_with_its_labels() {
    let target = json!({"targetRef": {"kind": "Dataplane", "labels": {"app": "web"}}});
    let by_label = policy("a", &[], &target);
    assert!(proxy_selected(&by_label, &[("app", "web"), ("tier", "front")]));
    assert!(!proxy_selected(&by_label, &[("app", "cart")]));
    let every = policy("a", &[], &json!({"targetRef": {"kind": "Dataplane"}}));
    assert!(proxy_selected(&every, &[]));
}

#[test]
fn a_shadow_policy_selects_nobody() {
    assert!(!proxy_selected(&policy("a", &[(label::EFFECT, "shadow")], &json!({})), &[]));
    assert!(proxy_selected(&policy("a", &[(label::EFFECT, "none")], &json!({})), &[]));
}

#[test]
fn a_role_says_how_far_a_policy_reaches() {
    let of = |role| {
        let labels = [(label::ROLE, role), (label::ZONE, "east"), (label::NAMESPACE, "a")];
        let policy = policy("p", &labels, &json!({}));
        [("east", "a"), ("east", "b"), ("west", "a")].map(|(zone, namespace)| {
            proxy_selected(&policy, &[(label::ZONE, zone), (label::NAMESPACE, namespace)])
        })
    };
    assert_eq!(of(label::ROLE_SYSTEM), [true, true, false]);
    assert_eq!(of(label::ROLE_PRODUCER), [true, true, true]);
    assert_eq!(of(label::ROLE_CONSUMER), [true, false, false]);
    assert_eq!(of(label::ROLE_WORKLOAD_OWNER), [true, false, false]);
}

#[test]
fn an_item_is_for_the_destinations_that_it_selects() {
    let to = |to: Value| seconds(&[timeout("a", &[], all(), to, 1)]);
    assert_eq!(to(all()), 1);
    assert_eq!(to(service(json!({"kuma.io/display-name": "cart"}))), 1);
    assert_eq!(to(service(json!({"kuma.io/display-name": "cart", "kuma.io/zone": "east"}))), 1);
    assert_eq!(to(service(json!({"kuma.io/display-name": "psp"}))), DEFAULT);
    assert_eq!(to(port("http")), 1);
    assert_eq!(to(port("80")), 1);
    assert_eq!(to(port("81")), DEFAULT);
    let labels = json!({"kuma.io/display-name": "cart"});
    for kind in ["MeshMultiZoneService", "MeshExternalService", "MeshHTTPRoute"] {
        assert_eq!(to(json!({"kind": kind, "labels": labels})), DEFAULT, "{kind}");
    }
}

#[test]
fn a_producer_speaks_for_services_of_his_own_namespace() {
    let named = || service(json!({"kuma.io/display-name": "cart"}));
    let producer = |zone, namespace| {
        let labels = [
            (label::ROLE, label::ROLE_PRODUCER),
            (label::ZONE, zone),
            (label::NAMESPACE, namespace),
        ];
        seconds(&[timeout("a", &labels, all(), named(), 1)])
    };
    assert_eq!(producer("east", ""), 1);
    assert_eq!(producer("west", ""), DEFAULT);
    assert_eq!(producer("east", "other"), DEFAULT);
}

/// Each of these wins over those before it, whatever their names.
#[test]
fn policies_apply_in_the_order_of_how_much_they_know() {
    let dataplanes = || json!({"kind": "Dataplane"});
    let section = json!({"kind": "Dataplane", "sectionName": "http"});
    let zone = (label::ORIGIN, label::ORIGIN_ZONE);
    let global = (label::ORIGIN, label::ORIGIN_GLOBAL);
    let role = |role| [zone, (label::ROLE, role), (label::ZONE, "east")];
    let ladder = [
        timeout("a", &[global], all(), all(), 1),
        timeout("b", &[global], all(), service(json!({"kuma.io/zone": "east"})), 2),
        timeout("c", &[global], all(), port("http"), 3),
        timeout("d", &[], all(), all(), 4),
        timeout("e", &[zone], all(), all(), 5),
        timeout("f", &role(label::ROLE_PRODUCER), all(), all(), 6),
        timeout("g", &role(label::ROLE_CONSUMER), all(), all(), 7),
        timeout("h", &role(label::ROLE_WORKLOAD_OWNER), all(), all(), 8),
        timeout("i", &[global], dataplanes(), all(), 9),
        timeout("j", &[zone], dataplanes(), all(), 10),
        timeout("k", &[global], section, all(), 11),
    ];
    for (i, first) in ladder.iter().enumerate() {
        for (j, second) in ladder.iter().enumerate() {
            let both = [first.clone(), second.clone()];
            assert_eq!(seconds(&both), i.max(j) as u64 + 1, "{first:?} and {second:?}");
        }
    }
}

#[test]
fn the_alphabetically_first_display_name_wins() {
    let one = timeout("a", &[], all(), all(), 1);
    let two = timeout("b", &[], all(), all(), 2);
    assert_eq!(seconds(&[one.clone(), two.clone()]), 1);
    assert_eq!(seconds(&[two, one]), 1);
}

#[test]
fn a_later_item_of_a_policy_wins() {
    let item = |seconds: u64| json!({"targetRef": all(), "default": {"seconds": seconds}});
    assert_eq!(seconds(&[policy("a", &[], &json!({"to": [item(1), item(2)]}))]), 2);
}

#[test]
fn settings_of_several_policies_add_up() {
    let idle = json!({"to": [{"targetRef": all(), "default": {"idle": 7}}]});
    let mut policies = [timeout("a", &[], all(), all(), 1), policy("b", &[], &idle)];
    sort(&mut policies);
    let kri: Kri = "kri_msvc_shop_east__cart_http".parse().unwrap();
    let facts = DestinationFacts { kri: &kri, labels: &Labels::default(), port: 80 };
    let mut expected = OutboundDraft::default();
    expected.route.timeout = Duration::from_secs(1);
    expected.cluster.idle_timeout = Duration::from_secs(7);
    assert_eq!(outbound(&policies, &facts), expected);
    assert_ne!(expected.version(), OutboundDraft::default().version());
}

#[test]
fn rules_are_for_the_inbound_that_the_target_names() {
    let rules = json!([{"default": {"seconds": 1}}]);
    let with = |target: Value| {
        let policies = [policy("a", &[], &json!({"targetRef": target, "rules": rules}))];
        let facts = InboundFacts { section: "http", port: 8080 };
        inbound(&policies, &facts).route.timeout.as_secs()
    };
    let none = InboundDraft::default().route.timeout.as_secs();
    assert_eq!(with(json!({"kind": "Dataplane"})), 1);
    assert_eq!(with(json!({"kind": "Dataplane", "sectionName": "http"})), 1);
    assert_eq!(with(json!({"kind": "Dataplane", "sectionName": "8080"})), 1);
    assert_eq!(with(json!({"kind": "Dataplane", "sectionName": "admin"})), none);
}

#[test]
fn a_rule_says_where_it_comes_from_and_whom_it_is_about() {
    let web = "spiffe://shop/web";
    let matches = json!([{"spiffeID": {"type": "Exact", "value": web}}]);
    let rules = json!([{"matches": matches, "default": {"seconds": 1}}]);
    let policy = policy("a", &[(label::ZONE, "east")], &json!({"rules": rules}));
    let facts = InboundFacts { section: "http", port: 8080 };
    let id = SpiffeIdMatch { r#type: SpiffeIdMatchType::Exact, value: web.into() };
    let expected = InboundRule {
        policy: Arc::new("kri_smp_shop_east__a_".parse().unwrap()),
        matches: vec![Match { spiffe_id: Some(id), sni: None }],
        conf: json!({"seconds": 1}),
    };
    assert_eq!(policy.rules(&facts).collect::<Vec<_>>(), [expected]);
    // Nothing is said about everybody.
    assert_eq!(inbound(&[policy], &facts), InboundDraft::default());
}

#[test]
fn a_spec_that_breaks_rules_of_its_kind_is_not_applied() {
    let key = ResourceKey::in_mesh(&mesh(), "a");
    let (labels, none) = (Labels::default(), bytes::Bytes::new());
    let resource = Resource::new(key, labels, "[]".into(), none, Audience::default());
    assert!(matches!(KIND.read(&resource), Err(RejectedSpec::Malformed { kind: "Sample", .. })));
}

fn any_policy() -> impl Strategy<Value = Arc<Applied>> {
    let labels = (
        proptest::option::of(prop_oneof![Just(label::ORIGIN_ZONE), Just(label::ORIGIN_GLOBAL)]),
        proptest::option::of(prop_oneof![Just(label::ROLE_SYSTEM), Just(label::ROLE_CONSUMER)]),
    );
    let target = prop_oneof![Just(all()), Just(json!({"kind": "Dataplane"}))];
    let to = prop_oneof![
        Just(all()),
        Just(service(json!({"kuma.io/display-name": "cart"}))),
        Just(port("http")),
    ];
    ("[ab]{1,2}", labels, target, to, 0..4_u64).prop_map(|(name, labels, target, to, seconds)| {
        let (origin, role) = labels;
        let labels: Vec<_> = origin
            .map(|origin| (label::ORIGIN, origin))
            .into_iter()
            .chain(role.map(|role| (label::ROLE, role)))
            .collect();
        timeout(&name, &labels, target, to, seconds)
    })
}

proptest! {
    #[test]
    fn the_order_is_total_and_says_the_same_both_ways(
        [a, b, c] in proptest::array::uniform3(any_policy()),
    ) {
        prop_assert_eq!(a.order.cmp(&b.order), b.order.cmp(&a.order).reverse());
        if a.order <= b.order && b.order <= c.order {
            prop_assert!(a.order <= c.order);
        }
    }

    #[test]
    fn what_policies_say_does_not_depend_on_the_order_they_came_in(
        policies in proptest::collection::vec(any_policy(), 0..6),
        seed: u64,
    ) {
        // Two policies of one name do not exist.
        let mut unique: Vec<Arc<Applied>> = Vec::new();
        for policy in policies {
            if unique.iter().all(|other| other.order != policy.order) {
                unique.push(policy);
            }
        }
        let mut shuffled = unique.clone();
        let count = shuffled.len();
        for i in 0..count {
            shuffled.swap(i, (seed as usize).wrapping_mul(31 + i) % count);
        }
        prop_assert_eq!(seconds(&unique), seconds(&shuffled));
    }

    #[test]
    fn a_policy_said_twice_says_the_same(policies in proptest::collection::vec(any_policy(), 0..4)) {
        let twice: Vec<_> = policies.iter().chain(&policies).cloned().collect();
        let mut sorted = policies;
        sort(&mut sorted);
        // Only where no two of them are at one place of the order is "twice" well defined.
        prop_assume!(sorted.windows(2).all(|pair| pair[0].order != pair[1].order));
        prop_assert_eq!(seconds(&sorted), seconds(&twice));
    }
}
