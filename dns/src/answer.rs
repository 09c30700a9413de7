//! What to answer to a message: a function of the message and of the records.

use crate::records::{Found, Records};
use hickory_proto::{
    op::{Edns, Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, LowerName, Name, RData, Record, RecordType,
        rdata::{A, AAAA, SOA},
    },
    serialize::binary::{BinDecodable, BinDecoder},
};
use std::{net::IpAddr, sync::Arc};

/// How long others may remember an address.
const TTL: u32 = 30;
/// How long others may remember that there is none: a service may appear any moment.
const NEGATIVE_TTL: u32 = 5;
/// What fits into one packet nearly everywhere, also over IPv6.
const UDP_LIMIT: u16 = 1232;
/// What fits without EDNS.
const UDP_LIMIT_WITHOUT_EDNS: u16 = 512;

/// Which names are answered here.
#[derive(Debug)]
pub(crate) struct Authority {
    pub(crate) apexes: Vec<LowerName>,
    pub(crate) records: Arc<Records>,
}

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    /// Nothing is sent: it is no query, or too short to be answered.
    Nothing,
    /// This is sent.
    Now(Message),
    /// Somebody else knows. The response is complete but for what they say.
    Forward(Query, Message),
}

/// How a response travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

impl Authority {
    pub(crate) fn answer(&self, bytes: &[u8]) -> Answer {
        let Ok(header) = Header::read(&mut BinDecoder::new(bytes)) else { return Answer::Nothing };
        if header.metadata.message_type == MessageType::Response {
            return Answer::Nothing;
        }
        let mut response = Message::response(header.metadata.id, header.metadata.op_code);
        response.metadata = Metadata::response_from_request(&header.metadata);
        response.metadata.recursion_available = true;
        let refused = |mut response: Message, code| {
            response.metadata.response_code = code;
            Answer::Now(response)
        };
        if header.metadata.op_code != OpCode::Query {
            return refused(response, ResponseCode::NotImp);
        }
        // Counted before anything is decoded: 65,535 records could be announced in twelve bytes.
        let counts = header.counts;
        let one_question = counts.queries == 1 && counts.answers == 0 && counts.authorities == 0;
        if !one_question || counts.additionals > 2 {
            return refused(response, ResponseCode::FormErr);
        }
        let Ok(request) = Message::from_vec(bytes) else {
            return refused(response, ResponseCode::FormErr);
        };
        let Some(query) = request.queries.into_iter().next() else {
            return refused(response, ResponseCode::FormErr);
        };
        // The name as it was written: some resolvers compare the case.
        response.add_query(query.clone());
        if let Some(edns) = &request.edns {
            let mut ours = Edns::new();
            ours.set_max_payload(edns.max_payload().clamp(UDP_LIMIT_WITHOUT_EDNS, UDP_LIMIT));
            response.set_edns(ours);
            if edns.version() > 0 {
                return refused(response, ResponseCode::BADVERS);
            }
        }
        if query.query_class() != DNSClass::IN
            || matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR)
        {
            return refused(response, ResponseCode::Refused);
        }
        self.answer_query(query, response)
    }

    fn answer_query(&self, query: Query, mut response: Message) -> Answer {
        let name = LowerName::new(query.name());
        let found = self.records.find(&name.to_string());
        let apex = self.apexes.iter().find(|apex| apex.zone_of(&name));
        let apex: Name = match (&found, apex) {
            (_, Some(apex)) => apex.into(),
            // It was given to us, so it is ours, wherever it is.
            (Found::Addresses(_), None) => name.clone().into(),
            (Found::Above | Found::Absent | Found::Unknown, None) => {
                return Answer::Forward(query, response);
            }
        };
        if found == Found::Unknown {
            response.metadata.response_code = ResponseCode::ServFail;
            return Answer::Now(response);
        }
        response.metadata.authoritative = true;
        let at_apex = LowerName::new(&apex) == name;
        let addresses = match &found {
            Found::Addresses(addresses) => addresses.as_ref(),
            Found::Above | Found::Absent | Found::Unknown => &[],
        };
        let asked = |address: &IpAddr| match (query.query_type(), address) {
            (RecordType::A, IpAddr::V4(address)) => Some(RData::A(A(*address))),
            (RecordType::AAAA, IpAddr::V6(address)) => Some(RData::AAAA(AAAA(*address))),
            _ => None,
        };
        for data in addresses.iter().filter_map(asked) {
            response.add_answer(Record::from_rdata(query.name().clone(), TTL, data));
        }
        if at_apex && query.query_type() == RecordType::SOA {
            response.add_answer(self.soa(apex));
            return Answer::Now(response);
        }
        if response.answers.is_empty() {
            if found == Found::Absent && !at_apex {
                response.metadata.response_code = ResponseCode::NXDomain;
            }
            response.add_authority(self.soa(apex));
        }
        Answer::Now(response)
    }

    fn soa(&self, apex: Name) -> Record {
        let below =
            |label: &str| Name::from_ascii(label).and_then(|name| name.append_domain(&apex));
        let (server, mailbox) = (below("ns"), below("hostmaster"));
        let soa = SOA::new(
            server.unwrap_or_else(|_| apex.clone()),
            mailbox.unwrap_or_else(|_| apex.clone()),
            self.records.changes(),
            3600,
            600,
            86_400,
            NEGATIVE_TTL,
        );
        Record::from_rdata(apex, NEGATIVE_TTL, RData::SOA(soa))
    }
}

/// A response as bytes. One that does not fit says so, and the client asks again over TCP.
pub(crate) fn encode(response: &Message, transport: Transport) -> Option<Vec<u8>> {
    let limit = match (transport, &response.edns) {
        (Transport::Tcp, _) => u16::MAX,
        (Transport::Udp, Some(edns)) => edns.max_payload(),
        (Transport::Udp, None) => UDP_LIMIT_WITHOUT_EDNS,
    };
    let bytes = response.to_vec().ok()?;
    if bytes.len() <= usize::from(limit) {
        return Some(bytes);
    }
    let mut cut = response.clone();
    cut.answers.clear();
    cut.authorities.clear();
    cut.additionals.clear();
    cut.metadata.truncation = true;
    cut.to_vec().ok()
}
