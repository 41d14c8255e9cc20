//! Whole upgrades over a wire that damages replies: they end, and what they call done is done.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use eksup::engine::RunOutcome;
use eksup::model::snapshot::Snapshot;
use eksup::plan::Plan;
use eksup::twin::scenario;
use eksup::wire::{Request, Wire, whole};
use http_body_util::BodyExt;
use proptest::prelude::*;

use super::damage::{Damage, damage, damages};
use crate::support::wire_rig::Rig;

/// A rig for a checked plan.
pub fn rig(snapshot: &Snapshot, plan: &Plan) -> Rig {
    Rig::new(
        snapshot,
        &format!("cluster: {}\nto: {}\n", plan.cluster, plan.to),
    )
}

/// A wire that damages one reply in `every`, in turn by one of `hows`. Watches, which have no end, are left alone.
fn spoiling(wire: Wire, every: usize, hows: Vec<Damage>) -> Wire {
    let count = Arc::new(Mutex::new(0_usize));
    Wire::new(tower::service_fn(move |request: Request| {
        let (wire, count, hows) = (wire.clone(), count.clone(), hows.clone());
        async move {
            let watch = request.uri().query().is_some_and(|q| q.contains("watch=1"));
            let response = tower::ServiceExt::oneshot(wire, request).await?;
            let number = {
                let mut count = count.lock().unwrap();
                *count += 1;
                *count
            };
            if watch || number % every != 0 {
                return Ok(response);
            }
            let (parts, body) = response.into_parts();
            let bytes = body.collect().await?.to_bytes();
            let how = &hows[number / every % hows.len()];
            let body = whole(Bytes::from(damage(&bytes, how)));
            Ok(http::Response::from_parts(parts, body))
        }
    }))
}

#[test]
fn an_upgrade_over_damaged_replies_ends_and_is_done_only_when_it_is() {
    let snapshot = scenario::find_scenario("minimal").unwrap();
    let inputs = (15..60_usize, proptest::collection::vec(damages(), 4..12));
    super::try_all(3, &inputs, |(every, hows)| {
        super::virtual_time(async {
            let clean = Rig::new(&snapshot, include_str!("../../../plans/minimal.yaml"));
            let spoilt = clean.through(|wire| spoiling(wire, every, hows));
            // As CI does: again, as long as it is not done. A person would have looked by then.
            for _ in 0..5 {
                let apply = spoilt.apply(None);
                let ended = tokio::time::timeout(Duration::from_secs(7 * 86_400), apply).await;
                if let Ok(RunOutcome::Done) = ended.expect("the upgrade hangs") {
                    let after = clean.look().await.unwrap();
                    prop_assert_eq!(after.cluster.version.to_string(), "1.30");
                    prop_assert_eq!(after.nodegroups.len(), 1, "{}", clean.said());
                    for node in &after.nodes {
                        prop_assert!(node.is_ready() && node.kubelet_version.contains("1.30"));
                    }
                    break;
                }
            }
            Ok(())
        })
    });
}
