//! Requests that no Envoy sends: each is taken or ends its stream, and an answer counts once, for
//! something that was sent.

use super::{Event, Session, tests::Truth};
use crate::snapshot::Type;
use delta::Update;
use proptest::prelude::*;
use proto::{envoy::service::discovery::v3::DeltaDiscoveryRequest, google::rpc};
use std::collections::BTreeMap;

const NAMES: [&str; 6] = ["a", "b", "*", "", "sni.a", "é\u{0}"];

fn names() -> impl Strategy<Value = Vec<String>> {
    let name =
        prop_oneof![4 => prop::sample::select(&NAMES[..]).prop_map(str::to_owned), 1 => ".{0,40}"];
    prop::collection::vec(name, 0..4)
}

fn kind() -> impl Strategy<Value = Type> {
    prop::sample::select(&Type::ALL[..])
}

fn hostile() -> impl Strategy<Value = DeltaDiscoveryRequest> {
    let url = prop_oneof![30 => kind().prop_map(|kind| kind.url().to_owned()), 1 => ".{0,40}"];
    let nonce = prop_oneof![
        4 => Just(String::new()),
        8 => (0..12_u8).prop_map(|nonce| nonce.to_string()),
        1 => ".{0,30}",
        1 => Just(u64::MAX.to_string()),
    ];
    let refusal = prop::option::weighted(0.3, "(Error adding .* a: .{0,30})|.{0,60}");
    let held = prop::collection::btree_map(".{0,3}", ".{0,20}", 0..3);
    (url, nonce, names(), names(), held, refusal).prop_map(
        |(type_url, response_nonce, subscribe, unsubscribe, held, refusal)| DeltaDiscoveryRequest {
            type_url,
            response_nonce,
            resource_names_subscribe: subscribe,
            resource_names_unsubscribe: unsubscribe,
            initial_resource_versions: held.into_iter().collect(),
            error_detail: refusal.map(|message| rpc::Status { message, ..rpc::Status::default() }),
            ..DeltaDiscoveryRequest::default()
        },
    )
}

#[derive(Clone, Debug)]
enum Step {
    Request(Box<DeltaDiscoveryRequest>),
    Change(Type, usize, Option<u8>),
    Send,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => hostile().prop_map(|request| Step::Request(Box::new(request))),
        2 => (kind(), 0..NAMES.len(), prop::option::of(0..4_u8))
            .prop_map(|(kind, name, content)| Step::Change(kind, name, content)),
        4 => Just(Step::Send),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn no_requests_can_do_harm(steps in prop::collection::vec(step(), 1..40)) {
        let (truth, mut changes) = Truth::new();
        truth.put(Type::Cluster, "a", "1");
        let (mut session, mut sent) = (Session::default(), BTreeMap::<Type, Vec<Update>>::new());
        for step in steps {
            match step {
                Step::Change(kind, name, content) => {
                    let content = content.map(|content| content.to_string());
                    truth.change([(kind, NAMES[name], content.as_deref())]);
                }
                Step::Request(hostile) => {
                    let Ok(event) = session.request(*hostile, &truth) else { return Ok(()) };
                    let (kind, update) = match event {
                        Some(Event::Acked { kind, update } | Event::Refused { kind, update, .. }) => {
                            (kind, update)
                        }
                        Some(_) => {
                            return Err(TestCaseError::fail("a request sends nothing"));
                        }
                        None => continue,
                    };
                    let waiting = sent.entry(kind).or_default();
                    let at = waiting.iter().position(|it| *it == update);
                    prop_assert!(at.is_some(), "{kind:?} {update:?} was not sent, or answered before");
                    waiting.remove(at.unwrap());
                }
                Step::Send => {
                    session.mark(changes.take());
                    while let Some((_, Event::Sent { kind, update })) = session.next(&truth, &changes)
                    {
                        sent.entry(kind).or_default().push(update);
                    }
                }
            }
        }
    }
}
