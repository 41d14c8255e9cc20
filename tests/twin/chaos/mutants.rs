//! Programs that are broken on purpose, by a wire that changes what they ask for: each is caught by a law.

use bytes::Bytes;
use eksup::chaos::fault_schedule::TrialSpeed;
use eksup::chaos::{FaultSchedule, Trial};
use eksup::wire::{Request, Response, Wire, whole};
use http::Method;
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::fixture::ChaosFixture;

/// What a broken program asks for instead of `request`.
#[expect(clippy::large_enum_variant, reason = "one lives for a moment")]
enum Instead {
    /// This.
    Ask(Request),
    /// This as well, first.
    AskFirst(Box<(Request, Request)>),
    /// Nothing, and is content with this.
    Believe(Bytes),
}

fn broken(
    mutate: impl Fn(Request) -> Instead + Clone + Send + Sync + 'static,
) -> impl Fn(Wire) -> Wire {
    move |wire| {
        let mutate = mutate.clone();
        Wire::new(tower::service_fn(move |request: Request| {
            let (wire, instead) = (wire.clone(), mutate(request));
            async move {
                match instead {
                    Instead::Ask(request) => wire.oneshot(request).await,
                    Instead::AskFirst(both) => {
                        let (first, request) = *both;
                        let _ = wire.clone().oneshot(first).await;
                        wire.oneshot(request).await
                    }
                    Instead::Believe(body) => Ok(Response::new(whole(body))),
                }
            }
        }))
    }
}

/// Runs expense-dev with a broken program; the laws it broke.
fn laws_broken_by(mutate: impl Fn(Request) -> Instead + Clone + Send + Sync + 'static) -> String {
    let (fixture, around) = (ChaosFixture::new("expense-dev"), broken(mutate));
    let trial = Trial {
        wrap_wire: Some(&around),
        ..fixture.trial()
    };
    let schedule = FaultSchedule {
        speed: TrialSpeed::FASTEST,
        ..FaultSchedule::baseline(1)
    };
    trial.run_seed(&schedule).unwrap().faults.join("\n")
}

pub fn is(request: &Request, method: Method, path: &str) -> bool {
    request.method() == method && request.uri().path().contains(path)
}

pub fn changed(request: Request, f: impl FnOnce(&mut http::request::Parts, &mut Bytes)) -> Request {
    let (mut parts, mut body) = request.into_parts();
    f(&mut parts, &mut body);
    Request::from_parts(parts, body)
}

pub fn retarget(parts: &mut http::request::Parts, method: Method, from: &str, to: &str) {
    parts.method = method;
    parts.uri = parts.uri.to_string().replace(from, to).parse().unwrap();
}

#[test]
fn a_program_that_deletes_pods_instead_of_evicting_them_is_caught() {
    let faults = laws_broken_by(|request| {
        Instead::Ask(if is(&request, Method::POST, "/eviction") {
            changed(request, |parts, body| {
                retarget(parts, Method::DELETE, "/eviction", "");
                *body = Bytes::new();
            })
        } else {
            request
        })
    });
    assert!(
        faults.contains("only what the plan names is deleted"),
        "{faults}"
    );
}

#[test]
fn a_program_that_deletes_blue_before_it_is_empty_is_caught() {
    let faults = laws_broken_by(|request| {
        if !is(
            &request,
            Method::POST,
            "/node-groups/expense-blue/update-config",
        ) {
            return Instead::Ask(request);
        }
        let delete = changed(request.clone(), |parts, _| {
            retarget(parts, Method::DELETE, "/update-config", "");
        });
        Instead::AskFirst(Box::new((delete, request)))
    });
    assert!(
        faults.contains("node group expense-blue still has"),
        "{faults}"
    );
}

#[test]
fn a_program_that_deletes_a_group_the_plan_does_not_name_is_caught() {
    let faults = laws_broken_by(|request| {
        if !is(&request, Method::DELETE, "/node-groups/") {
            return Instead::Ask(request);
        }
        let other = changed(request.clone(), |parts, _| {
            retarget(parts, Method::DELETE, "expense-blue", "production");
        });
        Instead::AskFirst(Box::new((other, request)))
    });
    assert!(faults.contains("production is not in the plan"), "{faults}");
}

#[test]
fn a_program_that_gives_green_weight_before_it_is_healthy_is_caught() {
    let faults = laws_broken_by(|request| {
        let rule = String::from_utf8_lossy(request.body()).contains("Action=ModifyRule");
        Instead::Ask(if rule {
            changed(request, |_, body| {
                *body = String::from_utf8_lossy(body)
                    .replace("Weight=0", "Weight=50")
                    .into_bytes()
                    .into();
            })
        } else {
            request
        })
    });
    assert!(
        faults.contains("no weight is raised on an unhealthy target group"),
        "{faults}"
    );
}

#[test]
fn a_program_that_acts_without_writing_it_down_is_caught() {
    let faults = laws_broken_by(|request| {
        let write = request.method() == Method::PATCH || request.method() == Method::POST;
        if write && request.uri().path().contains("/configmaps") {
            let mut object: serde_json::Value = serde_json::from_slice(request.body()).unwrap();
            object["metadata"]["resourceVersion"] = serde_json::json!("1");
            return Instead::Believe(object.to_string().into());
        }
        Instead::Ask(request)
    });
    assert!(
        faults.contains("what is done was written down before"),
        "{faults}"
    );
}

#[test]
fn a_program_that_acts_without_the_lock_is_caught() {
    let faults = laws_broken_by(|request| {
        let write = request.method() == Method::PUT || request.method() == Method::POST;
        if write && request.uri().path().contains("/leases") {
            let mut object: serde_json::Value = serde_json::from_slice(request.body()).unwrap();
            object["metadata"]["resourceVersion"] = serde_json::json!("1");
            return Instead::Believe(object.to_string().into());
        }
        Instead::Ask(request)
    });
    assert!(faults.contains("only the lock's holder acts"), "{faults}");
}

/// The autoscaler's annotation, and one of the same length that it does not know.
const HOLDS: [&str; 2] = [
    "cluster-autoscaler.kubernetes.io/scale-down-disabled",
    "cluster-autoscaler.kubernetes.io/scale-down-disabldd",
];

/// What is read and written through this wire has the one annotation where the other is.
fn misspelt(wire: Wire) -> Wire {
    let renamed = |bytes: &Bytes, from: &str, to: &str| -> Bytes {
        match std::str::from_utf8(bytes) {
            Ok(text) => text.replace(from, to).into_bytes().into(),
            Err(_) => bytes.clone(),
        }
    };
    Wire::new(tower::service_fn(move |request: Request| {
        let wire = wire.clone();
        async move {
            let request = request.map(|body| renamed(&body, HOLDS[0], HOLDS[1]));
            let response = wire.oneshot(request).await?;
            Ok(response.map(|body| {
                let frames = body.map_frame(move |frame| {
                    frame.map_data(|data| renamed(&data, HOLDS[1], HOLDS[0]))
                });
                frames.boxed_unsync()
            }))
        }
    }))
}

/// The laws broken beside an autoscaler that may take all of blue.
fn laws_broken_beside_an_autoscaler(around: Option<&(dyn Fn(Wire) -> Wire + Sync)>) -> String {
    let fixture = ChaosFixture::new("expense-dev");
    let trial = Trial {
        wrap_wire: around,
        ..fixture.trial()
    };
    let rules = ["autoscaler:10s", "min-size:expense-blue:0"];
    let schedule = FaultSchedule {
        speed: TrialSpeed::FASTEST,
        rules: rules.iter().map(|r| r.parse().unwrap()).collect(),
        has_external_changes: true,
        ..FaultSchedule::baseline(1)
    };
    trial.run_seed(&schedule).unwrap().faults.join("\n")
}

#[test]
fn a_program_that_does_not_keep_closed_nodes_from_the_autoscaler_is_caught() {
    let faults = laws_broken_beside_an_autoscaler(Some(&misspelt));
    let law = "a closed node is kept from the autoscaler";
    assert!(faults.contains(law), "{faults}");
    let faults = laws_broken_beside_an_autoscaler(None);
    assert_eq!(faults, "");
}

#[test]
fn a_program_that_makes_blue_smaller_while_it_has_pods_is_caught() {
    // What was to make green makes blue smaller.
    let faults = laws_broken_by(|request| {
        if !is(&request, Method::POST, "/clusters/expense-dev/node-groups") {
            return Instead::Ask(request);
        }
        Instead::Ask(changed(request, |parts, body| {
            let groups = "/node-groups";
            let blue = "/node-groups/expense-blue/update-config";
            retarget(parts, Method::POST, groups, blue);
            let sizes = serde_json::json!({"minSize": 0, "desiredSize": 0, "maxSize": 6});
            *body = serde_json::json!({"scalingConfig": sizes})
                .to_string()
                .into();
        }))
    });
    assert!(faults.contains("a budget holds"), "{faults}");
}

#[test]
fn what_a_group_ends_for_somebody_else_is_not_the_programs_doing() {
    let fixture = ChaosFixture::new("expense-dev");
    let rules = ["min-size:expense-blue:0", "scale:expense-blue:-1@60s"];
    let schedule = FaultSchedule {
        speed: TrialSpeed::FASTEST,
        rules: rules.iter().map(|r| r.parse().unwrap()).collect(),
        has_external_changes: true,
        ..FaultSchedule::baseline(1)
    };
    let report = fixture.trial().run_seed(&schedule).unwrap();
    assert_eq!(report.faults.join("\n"), "");
}
