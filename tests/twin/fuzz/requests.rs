//! The twin serves whoever finds its port: whatever is asked, it answers.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use eksup::twin::world::SimWorld;
use eksup::twin::{Twin, scenario};
use eksup::wire::{Request, Wire};
use proptest::prelude::*;

use super::damage::{Cut, cut, cuts, damage, damages};

/// Real requests: those of a reading, and one of each write.
fn requests() -> Vec<Request> {
    let kept: Arc<Mutex<Vec<Request>>> = Arc::default();
    let snapshot = scenario::expense_dev();
    let plan = eksup::plan::parse_plan("p", "cluster: expense-dev\nto: 1.28\n").unwrap();
    super::virtual_time(async {
        let twin = Twin::start(scenario::load_world(&snapshot, 1));
        let (wire, keep) = (twin.wire(), kept.clone());
        let wire = Wire::new(tower::service_fn(move |request: Request| {
            keep.lock().unwrap().push(request.clone());
            tower::ServiceExt::oneshot(wire.clone(), request)
        }));
        let rig = super::upgrades::rig(&snapshot, &plan).through(|_| wire);
        rig.apply(None).await.unwrap();
    });
    let mut kept = std::mem::take(&mut *kept.lock().unwrap());
    kept.dedup_by_key(|r| (r.method().clone(), r.uri().path().to_owned()));
    kept
}

fn ask(world: &mut SimWorld, uri: &[u8], body: Vec<u8>, like: &Request) {
    let Ok(uri) = http::Uri::try_from(uri) else {
        return;
    };
    let mut request = Request::new(Bytes::from(body));
    *request.method_mut() = like.method().clone();
    *request.headers_mut() = like.headers().clone();
    *request.uri_mut() = uri;
    drop(world.handle_request(&request));
}

#[test]
fn the_twin_answers_damaged_requests() {
    let requests = requests();
    assert!(requests.len() > 100);
    let none: Vec<Cut> = Vec::new();
    let uri = prop_oneof![Just(none), cuts()];
    let inputs = (proptest::sample::select(requests), uri, damages());
    super::virtual_time(async {
        let snapshot = scenario::expense_dev();
        let world = Mutex::new(scenario::load_world(&snapshot, 1));
        super::try_all(400, &inputs, |(request, uri, body)| {
            let uri = cut(request.uri().to_string().as_bytes(), &uri);
            let body = damage(request.body(), &body);
            ask(&mut world.lock().unwrap(), &uri, body, &request);
            Ok(())
        });
    });
}
