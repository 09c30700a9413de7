//! Changes an input as what it is: a message by its fields, JSON by its values, else by its bytes.

use crate::wire::{self, Field, Wire};
use fastrand::Rng;
use serde_json::{Map, Value, json};

/// Deeper than this an input is only bytes.
const DEPTH: usize = 12;

/// Texts that mean something somewhere, or ought to mean nothing.
const TEXTS: &[&str] = &[
    "",
    "*",
    ".",
    "..",
    "a.",
    ".a",
    "default",
    "a.default",
    "east",
    "west",
    "global",
    "zone",
    "kuma-cluster-id",
    "kuma.io/origin",
    "kuma.io/zone",
    "kuma.io/mesh",
    "kuma.io/display-name",
    "kuma.io/sync",
    "disabled",
    "atoll-cursor",
    "1/1",
    "ffffffffffffffff/18446744073709551615",
    "/",
    "delta",
    "part",
    "complete 1/1",
    "complete",
    "part 1/1",
    "Mesh",
    "MeshTimeout",
    "Secret",
    "Dataplane",
    "Config",
    "MeshTrust",
    "Zone",
    "none",
    "RS256",
    "HS256",
    "cp",
    "0",
    "1",
    "-1",
    "99999999999999999999",
    "1e999",
    "0s",
    "9999999h",
    "-5m",
    "10.0.0.0/33",
    "::1",
    "{{ .Mesh }}",
    "{{",
    "%00",
    "é\u{0}\n",
    "kri_mt_default_east__a_",
    "kri_",
    "______",
    "\u{feff}",
    "a\u{300}",
    "spiffe://",
    "50%",
    "[",
    "{",
    "null",
    "&a [*a]",
    "!!binary x",
    "\r\n.\r\n",
];

const NUMBERS: &[u64] = &[
    0,
    1,
    2,
    7,
    8,
    127,
    128,
    255,
    256,
    65_535,
    65_536,
    1 << 31,
    u32::MAX as u64,
    1 << 53,
    1 << 63,
    u64::MAX,
];

/// Changes inputs, with words of its own and of all seeds.
#[derive(Debug)]
pub(crate) struct Mutator {
    words: Vec<Vec<u8>>,
}

impl Mutator {
    /// With the words of `seeds`.
    pub(crate) fn of(seeds: &[Vec<u8>]) -> Self {
        let mut words: Vec<Vec<u8>> = TEXTS.iter().map(|text| text.as_bytes().to_vec()).collect();
        for seed in seeds {
            collect(seed, DEPTH, &mut words);
        }
        words.sort_unstable();
        words.dedup();
        Self { words }
    }

    /// One of `kept`, changed.
    pub(crate) fn change(&mut self, random: &mut Rng, kept: &[Vec<u8>]) -> Vec<u8> {
        let one = |random: &mut Rng| random.choice(kept).cloned().unwrap_or_default();
        let (mut input, donor) = (one(random), one(random));
        // Mostly few changes: many at once are refused at the first.
        for _ in 0..1 + random.u32(..8) * random.u32(..2) / 2 {
            input = self.bytes(random, &input, &donor, DEPTH);
        }
        input
    }

    fn word(&self, random: &mut Rng) -> Vec<u8> {
        random.choice(&self.words).cloned().unwrap_or_default()
    }

    fn bytes(&self, random: &mut Rng, input: &[u8], donor: &[u8], depth: usize) -> Vec<u8> {
        if depth > 0 && random.u32(..16) > 0 {
            let json = serde_json::from_slice::<Value>(input).ok();
            if let Some(mut json) = json.filter(|json| json.is_object() || json.is_array()) {
                self.json(random, &mut json, depth);
                return json.to_string().into_bytes();
            }
            if let Some(mut fields) = wire::parse(input).filter(|fields| !fields.is_empty()) {
                self.fields(random, &mut fields, donor, depth);
                return wire::print(&fields);
            }
        }
        self.raw(random, input, donor)
    }

    fn fields(&self, random: &mut Rng, fields: &mut Vec<Field>, donor: &[u8], depth: usize) {
        let at = random.usize(..fields.len());
        match random.u32(..12) {
            0 => drop(fields.remove(at)),
            1 => {
                let copy = fields.get(at).cloned();
                fields.extend(copy);
                fields.rotate_right(usize::from(random.bool()));
            }
            2 => {
                let other = random.usize(..fields.len());
                fields.swap(at, other);
            }
            // Something of another input in its place.
            3 => {
                let donors = wire::parse(donor).unwrap_or_default();
                if let (Some(there), Some(other)) = (fields.get_mut(at), random.choice(donors)) {
                    *there = other;
                }
            }
            4 => {
                if let Some((number, _)) = fields.get_mut(at) {
                    *number = random.u32(1..20);
                }
            }
            _ => {
                if let Some((number, wire)) = fields.get_mut(at) {
                    // What lies in the same field of another input, to go on with.
                    let donors = wire::parse(donor).unwrap_or_default();
                    let donors: Vec<&[u8]> = wire::all(&donors, *number).collect();
                    let donor = random.choice(donors).unwrap_or_default();
                    self.field(random, wire, donor, depth);
                }
            }
        }
    }

    fn field(&self, random: &mut Rng, wire: &mut Wire, donor: &[u8], depth: usize) {
        match wire {
            Wire::Number(number) => {
                let some = random.choice(NUMBERS).copied().unwrap_or_default();
                *number = if random.bool() { some } else { number.wrapping_add(random.u64(..3)) };
            }
            Wire::Eight(bytes) => *bytes = random.u64(..).to_le_bytes(),
            Wire::Four(bytes) => *bytes = random.u32(..).to_le_bytes(),
            Wire::Bytes(bytes) => *bytes = self.bytes(random, bytes, donor, depth - 1),
        }
    }

    fn json(&self, random: &mut Rng, value: &mut Value, depth: usize) {
        if depth > 0 && random.u32(..4) > 0 {
            if let Some(items) = value.as_array_mut().filter(|items| !items.is_empty()) {
                return self.array(random, items, depth);
            }
            if let Some(fields) = value.as_object_mut().filter(|fields| !fields.is_empty()) {
                return self.object(random, fields, depth);
            }
        }
        let text = value.as_str().filter(|_| random.u32(..3) > 0);
        *value = match text.map(|text| self.raw(random, text.as_bytes(), b"")) {
            Some(text) => String::from_utf8_lossy(&text).into_owned().into(),
            None => self.scalar(random),
        };
    }

    fn array(&self, random: &mut Rng, items: &mut Vec<Value>, depth: usize) {
        let at = random.usize(..items.len());
        match random.u32(..8) {
            0 => drop(items.remove(at)),
            1 => {
                let copy = items.get(at).cloned();
                items.extend(copy);
            }
            2 => items.push(self.scalar(random)),
            _ => items.get_mut(at).into_iter().for_each(|it| self.json(random, it, depth - 1)),
        }
    }

    fn object(&self, random: &mut Rng, fields: &mut Map<String, Value>, depth: usize) {
        let keys: Vec<String> = fields.keys().cloned().collect();
        let Some(key) = random.choice(keys) else { return };
        let word = |random: &mut Rng| String::from_utf8_lossy(&self.word(random)).into_owned();
        match random.u32(..10) {
            0 => drop(fields.remove(&key)),
            1 => drop(fields.insert(word(random), self.scalar(random))),
            2 => {
                let moved = fields.remove(&key).unwrap_or_default();
                fields.insert(word(random), moved);
            }
            _ => fields.get_mut(&key).into_iter().for_each(|it| self.json(random, it, depth - 1)),
        }
    }

    fn scalar(&self, random: &mut Rng) -> Value {
        let number = random.choice(NUMBERS).copied().unwrap_or_default();
        match random.u32(..12) {
            0 => Value::Null,
            1 => random.bool().into(),
            2 => json!([]),
            3 => json!({}),
            4 => number.into(),
            5 => (number as i64).into(),
            6 => json!(random.choice([0.5, -0.0, 1e308, 1e-308])),
            7 => (0..random.u32(..200)).fold(json!(1), |deep, _| json!([deep])),
            8 => "x".repeat(random.usize(..2000)).into(),
            _ => String::from_utf8_lossy(&self.word(random)).into_owned().into(),
        }
    }

    fn raw(&self, random: &mut Rng, input: &[u8], donor: &[u8]) -> Vec<u8> {
        let mut bytes = input.to_vec();
        let (from, to) = (random.usize(..=bytes.len()), random.usize(..=bytes.len()));
        let (from, to) = (from.min(to), from.max(to));
        match random.u32(..8) {
            0 => drop(bytes.drain(from..to)),
            1 => drop(bytes.splice(from..from, self.word(random))),
            2 => drop(bytes.splice(from..to, self.word(random))),
            3 => bytes = self.word(random),
            4 => bytes.iter_mut().skip(from).take(1).for_each(|byte| *byte ^= 1 << random.u32(..8)),
            5 => bytes.iter_mut().skip(from).take(1).for_each(|byte| *byte = random.u8(..)),
            6 => {
                let copy = bytes.get(from..to).unwrap_or_default().to_vec();
                bytes.splice(to..to, copy);
            }
            _ if !donor.is_empty() => bytes = donor.to_vec(),
            _ => bytes.push(random.u8(..)),
        }
        bytes
    }
}

/// The texts and keys in an input.
fn collect(input: &[u8], depth: usize, words: &mut Vec<Vec<u8>>) {
    if let Ok(json) = serde_json::from_slice::<Value>(input) {
        return of_json(&json, words);
    }
    match wire::parse(input).filter(|fields| depth > 0 && !fields.is_empty()) {
        Some(fields) => {
            for (_, wire) in fields {
                if let Wire::Bytes(bytes) = wire {
                    collect(&bytes, depth - 1, words);
                }
            }
        }
        None => words.push(input.to_vec()),
    }
}

fn of_json(value: &Value, words: &mut Vec<Vec<u8>>) {
    match value {
        Value::String(text) => words.push(text.clone().into_bytes()),
        Value::Array(items) => items.iter().for_each(|item| of_json(item, words)),
        Value::Object(fields) => {
            for (key, value) in fields {
                words.push(key.clone().into_bytes());
                of_json(value, words);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
