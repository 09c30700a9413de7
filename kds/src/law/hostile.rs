//! The law for peers that mean ill: whatever a peer sends, on either stream and at either end,
//! nothing panics, nothing is touched that is not its own, others are served meanwhile, and a good
//! stream afterwards brings all to where it belongs.

use super::{
    ends::{self, End, World},
    histories,
};
use crate::{
    apply::{Names, Sender, Visibility, Who},
    dialect::{Dialect, Introduction, answer, first_request, own_features},
    ended::StreamEnded,
    fetch::{Asking, Places, Taken},
    metadata,
    quota::{Quota, Quotas},
    serve::{Due, Offering},
    testkinds::{SERVICE, TIMEOUT, zone},
    transit::{Hop, hashed_name},
};
use bytes::Bytes;
use delta::Start;
use prop::sample::select;
use proptest::{collection::vec, option, prelude::*};
use prost::Message as _;
use prost_types::{Any, Struct, Value, value::Kind as Of};
use proto::{
    envoy::{
        config::core::v3::Node,
        service::discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource as Wrapped,
        },
    },
    google::rpc::Status,
    kuma::mesh::v1alpha1::{KumaResource, kuma_resource::Meta},
};
use resource::{Labels, Peer as Side, Resource, ResourceKey, label};
use std::{collections::BTreeMap, sync::Arc};
use store::view::Revision;

const KINDS: [&str; 6] = ["MeshTimeout", "MeshService", "Mesh", "Config", "Invention", ""];
const NONCES: [&str; 7] = ["", "0", "1", "2", "3", "no number", "18446744073709551616"];
const EXTENTS: [&str; 9] = [
    "",
    "delta",
    "part",
    "complete",
    "complete 1/2",
    "delta 1/3",
    "delta 1/18446744073709551616",
    "part 1/2",
    "whole",
];
/// More than a zone has.
const QUOTA: Quota = Quota { resources: 8, bytes: 4096 };

fn text(all: &'static [&'static str]) -> impl Strategy<Value = String> {
    select(all).prop_map(str::to_owned)
}

/// Names in transit: of somebody, of nobody, and of nothing at all.
fn name() -> impl Strategy<Value = String> {
    let of = |owner: usize, key: u8| {
        let display = format!("key-{key}");
        let mesh = "default".parse().unwrap();
        hashed_name(Some(&mesh), &display, [ends::ZONES[owner], None])
    };
    prop_oneof![
        4 => (0..3_usize, 0..3_u8).prop_map(move |(owner, key)| of(owner, key)),
        1 => text(&["key-0", "", ".", "..", "A b", "ä", "\0"]),
        1 => Just("x".repeat(700)),
    ]
}

fn transit() -> impl Strategy<Value = String> {
    (name(), text(&[".default", ".", "", ".No", ".."])).prop_map(|(name, mesh)| name + &mesh)
}

fn node() -> impl Strategy<Value = Option<Node>> {
    let introduced = Introduction { features: own_features(), ..Introduction::default() };
    let bare = |id: String| Node { id, ..Node::default() };
    prop_oneof![
        6 => Just(Some(introduced.node(&zone("east")))),
        6 => Just(Some(bare("east".into()))),
        1 => text(&["west", "", "\u{202e}"]).prop_map(move |id| Some(bare(id))),
        1 => Just(None),
    ]
}

fn refusal() -> impl Strategy<Value = Status> {
    let names = vec(transit(), 0..3);
    (text(&["", "user error\nno"]), names, any::<bool>()).prop_map(|(message, names, listed)| {
        let reason = |name| (name, Value { kind: Some(Of::StringValue("no".into())) });
        let list = Struct { fields: names.into_iter().map(reason).collect() };
        let type_url = "type.googleapis.com/google.protobuf.Struct".into();
        let value = if listed { list.encode_to_vec() } else { vec![0xff; 3] };
        Status { code: 0, message, details: vec![Any { type_url, value }] }
    })
}

fn request() -> impl Strategy<Value = DeltaDiscoveryRequest> {
    let key = prop_oneof![transit(), Just("atoll-cursor".to_owned())];
    let versions = vec((key, text(&["1/2", "1/99", "9/1", "abc", "", "/", "-1/0"])), 0..4);
    let subscribes = vec(text(&["*", "*", "*", "default."]), 0..2);
    let said = (node(), text(&KINDS), text(&NONCES), subscribes);
    (said, versions, option::weighted(0.2, refusal())).prop_map(
        |((node, type_url, response_nonce, resource_names_subscribe), versions, error_detail)| {
            DeltaDiscoveryRequest {
                node,
                type_url,
                response_nonce,
                resource_names_subscribe,
                initial_resource_versions: versions.into_iter().collect(),
                error_detail,
                ..DeltaDiscoveryRequest::default()
            }
        },
    )
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    let keys = text(&[label::ORIGIN, label::ZONE, label::DISPLAY_NAME, "", "a/b/c"]);
    let values = text(&["zone", "global", "east", "west", "key-0", "key-1", "", "\n"]);
    vec((keys, values), 0..5).prop_map(|all| all.into_iter().collect())
}

/// As a good peer of global, or of east, would have it, but for its name and its content.
fn resource() -> impl Strategy<Value = KumaResource> {
    let specs = [
        r#"{"seconds":1}"#,
        r#"{"seconds":100}"#,
        r#"{"port":1}"#,
        r#"{"config":"c1"}"#,
        "{}",
        "{",
        "",
    ];
    let any = |value: Option<&str>| {
        value.map(|value| Any { type_url: String::new(), value: value.as_bytes().to_vec() })
    };
    let spec = option::weighted(0.9, select(specs.to_vec()));
    let status = option::weighted(0.3, select(vec!["", "{}", "{", "null"]));
    let meta = (name(), text(&["default", "default", "default", "", "No"]), labels());
    (option::weighted(0.95, meta), spec, status).prop_map(move |(meta, spec, status)| {
        let meta = meta.map(|(name, mesh, labels)| Meta { name, mesh, labels, ..Meta::default() });
        KumaResource { meta, spec: any(spec), status: any(status) }
    })
}

fn wrapped() -> impl Strategy<Value = Wrapped> {
    let kuma = || "type.googleapis.com/kuma.mesh.v1alpha1.KumaResource".to_owned();
    let inner = prop_oneof![
        1 => Just(None),
        1 => Just(Some(Any { type_url: kuma(), value: vec![0xff; 9] })),
        1 => Just(Some(Any { type_url: "no/Other".into(), value: Vec::new() })),
        9 => resource().prop_map(move |it| Some(Any { type_url: kuma(), value: it.encode_to_vec() })),
    ];
    (transit(), text(&["", "abc", "zz"]), inner).prop_map(|(name, version, resource)| Wrapped {
        name,
        version,
        resource,
        ..Wrapped::default()
    })
}

fn response() -> impl Strategy<Value = DeltaDiscoveryResponse> {
    let said = (text(&KINDS), text(&NONCES), text(&EXTENTS));
    (said, vec(wrapped(), 0..5), vec(transit(), 0..4)).prop_map(
        |((type_url, nonce, system_version_info), resources, removed_resources)| {
            DeltaDiscoveryResponse {
                type_url,
                nonce,
                system_version_info,
                resources,
                removed_resources,
                ..DeltaDiscoveryResponse::default()
            }
        },
    )
}

/// What a peer that means ill does.
#[derive(Clone, Debug)]
enum Step {
    Asks(Box<DeltaDiscoveryRequest>),
    Says(DeltaDiscoveryResponse),
    /// Its stream breaks, and it comes back as one of ours or as a plain one.
    Reconnects {
        ours: bool,
    },
    /// What was applied until now is saved.
    Saved,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => request().prop_map(|it| Step::Asks(Box::new(it))),
        8 => response().prop_map(Step::Says),
        1 => any::<bool>().prop_map(|ours| Step::Reconnects { ours }),
        1 => Just(Step::Saved),
    ]
}

fn dialect(ours: bool) -> Dialect {
    if ours { Dialect::Ours(metadata::own_features()) } else { Dialect::Plain }
}

fn introduction() -> Introduction {
    Introduction { features: own_features(), ..Introduction::default() }
}

/// A zone that is served all the time.
struct West(Offering);

impl West {
    fn begin(global: &End) -> Self {
        let history = (global.reader.clone(), 1);
        let peer = (&zone("west"), Dialect::Plain);
        let mut west =
            Self(Offering::new(history, global.kinds.clone(), Hop::Down, peer, usize::MAX));
        let node = introduction().node(&zone("west"));
        west.hears(&first_request(node, TIMEOUT.name, &Start::Fresh));
        west.takes(global);
        west
    }

    fn hears(&mut self, request: &DeltaDiscoveryRequest) {
        let due = self.0.received(request, &ends::report()).unwrap();
        assert!(matches!(due, Due::Kind(_)), "{due:?}");
    }

    /// Takes what is due; how many resources that is.
    fn takes(&mut self, global: &End) -> usize {
        let due = self.0.next(global.id(TIMEOUT), &ends::report()).unwrap();
        let Some(frame) = due else { return 0 };
        let response = DeltaDiscoveryResponse::decode(frame.to_bytes()).unwrap();
        self.hears(&answer(&zone("west"), TIMEOUT.name, &response.nonce, &[]));
        response.resources.len()
    }
}

/// Global offers to a zone that asks for anything, and a zone is told anything by its global.
fn live_down(ours: bool, steps: impl IntoIterator<Item = Step>) {
    let mut world = World::new(ours);
    world.put(0, 1, 0);
    world.put(1, 1, 2);
    world.settle();
    world.save();
    let mut west = West::begin(&world.global);
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Asks(request) => {
                let heard = world.offering.received(&request, &ends::report());
                let kinds: Vec<_> = world.global.kinds.iter().map(|(id, _)| id).collect();
                let next = |offering: &mut Offering| {
                    kinds.iter().try_for_each(|id| offering.next(*id, &ends::report()).map(drop))
                };
                if heard.map(drop).and_then(|()| next(&mut world.offering)).is_err() {
                    world.connect(ours, false);
                }
            }
            Step::Says(response) => {
                let taken = world.asking.take(response, &world.zone.reader);
                match taken {
                    Ok(Taken::Ready(ready)) => {
                        ready.iter().for_each(|incoming| world.apply(incoming));
                    }
                    Ok(Taken::Refused(_)) => {}
                    Ok(Taken::Held(_)) | Err(_) => world.connect(ours, false),
                }
            }
            Step::Reconnects { ours } => world.connect(ours, true),
            Step::Saved => world.save(),
        }
        world.put(2, u8::try_from(number % 3).unwrap(), 0);
        assert!(west.takes(&world.global) <= 1, "nothing comes twice");
    }
    // As a plain one it gets everything anew, wherever it was told that it is.
    world.connect(false, true);
    world.settle();
    world.check();
}

/// A global that is told anything by a zone.
struct Up {
    global: End,
    asking: Asking,
}

fn asking(global: &End, ours: bool) -> Asking {
    let who = Who::Zone { name: zone("east"), visibility: Visibility::Shown, names: Names::Hashed };
    let sender = Sender { who, dialect: dialect(ours) };
    let quotas = Quotas { all: QUOTA, ..Quotas::NONE };
    Asking::of_zone(global.kinds.clone(), sender, &zone("east"), &Places::new())
        .within(Arc::new(quotas))
}

impl Up {
    fn new(ours: bool) -> Self {
        let global = End::new(Side::Zone, 64);
        for (owner, zone) in ends::ZONES.iter().enumerate().filter(|(owner, _)| *owner != 1) {
            for key in 0..3 {
                let display = format!("key-{key}");
                let labels = Labels::from_iter([(label::DISPLAY_NAME, &*display)]);
                let labels = match zone {
                    None => labels,
                    Some(zone) => labels.with(label::ORIGIN, "zone").with(label::ZONE, zone),
                };
                let mesh = "default".parse().unwrap();
                let name = hashed_name(Some(&mesh), &display, [ends::ZONES[owner], None]);
                let spec = Bytes::from(r#"{"seconds":7}"#);
                let key = ends::key(TIMEOUT, &name);
                let row = TIMEOUT.resource(key, labels, spec, Bytes::new(), Side::Zone).unwrap();
                global.put(TIMEOUT, row);
            }
        }
        let asking = asking(&global, ours);
        Self { global, asking }
    }

    fn rows(&self, is: impl Fn(&Resource) -> bool) -> Vec<Arc<Resource>> {
        let all = [TIMEOUT, SERVICE].map(|kind| self.global.reader.rows(self.global.id(kind)).1);
        let all = all.iter().flat_map(|rows| rows.iter().cloned().collect::<Vec<_>>());
        all.filter(|row| is(row)).collect()
    }

    /// What there is and is not east's.
    fn others(&self) -> Vec<(ResourceKey, resource::Version)> {
        let others = self.rows(|row| row.head.audience.owner != Some(zone("east")));
        others.iter().map(|row| (row.head.key.clone(), row.head.version)).collect()
    }

    fn hear(
        &mut self,
        response: DeltaDiscoveryResponse,
    ) -> Result<Vec<DeltaDiscoveryRequest>, StreamEnded> {
        let ready = match self.asking.take(response, &self.global.reader)? {
            Taken::Ready(ready) => ready,
            Taken::Refused(answer) => return Ok(vec![*answer]),
            Taken::Held(held) => panic!("a zone is not held: {held:?}"),
        };
        let mut answers = Vec::new();
        for incoming in ready {
            let mut judged = self.asking.judge(&self.global.reader, &incoming);
            let batch = std::mem::take(&mut judged.batch);
            let edits: Vec<_> = batch.into_iter().map(|item| (item.kind, item.edit)).collect();
            let revision =
                if edits.is_empty() { Revision(0) } else { self.global.writer.apply(edits) };
            answers.push(self.asking.applied(&incoming, judged, revision, &ends::report()));
        }
        Ok(answers)
    }
}

fn live_up(ours: bool, steps: impl IntoIterator<Item = Step>) {
    let mut up = Up::new(ours);
    let others = up.others();
    for step in steps {
        match step {
            Step::Says(response) => {
                let nonce = response.nonce.clone();
                match up.hear(response) {
                    Ok(answers) => {
                        let said: Vec<_> = answers.iter().map(|it| &it.response_nonce).collect();
                        assert_eq!(said, [&nonce], "each response is answered once");
                    }
                    Err(_) => up.asking = asking(&up.global, ours),
                }
            }
            Step::Reconnects { ours } => up.asking = asking(&up.global, ours),
            Step::Asks(_) | Step::Saved => {}
        }
        assert_eq!(up.others(), others, "nobody else's is touched");
        let usage = up.global.reader.usage(&zone("east"));
        assert!(usage.resources <= QUOTA.resources && usage.bytes <= QUOTA.bytes, "{usage:?}");
    }
    // Now it is a good one.
    let east = End::new(Side::Global, 64);
    let own = Labels::from_iter([(label::ORIGIN, "zone"), (label::ZONE, "east")]);
    let spec = Bytes::from(r#"{"seconds":5}"#);
    let web = TIMEOUT.resource(ends::key(TIMEOUT, "web"), own, spec, Bytes::new(), Side::Global);
    east.put(TIMEOUT, web.unwrap());
    let history = (east.reader.clone(), 1);
    let of = (&zone("east"), dialect(ours));
    let hop = Hop::Up(zone("east"));
    let mut offering = Offering::new(history, east.kinds.clone(), hop, of, usize::MAX);
    up.asking = asking(&up.global, ours);
    let mut requests = up.asking.requests(&introduction());
    while let Some(request) = requests.pop() {
        let due = offering.received(&request, &ends::report()).unwrap();
        let frame = match due {
            Due::Kind(kind) => offering.next(kind, &ends::report()).unwrap(),
            Due::Frame(frame) => Some(frame),
            Due::Nothing => None,
        };
        if let Some(frame) = frame {
            let response = DeltaDiscoveryResponse::decode(frame.to_bytes()).unwrap();
            let answers = up.hear(response).unwrap();
            assert!(answers.iter().all(|answer| answer.error_detail.is_none()), "{answers:?}");
            requests.extend(answers);
        }
    }
    let rows = up.rows(|row| row.head.audience.owner == Some(zone("east")));
    let specs: Vec<&[u8]> = rows.iter().map(|row| &*row.spec).collect();
    assert_eq!(specs, [br#"{"seconds":5}"#], "what it sent before is gone");
    assert_eq!(up.others(), others);
}

proptest! {
    #![proptest_config(histories(1000))]

    #[test]
    fn whatever_a_zone_asks_and_a_global_says(
        ours in any::<bool>(),
        steps in vec(step(), 1..40),
    ) {
        live_down(ours, steps);
    }

    #[test]
    fn whatever_a_zone_says(ours in any::<bool>(), steps in vec(step(), 1..40)) {
        live_up(ours, steps);
    }
}
