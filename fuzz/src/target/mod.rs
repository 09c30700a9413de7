//! What is fed.

mod kds;
mod names;
mod rest;
mod seeds;
mod token;

use anyhow::Result;

/// Something that reads what others send.
pub(crate) trait Target {
    /// Inputs as they should be, to begin with.
    fn seeds(&self) -> Vec<Vec<u8>>;

    /// What is answered to `input`. An error is a finding: a rule does not hold.
    fn run(&mut self, input: &[u8]) -> Result<String>;
}

/// Sets a target up.
pub(crate) type Open = fn() -> Result<Box<dyn Target>>;

/// Every target.
pub(crate) const ALL: &[(&str, Open)] = &[
    ("kds", || Ok(Box::new(kds::Ends::new()?))),
    ("rest", || Ok(Box::new(rest::Users::new()?))),
    ("token", || Ok(Box::new(token::Bearers::new()?))),
    ("kri", || Ok(Box::new(names::Kris))),
    ("transit", || Ok(Box::new(names::Transits))),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// A target whose seeds are refused tests the first check of each parser and nothing else.
    #[test]
    fn seeds_are_taken() {
        let taken: [(&str, &[&str]); 5] = [
            ("kds", &["29 responses", "26 responses", "29 answers, {}", "26 answers, {}"]),
            ("rest", &["200", "201"]),
            ("token", &["accepted"]),
            ("kri", &["kri"]),
            ("transit", &["key"]),
        ];
        for ((name, open), (same, expected)) in ALL.iter().zip(taken) {
            assert_eq!(*name, same);
            let mut target = open().unwrap();
            let answers: Vec<String> =
                target.seeds().iter().map(|seed| target.run(seed).unwrap()).collect();
            for expected in expected {
                let found = answers.iter().any(|answer| answer.contains(expected));
                assert!(found, "{name}: {expected} is not in {answers:#?}");
            }
        }
    }
}
