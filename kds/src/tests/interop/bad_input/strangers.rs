//! Who is not let in, or is there twice.

use super::super::{
    plain::{answer, resource, with_headers, wrapped},
    world::{Global, TIMEOUT, timeout_of, until},
};
use super::{Siege, Zone, down, end, next, response, skip_requests, up};
use crate::{limit, tests::log::Log};
use proto::kuma::mesh::v1alpha1::{
    ZoneHealthCheckRequest, global_kds_service_client::GlobalKdsServiceClient,
};
use tokio::task::JoinSet;
use tonic::Code;

#[tokio::test(start_paused = true)]
async fn who_does_not_show_who_it_is_gets_nothing() {
    let (mut tasks, log) = (JoinSet::new(), Log::listen());
    let global = Global::with_door(&mut tasks, false).await;
    let west = Zone::start(&mut tasks, "west", &global.connect);
    west.until_complete().await;
    let channel = global.channel().await;
    let refused = down(&channel).await.map(drop).unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::Unauthenticated, "no token"));

    let mut health = GlobalKdsServiceClient::new(channel.clone());
    let refused = health.health_check(with_headers("east", ZoneHealthCheckRequest {})).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated);

    let mut request = with_headers("east", ZoneHealthCheckRequest {});
    request.metadata_mut().insert("authorization", "Bearer west-token".parse().unwrap());
    let refused = health.health_check(request).await.unwrap_err();
    let why = r#"client-id is "east", the credential is of "west""#;
    assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, why));
    let reasons = ["unauthenticated", "unauthenticated", "denied"];
    assert_eq!(*global.wrong.turned_away.borrow(), reasons);
    global.plane.put(TIMEOUT, "web", &[], timeout_of("1s")).await;
    west.plane.until(TIMEOUT, |all| all.len() == 1).await;
    // The same of two calls is said once.
    log.warned(r#"client_id="east""#, &["no token", r#"the credential is of \"west\""#]);
}

#[tokio::test(start_paused = true)]
async fn the_newer_of_two_streams_of_a_zone_goes_on() {
    let mut siege = Siege::begin().await;
    let (_first, mut older) = up(&siege.east).await;
    skip_requests(&mut older).await;
    let second = siege.global.channel().await;
    let (sender, mut newer) = up(&second).await;
    let status = end(older).await;
    assert_eq!(
        (status.code(), status.message()),
        (Code::Aborted, "a newer stream of the zone took over")
    );
    siege.ended(&["superseded"]).await;
    siege.warned(&[]);
    siege.serves_on().await;
    skip_requests(&mut newer).await;
    let spec = timeout_of("1s").to_string();
    let web = resource("web", "default", &[], ("", spec.as_bytes()));
    sender.send(response("MeshTimeout", "1", vec![wrapped("1", &web)])).await.unwrap();
    let ack = next(&mut newer).await.unwrap().unwrap();
    assert_eq!(ack, answer("east", "MeshTimeout", "1", None));
    assert_eq!(siege.global.plane.names(TIMEOUT), ["calm", "web"]);
}

#[tokio::test(start_paused = true)]
async fn a_zone_opens_so_many_calls_and_not_more() {
    let mut siege = Siege::begin().await;
    let mut open = Vec::new();
    for _ in 0..limit::CALLS_OF_ZONE {
        open.push(down(&siege.east).await.unwrap());
    }
    for _ in 0..3 {
        let refused = down(&siege.east).await.map(drop).unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
    }
    until(&siege.global.wrong.turned_away, |all| *all == ["too-many"; 3]).await;
    siege.serves_on().await;
    open.pop();
    siege.ended(&["closed"]).await;
    // Said once.
    siege.warned(&["too many open calls of this zone"]);
    assert!(down(&siege.east).await.is_ok(), "there is room again");
}
