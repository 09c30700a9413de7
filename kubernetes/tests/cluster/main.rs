//! Controllers and a store in a real API server. It has no nodes: tests set the status of pods.

mod crowd;
mod leaders;
mod life;
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
        trial("of_two_leaders_one_works_and_the_other_follows", leaders::of_two_one_works),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
