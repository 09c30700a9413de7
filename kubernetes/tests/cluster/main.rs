//! Controllers, admission and a store in a real API server. It has no nodes: tests set the status of pods.

mod admission;
mod bad;
mod crowd;
mod leaders;
mod life;
mod mistakes;
mod world;

use apiserver::trial;
use libtest_mimic::Arguments;
use std::process::ExitCode;

fn main() -> ExitCode {
    let trials = vec![
        trial(
            "a_thousand_pods_and_two_hundred_services_appear_at_once",
            crowd::a_thousand_pods_and_two_hundred_services_appear_at_once,
        ),
        trial(
            "a_pod_lives_and_goes_with_its_namespace",
            life::a_pod_lives_and_goes_with_its_namespace,
        ),
        trial(
            "what_changed_while_the_api_server_was_away_is_found",
            life::what_changed_while_the_api_server_was_away_is_found,
        ),
        trial(
            "a_quota_refuses_one_and_the_rest_goes_on",
            life::a_quota_refuses_one_and_the_rest_goes_on,
        ),
        trial(
            "pods_of_the_mesh_get_a_sidecar_and_no_others",
            admission::pods_of_the_mesh_get_a_sidecar_and_no_others,
        ),
        trial(
            "manifests_are_taken_or_refused_by_field",
            admission::manifests_are_taken_or_refused_by_field,
        ),
        trial(
            "examples_are_taken_and_mistakes_are_told",
            mistakes::examples_are_taken_and_mistakes_are_told,
        ),
        trial(
            "a_certificate_is_renewed_while_pods_are_made",
            admission::a_certificate_is_renewed_while_pods_are_made,
        ),
        trial(
            "a_token_is_that_of_its_pod_and_for_us",
            admission::a_token_is_that_of_its_pod_and_for_us,
        ),
        trial(
            "what_no_webhook_saw_is_told_on_the_object",
            bad::what_no_webhook_saw_is_told_on_the_object,
        ),
        trial(
            "what_another_definition_lets_through_is_told_on_the_object",
            bad::what_another_definition_lets_through_is_told_on_the_object,
        ),
        trial(
            "what_an_older_definition_loses_is_not_written_again_and_again",
            bad::what_an_older_definition_loses_is_not_written_again_and_again,
        ),
        trial("pods_and_services_at_their_limits", bad::pods_and_services_at_their_limits),
        trial("names_that_are_cut_stay_apart", bad::names_that_are_cut_stay_apart),
        trial("a_namespace_goes_while_its_pods_come", bad::a_namespace_goes_while_its_pods_come),
        trial("of_two_leaders_one_works_and_the_other_follows", leaders::of_two_one_works),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
