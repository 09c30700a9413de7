//! A simulation is worth its seeds only if a seed is a history.

use simulation::{federation, power};
use std::collections::BTreeSet;

#[test]
fn the_same_seed_gives_the_same_trace() {
    let first = federation::look(7).unwrap();
    assert!(first.trace.len() > 500, "{} lines", first.trace.len());
    let again = federation::look(7).unwrap();
    let differ = first.trace.iter().zip(&again.trace).find(|(a, b)| a != b);
    assert_eq!(differ, None);
    assert_eq!((again.trace.len(), again.wrong), (first.trace.len(), first.wrong));
}

#[test]
fn different_seeds_give_different_histories_of_many_operations_and_many_faults() {
    let all: Vec<_> = (0..4).map(|seed| federation::run(seed).unwrap()).collect();
    let traces: BTreeSet<u64> = all.iter().map(federation::Summary::fingerprint).collect();
    assert_eq!(traces.len(), all.len());
    for summary in all {
        assert!(summary.operations.values().sum::<usize>() >= 200, "{summary}");
        assert!(summary.faults.len() >= 5, "{summary}");
    }
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
