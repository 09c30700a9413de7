//! A simulation is worth its seeds only if a seed is a history.

use simulation::{power, run};
use std::collections::BTreeSet;

#[test]
fn the_same_seed_gives_the_same_trace() {
    let first = run(7).unwrap();
    assert!(first.0.len() > 100, "{first:#?}");
    for _ in 0..5 {
        assert_eq!(run(7).unwrap(), first);
    }
}

#[test]
fn different_seeds_give_different_traces_and_none_loses_an_acknowledged_write() {
    let traces: BTreeSet<Vec<String>> = (0..20).map(|seed| run(seed).unwrap().0).collect();
    assert_eq!(traces.len(), 20);
}

#[test]
fn a_store_keeps_what_it_acknowledged_whatever_of_the_rest_a_power_failure_leaves() {
    for seed in 0..20 {
        power::run(seed).unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
    }
}

#[test]
fn on_a_full_disk_everybody_is_told_and_nothing_is_there_in_part() {
    for seed in 0..20 {
        power::fill(seed).unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
    }
}
