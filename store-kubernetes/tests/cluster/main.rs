//! The store on a real API server.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod fixture;
mod kinds_of_ours;
mod manifests;
mod others;
mod trouble;
mod writes;

use fixture::trial;
use libtest_mimic::Arguments;
use std::process::ExitCode;

fn main() -> ExitCode {
    let trials = vec![
        trial("what_every_store_must_do", writes::what_every_store_must_do),
        trial("what_is_kept_is_there_again", writes::what_is_kept_is_there_again),
        trial("what_is_so_already_costs_no_request", writes::what_is_so_already_costs_no_request),
        trial("a_thousand_writes", writes::a_thousand_writes),
        trial("of_others_nothing_is_lost", others::of_others_nothing_is_lost),
        trial("who_is_faster_wins_or_is_followed", others::who_is_faster_wins_or_is_followed),
        trial(
            "a_finalizer_delays_only_what_comes_next",
            others::a_finalizer_delays_only_what_comes_next,
        ),
        trial(
            "what_cannot_be_read_keeps_its_last_content",
            others::what_cannot_be_read_keeps_its_last_content,
        ),
        trial("the_older_of_two_with_one_key_counts", others::the_older_of_two_with_one_key_counts),
        trial(
            "resources_live_in_their_namespaces",
            kinds_of_ours::resources_live_in_their_namespaces,
        ),
        trial(
            "secrets_of_two_meshes_have_one_name",
            kinds_of_ours::secrets_of_two_meshes_have_one_name,
        ),
        trial("a_place_alone_is_not_written", kinds_of_ours::a_place_alone_is_not_written),
        trial(
            "what_users_write_is_the_same_when_we_write_it",
            manifests::what_users_write_is_the_same_when_we_write_it,
        ),
        trial("beacons_cost_nothing", kinds_of_ours::beacons_cost_nothing),
        trial(
            "a_quota_refuses_one_and_the_rest_goes_on",
            trouble::a_quota_refuses_one_and_the_rest_goes_on,
        ),
        trial(
            "a_kind_without_definition_is_empty_until_it_has_one",
            trouble::a_kind_without_definition_is_empty_until_it_has_one,
        ),
        trial(
            "a_server_that_restarts_loses_nothing",
            trouble::a_server_that_restarts_loses_nothing,
        ),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
