use crate::{
    answer::{Answer, Authority, Transport, encode},
    config::parse_apex,
    records::{Change, Records},
};
use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RecordType},
};
use proptest::prelude::*;
use std::{net::IpAddr, sync::Arc};

/// Three services, one of them with addresses of both families and one outside the apexes.
fn authority() -> Authority {
    let records = Records::default();
    let name = |name: &str, addresses: &[&str]| {
        let addresses: Arc<[IpAddr]> = addresses.iter().map(|a| a.parse().unwrap()).collect();
        (name.into(), addresses)
    };
    records.apply(Change {
        upserts: vec![
            name("cart.svc.east.mesh.local", &["240.0.0.1"]),
            name("both.svc.east.mesh.local", &["240.0.0.2", "fd00::2"]),
            name("shop.example", &["240.0.0.3"]),
        ],
        removals: Vec::new(),
    });
    records.complete();
    let apexes = ["mesh.local", "mesh.internal"].map(|apex| parse_apex(apex).unwrap());
    Authority { apexes: apexes.into(), records: Arc::new(records) }
}

fn query(name: &str, record_type: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), record_type));
    message
}

fn answer(query: &Message) -> Answer {
    authority().answer(&query.to_vec().unwrap())
}

/// Everything that matters of a response, as text: what, whose, answers, authorities.
fn said(query: &Message) -> String {
    let response = match answer(query) {
        Answer::Nothing => return "nothing".into(),
        Answer::Forward(query, _) => return format!("forward {query}"),
        Answer::Now(response) => response,
    };
    assert_eq!(response.metadata.id, query.metadata.id);
    assert_eq!(response.metadata.message_type, MessageType::Response);
    assert_eq!(response.metadata.recursion_desired, query.metadata.recursion_desired);
    assert!(response.metadata.recursion_available);
    let mut said = format!("{:?}", response.metadata.response_code);
    if response.metadata.authoritative {
        said += " authoritative";
    }
    for record in &response.answers {
        said += &format!(", {record}");
    }
    for record in &response.authorities {
        said += &format!(" [{} {} {}]", record.name, record.ttl, record.record_type());
    }
    said
}

fn ask(name: &str, record_type: RecordType) -> String {
    said(&query(name, record_type))
}

#[test]
fn a_known_name_has_its_addresses_by_family() {
    assert_eq!(
        ask("cart.svc.east.mesh.local.", RecordType::A),
        "NoError authoritative, cart.svc.east.mesh.local. 30 IN A 240.0.0.1"
    );
    assert_eq!(
        ask("both.svc.east.mesh.local.", RecordType::AAAA),
        "NoError authoritative, both.svc.east.mesh.local. 30 IN AAAA fd00::2"
    );
}

#[test]
fn the_case_of_the_question_does_not_matter_and_comes_back() {
    let query = query("CaRt.svc.EAST.mesh.LOCAL.", RecordType::A);
    assert_eq!(said(&query), "NoError authoritative, CaRt.svc.EAST.mesh.LOCAL. 30 IN A 240.0.0.1");
    let Answer::Now(response) = answer(&query) else { panic!("not answered") };
    assert_eq!(response.queries[0].name().to_ascii(), "CaRt.svc.EAST.mesh.LOCAL.");
}

#[test]
fn what_exists_without_such_records_is_no_error_and_the_rest_does_not_exist() {
    let no_data = "NoError authoritative [mesh.local. 5 SOA]";
    for (name, record_type) in [
        ("cart.svc.east.mesh.local.", RecordType::AAAA),
        ("cart.svc.east.mesh.local.", RecordType::ANY),
        ("cart.svc.east.mesh.local.", RecordType::MX),
        ("cart.svc.east.mesh.local.", RecordType::HTTPS),
        ("svc.east.mesh.local.", RecordType::A),
        ("East.mesh.local.", RecordType::A),
        ("mesh.local.", RecordType::A),
    ] {
        assert_eq!(ask(name, record_type), no_data, "{name} {record_type}");
    }
    let absent = "NXDomain authoritative [mesh.local. 5 SOA]";
    for name in ["absent.svc.east.mesh.local.", "x.cart.svc.east.mesh.local.", "west.mesh.local."] {
        assert_eq!(ask(name, RecordType::A), absent, "{name}");
        assert_eq!(ask(name, RecordType::TXT), absent, "{name}");
    }
    assert_eq!(
        ask("x.mesh.internal.", RecordType::A),
        "NXDomain authoritative [mesh.internal. 5 SOA]"
    );
}

#[test]
fn nothing_is_denied_before_the_records_are_complete() {
    let apexes = vec![parse_apex("mesh.local").unwrap()];
    let authority = Authority { apexes, records: Arc::default() };
    let answer = authority.answer(&query("cart.mesh.local.", RecordType::A).to_vec().unwrap());
    let Answer::Now(response) = answer else { panic!("not answered") };
    assert_eq!(response.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(response.authorities, [], "nothing to remember");
}

#[test]
fn the_apex_has_an_soa() {
    assert_eq!(
        ask("mesh.local.", RecordType::SOA),
        "NoError authoritative, mesh.local. 5 IN SOA ns.mesh.local. hostmaster.mesh.local. 1 3600 600 86400 5"
    );
}

#[test]
fn a_name_that_was_given_to_us_is_ours_wherever_it_is() {
    assert_eq!(
        ask("shop.example.", RecordType::A),
        "NoError authoritative, shop.example. 30 IN A 240.0.0.3"
    );
    assert_eq!(
        ask("shop.example.", RecordType::AAAA),
        "NoError authoritative [shop.example. 5 SOA]"
    );
}

#[test]
fn other_names_are_of_others() {
    for name in ["example.com.", "example.", "xmesh.local.", "local.", ".", "foo\\.mesh.local."] {
        assert_eq!(ask(name, RecordType::A), format!("forward {name} IN A"), "{name}");
    }
}

#[test]
fn what_is_no_question_for_us_is_refused() {
    let base = || query("cart.svc.east.mesh.local.", RecordType::A);
    let mut response = base();
    response.metadata.message_type = MessageType::Response;
    assert_eq!(said(&response), "nothing");

    let mut update = base();
    update.metadata.op_code = OpCode::Update;
    assert_eq!(said(&update), "NotImp");

    let mut two = base();
    two.add_query(two.queries[0].clone());
    assert_eq!(said(&two), "FormErr");
    let mut none = base();
    none.queries.clear();
    assert_eq!(said(&none), "FormErr");

    let mut chaos = base();
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(said(&chaos), "Refused");
    assert_eq!(ask("mesh.local.", RecordType::AXFR), "Refused");
    assert_eq!(ask("example.com.", RecordType::IXFR), "Refused");
}

#[test]
fn messages_that_cannot_be_read_are_format_errors_or_too_short_to_answer() {
    let whole = query("cart.svc.east.mesh.local.", RecordType::A).to_vec().unwrap();
    for len in 0..whole.len() {
        match authority().answer(&whole[..len]) {
            Answer::Nothing => assert!(len < 12, "{len}"),
            Answer::Now(response) => {
                assert!(len >= 12);
                assert_eq!(response.metadata.response_code, ResponseCode::FormErr);
            }
            Answer::Forward(..) => panic!("forwarded at {len}"),
        }
    }
    // A name that points to itself.
    let looped = [&whole[..12], &[0xc0, 12, 0, 1, 0, 1]].concat();
    assert_eq!(code(&looped), ResponseCode::FormErr);
    // 65,535 records announced in twelve bytes.
    let announced = [&whole[..10], &[0xff, 0xff], &whole[12..]].concat();
    assert_eq!(code(&announced), ResponseCode::FormErr);
}

fn code(bytes: &[u8]) -> ResponseCode {
    let Answer::Now(response) = authority().answer(bytes) else { panic!("not answered") };
    response.metadata.response_code
}

fn with_edns(max_payload: u16, version: u8) -> Message {
    let mut query = query("cart.svc.east.mesh.local.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_max_payload(max_payload).set_version(version);
    query.set_edns(edns);
    query
}

#[test]
fn edns_is_answered_with_a_size_that_fits_into_a_packet() {
    for (offered, granted) in [(512, 512), (1000, 1000), (1232, 1232), (4096, 1232), (0, 512)] {
        let Answer::Now(response) = answer(&with_edns(offered, 0)) else { panic!("not answered") };
        assert_eq!(response.edns.map(|edns| edns.max_payload()), Some(granted), "{offered}");
    }
    let Answer::Now(response) = answer(&with_edns(1232, 1)) else { panic!("not answered") };
    let back = Message::from_vec(&response.to_vec().unwrap()).unwrap();
    // BADSIG is the same number, in signatures.
    assert_eq!(u16::from(back.metadata.response_code), u16::from(ResponseCode::BADVERS));
    assert_eq!(back.answers, []);
}

#[test]
fn what_does_not_fit_into_a_datagram_says_so() {
    let authority = authority();
    let addresses: Vec<IpAddr> = (0..60).map(|i| IpAddr::from([240, 0, 1, i])).collect();
    let upserts = vec![("many.mesh.local".into(), addresses.into())];
    authority.records.apply(Change { upserts, removals: Vec::new() });
    let response = |query: &Message| {
        let Answer::Now(response) = authority.answer(&query.to_vec().unwrap()) else {
            panic!("not answered")
        };
        response
    };
    let sent = |response: &Message, transport| {
        let bytes = encode(response, transport).unwrap();
        let message = Message::from_vec(&bytes).unwrap();
        (bytes.len(), message.metadata.truncation, message.answers.len())
    };
    let mut query = query("many.mesh.local.", RecordType::A);
    assert_eq!(sent(&response(&query), Transport::Udp), (33, true, 0));
    assert_eq!(sent(&response(&query), Transport::Tcp), (33 + 60 * 16, false, 60));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    query.set_edns(edns);
    assert_eq!(sent(&response(&query), Transport::Udp), (33 + 11 + 60 * 16, false, 60));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_can_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        encoded(&authority().answer(&bytes));
    }

    #[test]
    fn no_change_of_a_query_can_do_harm(
        changes in proptest::collection::vec((0..100_usize, any::<u8>()), 1..5),
        cut in 0..100_usize,
    ) {
        let mut bytes = with_edns(1232, 0).to_vec().unwrap();
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        bytes.truncate(bytes.len() - cut % bytes.len() / 2);
        encoded(&authority().answer(&bytes));
    }
}

/// A response can be sent, and fits.
fn encoded(answer: &Answer) {
    if let Answer::Now(response) | Answer::Forward(_, response) = answer {
        for transport in [Transport::Udp, Transport::Tcp] {
            let bytes = encode(response, transport).expect("what was read can be written");
            assert!(transport == Transport::Tcp || bytes.len() <= 1232);
        }
    }
}
