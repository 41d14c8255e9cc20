//! Replies of AWS and Kubernetes, damaged on their way: a reading is whole, or says what is missing, or fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use eksup::aws::AwsApi;
use eksup::inventory::{self, connect};
use eksup::model::snapshot::Snapshot;
use eksup::model::{ApiError, Clock, Inventory};
use eksup::plan::Plan;
use eksup::twin::{Twin, scenario};
use eksup::wire::{Request, Wire, whole};
use http_body_util::BodyExt;
use proptest::prelude::*;
use proptest::sample::Index;

use super::damage::{Damage, damage, damages};

/// A reading of a fresh world made of `snapshot`.
pub async fn read(snapshot: &Snapshot, plan: &Plan) -> Inventory {
    let clock = Clock::starting_at(snapshot.inventory.taken_at);
    let twin = Twin::start(scenario::load_world(snapshot, 1));
    read_over(twin.wire(), &clock, plan).await.unwrap()
}

/// A reading over a wire.
pub async fn read_over(wire: Wire, clock: &Clock, plan: &Plan) -> Result<Inventory, ApiError> {
    let region = plan.region.as_deref().unwrap_or("us-east-1");
    let aws = AwsApi::over_wire(wire.clone(), region, clock);
    let cluster = connect::find_cluster(&aws, &plan.cluster).await?;
    let kube = connect::connect_over_wire(&aws, &cluster, clock, wire)?;
    inventory::read_inventory(&aws, &kube, &plan.cluster, Some(plan.to), clock).await
}

/// A wire whose reply number `nth` is changed by `change`; counts the replies.
fn changing(
    wire: Wire,
    nth: usize,
    count: Arc<AtomicUsize>,
    change: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static,
) -> Wire {
    let change = Arc::new(change);
    Wire::new(tower::service_fn(move |request: Request| {
        let (wire, count, change) = (wire.clone(), count.clone(), change.clone());
        async move {
            let response = tower::ServiceExt::oneshot(wire, request).await?;
            if count.fetch_add(1, Ordering::SeqCst) != nth {
                return Ok(response);
            }
            let (parts, body) = response.into_parts();
            let bytes = body.collect().await?.to_bytes();
            let body = whole(Bytes::from(change(&bytes)));
            Ok(http::Response::from_parts(parts, body))
        }
    }))
}

fn plan() -> Plan {
    let text = include_str!("../../../plans/expense-dev.yaml");
    eksup::plan::parse_plan("plan.yaml", text).unwrap()
}

/// Reads with the reply number `nth` changed; how many replies there were, and what came of it.
fn reading(
    nth: usize,
    change: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static,
) -> (usize, Result<Inventory, ApiError>) {
    let snapshot = scenario::expense_dev();
    super::virtual_time(async {
        let count = Arc::new(AtomicUsize::new(0));
        let clock = Clock::starting_at(snapshot.inventory.taken_at);
        let twin = Twin::start(scenario::load_world(&snapshot, 1));
        let wire = changing(twin.wire(), nth, count.clone(), change);
        let plan = plan();
        let read = read_over(wire, &clock, &plan);
        let read = tokio::time::timeout(Duration::from_secs(3_600), read).await;
        (
            count.load(Ordering::SeqCst),
            read.expect("the reading hangs"),
        )
    })
}

/// How many replies a reading takes.
fn replies() -> usize {
    let (count, read) = reading(usize::MAX, <[u8]>::to_vec);
    read.unwrap();
    assert!(count > 50, "{count}");
    count
}

#[test]
fn a_reading_with_one_damaged_reply_ends() {
    let count = replies();
    super::try_all(40, &(any::<Index>(), damages()), |(nth, how)| {
        let (_, read) = reading(nth.index(count), move |bytes| spoil(bytes, &how));
        if let Err(error) = read {
            prop_assert!(!error.op.is_empty() && !error.message.is_empty());
        }
        Ok(())
    });
}

/// Damage to JSON as such, and to the leaves of XML, where it is structural.
fn spoil(bytes: &[u8], how: &Damage) -> Vec<u8> {
    damage(bytes, how)
}

#[test]
fn a_reply_cut_short_is_never_taken_for_a_whole_one() {
    let count = replies();
    let mut clean = reading(usize::MAX, <[u8]>::to_vec).1.unwrap();
    clean.unread.clear();
    let inputs = (any::<Index>(), any::<Index>());
    super::try_all(60, &inputs, |(nth, place)| {
        let cut = move |bytes: &[u8]| {
            let text = bytes.trim_ascii_end();
            text[..place.index(text.len().max(1))].to_vec()
        };
        let (_, read) = reading(nth.index(count), cut);
        let Ok(read) = read else {
            return Ok(());
        };
        // It was asked for again, or what it would have said is named as unread.
        if read.unread.is_empty() {
            prop_assert!(read == clean, "read as if whole");
        }
        Ok(())
    });
}
