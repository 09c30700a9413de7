//! Messages without end.

use super::super::{
    plain::{answer, first_request, with_headers},
    world::PATIENCE,
};
use super::{Siege, down, end, next, response, skip_requests, up};
use crate::limit;
use proto::{
    envoy::service::discovery::v3::DeltaDiscoveryRequest,
    kuma::mesh::v1alpha1::{StatsResponse, global_kds_service_client::GlobalKdsServiceClient},
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

/// So many messages are offered, unless the stream ends before.
const MANY: u64 = 1_000_000;

fn is_bounded(sent: u64, status: &Status) {
    let most = u64::from(limit::IDLE) + 200;
    assert!(sent <= most, "{sent} messages were taken");
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
}

/// Sends what `make` makes until the stream ends, and takes what comes back; how many, and the end.
async fn flood<T, M: std::fmt::Debug>(
    sender: mpsc::Sender<T>,
    mut stream: Streaming<M>,
    make: impl Fn(u64) -> T,
) -> (u64, Status) {
    let mut number = 0;
    while number < MANY {
        tokio::select! {
            biased;
            message = stream.message() => if let Err(status) = message {
                return (number, status);
            },
            sent = sender.send(make(number + 1)) => match sent {
                Ok(()) => number += 1,
                Err(_) => return (number, end(stream).await),
            },
        }
    }
    panic!("all of them were taken");
}

/// What east does while west is served.
async fn during<T>(siege: &mut Siege, attack: impl Future<Output = T>) -> T {
    let (done, ()) = tokio::join!(attack, async {
        for _ in 0..3 {
            siege.serves_on().await;
        }
    });
    siege.serves_on().await;
    done
}

/// East floods global with requests; how many were taken, and the end of the stream.
async fn flooded(make: impl Fn(u64) -> DeltaDiscoveryRequest) -> (Siege, u64, Status) {
    let mut siege = Siege::begin().await;
    let (sender, mut responses) = down(&siege.east).await.unwrap();
    sender.send(first_request("east", "Mesh")).await.unwrap();
    next(&mut responses).await.unwrap().unwrap();
    let (sent, status) = during(&mut siege, flood(sender, responses, make)).await;
    (siege, sent, status)
}

async fn ended_idle(siege: &Siege) {
    siege.ended(&["idle"]).await;
    siege.warned(&["GlobalToZone reason=the peer broke the protocol: Idle"]);
}

async fn flood_down(make: impl Fn(u64) -> DeltaDiscoveryRequest) {
    let (siege, sent, status) = flooded(make).await;
    is_bounded(sent, &status);
    ended_idle(&siege).await;
}

#[tokio::test(start_paused = true)]
async fn answers_to_what_was_not_sent_end() {
    flood_down(|number| answer("east", "Mesh", &(number + 1).to_string(), None)).await;
}

#[tokio::test(start_paused = true)]
async fn refusals_of_what_was_not_sent_end() {
    flood_down(|_| answer("east", "Mesh", "no number", Some("no"))).await;
}

#[tokio::test(start_paused = true)]
async fn first_requests_for_the_same_kind_end() {
    flood_down(|_| first_request("east", "Mesh")).await;
}

#[tokio::test(start_paused = true)]
async fn questions_whose_answer_is_always_nothing_end() {
    // It acknowledges each, and asks again.
    let (siege, sent, status) = flooded(|number| match number % 2 {
        1 => answer("east", "Mesh", &number.div_ceil(2).to_string(), None),
        _ => first_request("east", "Mesh"),
    })
    .await;
    is_bounded(sent / 2, &status);
    ended_idle(&siege).await;
}

#[tokio::test(start_paused = true)]
async fn requests_for_inventions_end() {
    flood_down(|number| first_request("east", &format!("Invention{number}"))).await;
}

#[tokio::test(start_paused = true)]
async fn answers_about_inventions_end() {
    flood_down(|number| answer("east", &format!("Invention{number}"), "1", None)).await;
}

#[tokio::test(start_paused = true)]
async fn requests_whose_answers_nobody_reads_end() {
    let mut siege = Siege::begin().await;
    let (sender, responses) = down(&siege.east).await.unwrap();
    let attack = async {
        for number in 1..=MANY {
            let request = first_request("east", &format!("Invention{number}{}", "x".repeat(480)));
            if sender.send(request).await.is_err() {
                return number;
            }
        }
        MANY
    };
    let sent = during(&mut siege, attack).await;
    is_bounded(sent, &end(responses).await);
    siege.ended(&["idle"]).await;
    siege.warned(&["GlobalToZone reason=the peer broke the protocol: Idle"]);
}

#[tokio::test(start_paused = true)]
async fn responses_that_say_nothing_end() {
    let mut siege = Siege::begin().await;
    let (sender, mut requests) = up(&siege.east).await;
    skip_requests(&mut requests).await;
    let nothing = |number: u64| response("MeshTimeout", &number.to_string(), Vec::new());
    let (sent, status) = during(&mut siege, flood(sender, requests, nothing)).await;
    is_bounded(sent, &status);
    siege.ended(&["idle"]).await;
    siege.warned(&["ZoneToGlobal reason=the peer broke the protocol: Idle"]);
}

#[tokio::test(start_paused = true)]
async fn responses_about_kinds_that_nobody_asked_for_end() {
    let mut siege = Siege::begin().await;
    let (sender, mut requests) = up(&siege.east).await;
    skip_requests(&mut requests).await;
    let unasked = |number: u64| response("Mesh", &number.to_string(), Vec::new());
    let (sent, status) = during(&mut siege, flood(sender, requests, unasked)).await;
    is_bounded(sent, &status);
    siege.ended(&["idle"]).await;
    siege.warned(&[
        "kind \\\"Mesh\\\" was not asked for",
        "ZoneToGlobal reason=the peer broke the protocol: Idle",
    ]);
    assert_eq!(*siege.global.wrong.declined.borrow(), limit::IDLE as usize);
}

#[tokio::test(start_paused = true)]
async fn the_same_nonce_again_and_again_ends() {
    let mut siege = Siege::begin().await;
    let (sender, mut requests) = up(&siege.east).await;
    skip_requests(&mut requests).await;
    let same = |_| response("MeshTimeout", "1", Vec::new());
    let (sent, status) = during(&mut siege, flood(sender, requests, same)).await;
    is_bounded(sent, &status);
    siege.ended(&["idle"]).await;
    siege.warned(&[
        "nonce: \\\"1\\\" was used before",
        "ZoneToGlobal reason=the peer broke the protocol: Idle",
    ]);
}

#[tokio::test(start_paused = true)]
async fn answers_to_questions_that_nobody_asked_end() {
    let mut siege = Siege::begin().await;
    let (sender, outgoing) = mpsc::channel(100);
    let outgoing = with_headers("east", ReceiverStream::new(outgoing));
    let mut client = GlobalKdsServiceClient::new(siege.east.clone());
    let opened = timeout(PATIENCE, client.stream_stats(outgoing)).await;
    let asked = opened.expect("headers come at once").unwrap().into_inner();
    let answer = |number: u64| StatsResponse { request_id: number.to_string(), result: None };
    let (sent, status) = during(&mut siege, flood(sender, asked, answer)).await;
    is_bounded(sent, &status);
    siege.ended(&["idle"]).await;
    siege.warned(&["call=Stats reason=the peer broke the protocol: Idle"]);
}
