use super::*;
use crate::metadata;
use delta::Version;

fn zone() -> ZoneName {
    ZoneName::new("east").unwrap()
}

fn ours() -> Dialect {
    Dialect::Ours(metadata::own_features())
}

#[test]
fn a_node_says_what_an_introduction_knows() {
    let introduction = Introduction {
        features: own_features(),
        version: KumaCpVersion {
            version: "1.2.3".into(),
            git_commit: "abc".into(),
            ..KumaCpVersion::default()
        },
        config: r#"{"store":{"type":"memory"}}"#.into(),
        instance: "host-1".into(),
    };
    let node = introduction.node(&zone());
    assert_eq!(node.id, "east");
    assert_eq!(Introduction::of(&node), introduction);
    assert_eq!(Introduction::of(&Node::default()), Introduction::default());
}

#[test]
fn what_is_too_long_is_left_out_of_an_introduction() {
    let introduction =
        Introduction { config: "x".repeat(limit::CONFIG), ..Introduction::default() };
    assert_eq!(Introduction::of(&introduction.node(&zone())), introduction);
    let (config, instance) = ("x".repeat(limit::CONFIG + 1), "x".repeat(limit::NAME + 1));
    let longer = Introduction { config, instance, ..introduction };
    assert_eq!(Introduction::of(&longer.node(&zone())), Introduction::default());
}

#[test]
fn a_node_of_the_wrong_shape_says_nothing() {
    let number = Value { kind: Some(Of::NumberValue(1.0)) };
    let keys = ["version", "config", "control-plane-id", "features"];
    let fields = keys.map(|key| (key.to_owned(), number.clone())).into();
    let node = Node { metadata: Some(Struct { fields }), ..Node::default() };
    assert_eq!(Introduction::of(&node), Introduction::default());
}

fn start(start: &Start, dialect: Dialect) -> Start {
    let request = first_request(Introduction::default().node(&zone()), "MeshTimeout", start);
    match read_request(&request, &zone(), dialect).unwrap() {
        Said::First(start) => start,
        Said::Answered(..) => panic!("{request:?}"),
    }
}

#[test]
fn a_first_request_says_where_its_sender_was() {
    let refused: Versions = [("a.default".into(), Version([7; 16]))].into();
    let cursor = Cursor { epoch: 0xe, revision: 7 };
    let resume = Start::Resume { cursor, refused: refused.clone() };
    let said = start(&resume, ours());
    let Start::Resume { cursor: at, refused: but } = said else { panic!("{said:?}") };
    assert_eq!((at, but), (cursor, refused));
    assert!(matches!(start(&Start::Fresh, ours()), Start::Fresh));
    // To one that does not know places it is a name that it does not have.
    let said = start(&resume, Dialect::Plain);
    let Start::Versions(versions) = said else { panic!("{said:?}") };
    assert_eq!(versions.len(), 2);
}

#[test]
fn a_place_that_cannot_be_read_breaks_the_protocol() {
    let mut request = first_request(Introduction::default().node(&zone()), "Mesh", &Start::Fresh);
    for value in ["", "e", "e/", "/7", "g/7", "e/-1", "e/7/1"] {
        request.initial_resource_versions = [(CURSOR.into(), value.into())].into();
        let broken = read_request(&request, &zone(), ours()).unwrap_err();
        assert_eq!(broken, Broken::Start { key: CURSOR.into(), value: value.into() });
    }
}

#[test]
fn a_response_says_how_to_take_it_to_one_of_ours_only() {
    let response = |extent, cursor| Response {
        nonce: Nonce(31),
        extent,
        cursor,
        upserts: [].into(),
        removals: ["old.default".into()].into(),
    };
    let at = Some(Cursor { epoch: 0xabc, revision: 7 });
    let cases = [
        (Extent::Delta, at, "delta abc/7"),
        (Extent::Part, None, "part"),
        (Extent::Complete, at, "complete abc/7"),
    ];
    for (of, cursor, text) in cases {
        let head = head("MeshTimeout", "global", ours(), &response(of, cursor));
        let expected = DeltaDiscoveryResponse {
            system_version_info: text.into(),
            type_url: "MeshTimeout".into(),
            nonce: "31".into(),
            removed_resources: vec!["old.default".into()],
            control_plane: Some(ControlPlane { identifier: "global".into() }),
            ..DeltaDiscoveryResponse::default()
        };
        assert_eq!(head, expected);
        assert_eq!(extent(&head, ours(), false), Ok((of, cursor)));
    }
    let plain = head("MeshTimeout", "global", Dialect::Plain, &response(Extent::Delta, at));
    assert_eq!(plain.system_version_info, "");
    assert_eq!(extent(&plain, Dialect::Plain, true), Ok((Extent::Complete, None)));
    assert_eq!(extent(&plain, Dialect::Plain, false), Ok((Extent::Delta, None)));
    assert_eq!(extent(&plain, ours(), true), Err(Broken::Extent(String::new())));
}

#[test]
fn an_answer_names_what_was_refused() {
    let refusal = Refusal { name: "a.default".into(), reason: "spec.port: too large".into() };
    let nack = answer(&zone(), "MeshTimeout", "7", std::slice::from_ref(&refusal));
    let status = nack.error_detail.clone().unwrap();
    assert_eq!((status.code, &*status.message), (0, "a.default: spec.port: too large"));
    match read_request(&nack, &zone(), Dialect::Plain).unwrap() {
        Said::Answered(nonce, answer, refusals) => {
            assert_eq!(nonce, Nonce(7));
            assert_eq!(answer, Answer::Refused(["a.default".into()].into()));
            assert_eq!(refusals.list, [refusal]);
        }
        Said::First(start) => panic!("{start:?}"),
    }
    let ack = answer(&zone(), "MeshTimeout", "7", &[]);
    let said = read_request(&ack, &zone(), Dialect::Plain).unwrap();
    assert!(matches!(said, Said::Answered(Nonce(7), Answer::Ack, _)), "{said:?}");
}
