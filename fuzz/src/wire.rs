//! Protobuf as it lies on the wire, without knowing which message it is.

/// A field: its number and what it holds.
pub(crate) type Field = (u32, Wire);

/// What a field holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wire {
    /// A varint.
    Number(u64),
    /// Eight bytes.
    Eight([u8; 8]),
    /// Bytes, a text or a message.
    Bytes(Vec<u8>),
    /// Four bytes.
    Four([u8; 4]),
}

/// The fields of a message; `None` if it is none.
pub(crate) fn parse(mut bytes: &[u8]) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let number = u32::try_from(key >> 3).ok().filter(|number| *number > 0)?;
        let wire = match key & 7 {
            0 => Wire::Number(varint(&mut bytes)?),
            1 => Wire::Eight(take(&mut bytes, 8)?.try_into().ok()?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                Wire::Bytes(take(&mut bytes, length)?.to_vec())
            }
            5 => Wire::Four(take(&mut bytes, 4)?.try_into().ok()?),
            _ => return None,
        };
        fields.push((number, wire));
    }
    Some(fields)
}

/// The message of these fields.
pub(crate) fn print(fields: &[Field]) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, wire) in fields {
        let key = |kind: u64| u64::from(*number) << 3 | kind;
        match wire {
            Wire::Number(value) => {
                put(&mut out, key(0));
                put(&mut out, *value);
            }
            Wire::Eight(bytes) => {
                put(&mut out, key(1));
                out.extend(bytes);
            }
            Wire::Bytes(bytes) => {
                put(&mut out, key(2));
                put(&mut out, bytes.len() as u64);
                out.extend(bytes);
            }
            Wire::Four(bytes) => {
                put(&mut out, key(5));
                out.extend(bytes);
            }
        }
    }
    out
}

/// All that the fields `number` hold, as far as it is bytes.
pub(crate) fn all(fields: &[Field], number: u32) -> impl Iterator<Item = &[u8]> {
    fields.iter().filter_map(move |(found, wire)| match wire {
        Wire::Bytes(bytes) if *found == number => Some(bytes.as_slice()),
        Wire::Bytes(_) | Wire::Number(_) | Wire::Eight(_) | Wire::Four(_) => None,
    })
}

/// What the first field `number` holds.
pub(crate) fn bytes(fields: &[Field], number: u32) -> Option<&[u8]> {
    all(fields, number).next()
}

/// The first number in a field `number`; 0 if there is none.
pub(crate) fn number(fields: &[Field], number: u32) -> u64 {
    let first = fields.iter().find_map(|(found, wire)| match wire {
        Wire::Number(value) if *found == number => Some(*value),
        Wire::Bytes(_) | Wire::Number(_) | Wire::Eight(_) | Wire::Four(_) => None,
    });
    first.unwrap_or_default()
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let [byte] = take(bytes, 1)? else { return None };
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;
    use proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;

    #[test]
    fn a_message_is_taken_apart_and_put_together_again() {
        let request = DeltaDiscoveryRequest {
            type_url: "Mesh".into(),
            response_nonce: "x".repeat(300),
            initial_resource_versions: [("a.".into(), "1".into())].into(),
            ..DeltaDiscoveryRequest::default()
        };
        let bytes = request.encode_to_vec();
        let fields = parse(&bytes).unwrap();
        assert_eq!(print(&fields), bytes);
        assert_eq!(super::bytes(&fields, 2), Some(&b"Mesh"[..]));
        for cut in 1..bytes.len() {
            let whole = parse(&bytes[..cut]).is_none_or(|fields| print(&fields) == bytes[..cut]);
            assert!(whole, "{cut}");
        }
        let four =
            [(3, Wire::Four([1, 2, 3, 4])), (4, Wire::Eight([7; 8])), (5, Wire::Number(u64::MAX))];
        assert_eq!(parse(&print(&four)).unwrap(), four);
        assert_eq!(number(&four, 5), u64::MAX);
    }
}
