//! One run of a target: seeds, then what comes of them.

use crate::{
    mutate::Mutator,
    target::{Open, Target},
};
use anyhow::Result;
use fastrand::Rng;
use resource::Version;
use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
};
use tokio::time::Instant;

/// So many inputs are kept at most: later ones take the place of others.
const KEPT: usize = 8192;
/// The largest input, in bytes: more is slower and finds nothing else.
const LARGEST: usize = 64 * 1024;

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) runs: u64,
    pub(crate) seed: u64,
}

/// What was done.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) runs: u64,
    pub(crate) answers: usize,
    pub(crate) kept: usize,
    pub(crate) took: f64,
}

/// Something that must not be.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) run: u64,
    pub(crate) why: String,
    pub(crate) input: Vec<u8>,
}

impl Plan {
    /// Runs a target until something is found.
    pub(crate) fn run(self, open: Open) -> Result<Tally, Found> {
        let broken = |error: anyhow::Error| Found {
            run: 0,
            why: format!("the target cannot be set up: {error:#}"),
            input: Vec::new(),
        };
        let mut target = open().map_err(broken)?;
        self.run_on(&mut *target)
    }

    fn run_on(self, target: &mut dyn Target) -> Result<Tally, Found> {
        let began = Instant::now();
        let mut random = Rng::with_seed(self.seed);
        let seeds = target.seeds();
        let (mut answers, mut kept) = (BTreeSet::new(), seeds.clone());
        let mut mutator = Mutator::of(&seeds);
        for run in 0..self.runs {
            let seed = usize::try_from(run).ok().and_then(|run| seeds.get(run)).cloned();
            let is_seed = seed.is_some();
            let input = seed.unwrap_or_else(|| mutator.change(&mut random, &kept));
            let said =
                answer(target, &input).map_err(|why| Found { run, why, input: input.clone() })?;
            if answers.insert(Version::of(shape(&said).as_bytes()))
                && !is_seed
                && input.len() <= LARGEST
            {
                let at = random.usize(..KEPT);
                if kept.len() < KEPT {
                    kept.push(input);
                } else if let Some(place) = kept.get_mut(at).filter(|_| at >= seeds.len()) {
                    *place = input;
                }
            }
        }
        let took = began.elapsed().as_secs_f64();
        Ok(Tally { runs: self.runs, answers: answers.len(), kept: kept.len(), took })
    }
}

fn answer(target: &mut dyn Target, input: &[u8]) -> Result<String, String> {
    match catch_unwind(AssertUnwindSafe(|| target.run(input))) {
        Ok(Ok(said)) => Ok(said),
        Ok(Err(wrong)) => Err(format!("{wrong:#}")),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(format!("panicked: {}", text.unwrap_or("?")))
        }
    }
}

/// An answer without what it repeats of its input: numbers and what is quoted.
fn shape(said: &str) -> String {
    let mut shape = String::new();
    let mut quoted = false;
    for letter in said.chars() {
        match letter {
            '"' | '`' => quoted = !quoted,
            _ if quoted || letter.is_ascii_digit() => {}
            _ => shape.push(letter),
        }
    }
    shape.truncate(shape.floor_char_boundary(400));
    shape
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{self, Wire};
    use anyhow::ensure;

    /// Takes JSON in a message in a message, and breaks where `port` is a large number.
    struct Deep;

    impl Target for Deep {
        fn seeds(&self) -> Vec<Vec<u8>> {
            let inner = wire::print(&[(1, Wire::Bytes(br#"{"a":[{"port":80}]}"#.to_vec()))]);
            vec![wire::print(&[(1, Wire::Number(1)), (2, Wire::Bytes(inner))])]
        }

        fn run(&mut self, input: &[u8]) -> Result<String> {
            let fields = wire::parse(input).unwrap_or_default();
            let inner = wire::bytes(&fields, 2).and_then(wire::parse).unwrap_or_default();
            let json = wire::bytes(&inner, 1).unwrap_or_default();
            let Ok(json) = serde_json::from_slice::<serde_json::Value>(json) else {
                return Ok("no JSON".into());
            };
            let port = json.pointer("/a/0/port").and_then(serde_json::Value::as_u64);
            ensure!(port.is_none_or(|port| port < 70_000), "a large port");
            Ok(format!("{:?}", port.is_some()))
        }
    }

    #[test]
    fn what_is_deep_in_an_input_is_changed_and_the_same_seed_finds_the_same() {
        let find = |seed| Plan { runs: 20_000, seed }.run_on(&mut Deep).unwrap_err();
        let (found, again) = (find(1), find(1));
        assert_eq!((found.why.as_str(), found.run), ("a large port", again.run));
        assert_eq!(found.input, again.input);
        assert!(Deep.run(&found.input).is_err());
    }

    #[test]
    fn a_panic_is_a_finding() {
        struct Panics;
        impl Target for Panics {
            fn seeds(&self) -> Vec<Vec<u8>> {
                vec![b"a".to_vec()]
            }
            fn run(&mut self, input: &[u8]) -> Result<String> {
                let [one] = input else { panic!("not one byte") };
                Ok(one.to_string())
            }
        }
        let found = Plan { runs: 1000, seed: 1 }.run_on(&mut Panics).unwrap_err();
        assert_eq!(found.why, "panicked: not one byte");
    }

    #[test]
    fn answers_that_differ_in_what_they_quote_are_the_same() {
        assert_eq!(shape(r#"a "b" 17 c"#), shape(r#"a "xyz" 4 c"#));
        assert_ne!(shape("a: is missing"), shape("b: is missing"));
    }
}
