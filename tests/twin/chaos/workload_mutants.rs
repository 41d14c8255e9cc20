//! Programs that are careless with workloads, by a wire that changes what they ask for or what they are told: each is
//! caught by a law on workloads.

use bytes::Bytes;
use eksup::chaos::fault_schedule::TrialSpeed;
use eksup::chaos::trial::TrialEnd;
use eksup::chaos::{FaultSchedule, Trial, TrialReport, Variation};
use eksup::plan::OnDeadline;
use eksup::wire::{Request, Response, Wire, whole};
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::fixture::ChaosFixture;
use super::mutants::{changed, is, retarget};

/// A trial of `plan` with a program that is broken on purpose, on a cluster and with a plan as `variation` has them.
pub fn trial_of(
    plan: &str,
    variation: Variation,
    around: &(dyn Fn(Wire) -> Wire + Sync),
) -> TrialReport {
    let rules = variation.rules.iter().map(|r| r.parse().unwrap());
    let schedule = FaultSchedule {
        speed: TrialSpeed::FASTEST,
        rules: rules.collect(),
        variation: variation.clone(),
        ..FaultSchedule::baseline(1)
    };
    let fixture = ChaosFixture::new(plan);
    let trial = Trial {
        wrap_wire: Some(around),
        ..fixture.trial()
    };
    trial.run_seed(&schedule).unwrap()
}

fn faults_of(variation: Variation, around: &(dyn Fn(Wire) -> Wire + Sync)) -> String {
    trial_of("expense-dev", variation, around).faults.join("\n")
}

/// A wire that sends more requests before each that it is given.
pub fn asks_first(
    more: impl Fn(&Request) -> Vec<Request> + Clone + Send + Sync + 'static,
) -> impl Fn(Wire) -> Wire {
    move |wire| {
        let more = more.clone();
        Wire::new(tower::service_fn(move |request: Request| {
            let (wire, first) = (wire.clone(), more(&request));
            async move {
                for request in first {
                    let _ = wire.clone().oneshot(request).await;
                }
                wire.oneshot(request).await
            }
        }))
    }
}

/// Whether a request marks a node as being drained.
pub fn begins_node(request: &Request) -> bool {
    is(request, Method::PATCH, "/api/v1/nodes/")
        && String::from_utf8_lossy(request.body()).contains("eksup.dev/draining\":\"")
}

/// An eviction of a pod of the namespace `expense`, with everything else as in `request`.
fn eviction(request: &Request, pod: &str) -> Request {
    let body = json!({
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"namespace": "expense", "name": pod},
    });
    let of_pod = format!("/api/v1/namespaces/expense/pods/{pod}");
    changed(request.clone(), |parts, bytes| {
        let path = parts.uri.path().to_owned();
        retarget(parts, Method::POST, &path, &format!("{of_pod}/eviction"));
        parts
            .headers
            .insert("content-type", "application/json".parse().unwrap());
        *bytes = body.to_string().into();
    })
}

/// Tells the program that every pod which is not on its way out is Ready, and that every workload has the pods it wants:
/// what it believed as long as it compared the time of its own mark, which has fractions of a second, with times that
/// have whole seconds.
pub fn believes_every_pod(wire: Wire) -> Wire {
    Wire::new(tower::service_fn(move |request: Request| {
        let wire = wire.clone();
        let path = request.uri().path().to_owned();
        let reads = ["/pods", "/deployments", "/replicasets", "/statefulsets"]
            .iter()
            .any(|kind| path.contains(kind) && request.method() == Method::GET);
        async move {
            let response: Response = wire.oneshot(request).await?;
            if !reads {
                return Ok(response);
            }
            Ok(response.map(|body| {
                let frames = body.map_frame(|frame| frame.map_data(|data| as_ready(&data)));
                frames.boxed_unsync()
            }))
        }
    }))
}

/// Rewrites a list, an object or the events of a watch.
fn as_ready(data: &Bytes) -> Bytes {
    let text = String::from_utf8_lossy(data);
    let lines = text.split_inclusive('\n').map(|line| {
        let Ok(mut value) = serde_json::from_str::<Value>(line) else {
            return line.to_owned();
        };
        match value.get_mut("items").and_then(Value::as_array_mut) {
            Some(items) => items.iter_mut().for_each(mark_ready),
            None => mark_ready(value.get_mut("object").unwrap_or(&mut json!(null))),
        }
        mark_ready(&mut value);
        format!("{value}\n")
    });
    lines.collect::<String>().into()
}

fn mark_ready(object: &mut Value) {
    let Some(spec) = object.get("spec").cloned() else {
        return;
    };
    if let Some(wanted) = spec.get("replicas").cloned() {
        for count in [
            "replicas",
            "readyReplicas",
            "availableReplicas",
            "updatedReplicas",
        ] {
            object["status"][count] = wanted.clone();
        }
        return;
    }
    let going = object["metadata"].get("deletionTimestamp").is_some();
    let finished = ["Succeeded", "Failed"]
        .map(Value::from)
        .contains(&object["status"]["phase"]);
    if spec.get("containers").is_none() || going || finished {
        return;
    }
    object["status"]["phase"] = json!("Running");
    object["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
    object["status"]["containerStatuses"] = json!([]);
}

/// Redis finds no image from the drain on, and nobody fixes it.
fn no_image() -> Variation {
    Variation {
        never_fixed: true,
        rules: vec!["image-missing:expense/redis@drain".to_owned()],
        ..Variation::default()
    }
}

#[test]
fn a_program_that_takes_a_pod_without_an_image_for_ready_is_caught_at_every_turn() {
    let report = trial_of("expense-dev", no_image(), &believes_every_pod);
    assert_eq!(
        report.trial_end,
        Some(TrialEnd::Done),
        "{:?}",
        report.end_messages
    );
    let faults = report.faults.join("\n");
    for law in [
        "a node is begun only when what was moved is Ready again: ",
        "a node group goes only when what was moved is Ready again: DeleteNodegroup",
        "a run ends done with every workload whole: ",
    ] {
        let said = faults.lines().find(|line| line.contains(law));
        let said = said.unwrap_or_else(|| panic!("{law} is not broken: {faults}"));
        assert!(
            said.contains("Deployment expense/redis has 0 of 1 Ready pods")
                && said.contains("ImagePullBackOff"),
            "{said}"
        );
    }
}

#[test]
fn a_program_that_shifts_traffic_while_moved_pods_are_not_ready_is_caught() {
    // Where only nodes with pods of the service are healthy, the pods move before the weights.
    let report = trial_of("local-policy", no_image(), &believes_every_pod);
    let faults = report.faults.join("\n");
    let law = "no weight is raised on green before what was moved is Ready again";
    assert!(faults.contains(law), "{faults}");
}

#[test]
fn a_program_that_takes_both_pods_of_a_workload_without_a_budget_is_caught() {
    let without_budgets = Variation {
        without_budgets: true,
        ..Variation::default()
    };
    let both = |request: &Request| match begins_node(request) {
        true => ["frontend-845d74f9fb-c9sgp", "frontend-845d74f9fb-kkjcw"]
            .map(|pod| eviction(request, pod))
            .to_vec(),
        false => Vec::new(),
    };
    let faults = faults_of(without_budgets, &asks_first(both));
    let law =
        "a workload of several pods without a budget keeps one: Deployment expense/frontend had";
    assert!(faults.contains(law), "{faults}");
}

#[test]
fn a_program_that_evicts_a_single_replica_where_the_plan_says_surge_is_caught_without_a_budget() {
    let surge = Variation {
        without_budgets: true,
        surge_singles: true,
        ..Variation::default()
    };
    let redis = |request: &Request| match begins_node(request) {
        true => vec![eviction(request, "redis-7cbfc6ff45-58px6")],
        false => Vec::new(),
    };
    let faults = faults_of(surge, &asks_first(redis));
    let law = "a single replica is moved without a gap: expense/redis has 0 healthy pods";
    assert!(faults.contains(law), "{faults}");
}

/// The beginning of each of these nodes, where the request is that of one.
pub fn begin_nodes<const N: usize>(request: &Request, nodes: [&str; N]) -> Vec<Request> {
    if !begins_node(request) {
        return Vec::new();
    }
    let begin = |node: &str| {
        changed(request.clone(), |parts, bytes| {
            let path = parts.uri.path().to_owned();
            let other = format!("/api/v1/nodes/{node}.ec2.internal");
            retarget(parts, Method::PATCH, &path, &other);
            let mut patch: Value = serde_json::from_slice(bytes).unwrap();
            let meta = patch["metadata"].as_object_mut().unwrap();
            meta.remove("resourceVersion");
            *bytes = patch.to_string().into();
        })
    };
    nodes.map(begin).to_vec()
}

#[test]
fn a_program_that_begins_a_node_too_many_is_caught() {
    let two =
        |request: &Request| begin_nodes(request, ["ip-10-0-0-4", "ip-10-0-32-4", "ip-10-0-64-4"]);
    let faults = faults_of(Variation::default(), &asks_first(two));
    let law = "no more nodes are emptied at once than the plan says";
    assert!(faults.contains(law), "{faults}");
}

/// A plan that deletes pods at a deadline of two minutes.
fn deletes() -> Variation {
    let minutes = |n: u64| std::time::Duration::from_secs(60 * n);
    Variation {
        on_deadline: Some(OnDeadline::Delete),
        deadlines: Some((minutes(2), minutes(30))),
        ..Variation::default()
    }
}

#[test]
fn a_program_that_deletes_pods_which_no_budget_refuses_is_caught() {
    let deletes_at_once = |wire: Wire| {
        Wire::new(tower::service_fn(move |request: Request| {
            let wire = wire.clone();
            async move {
                if !is(&request, Method::POST, "/eviction") {
                    return wire.oneshot(request).await;
                }
                let delete = changed(request, |parts, body| {
                    retarget(parts, Method::DELETE, "/eviction", "");
                    *body = Bytes::new();
                });
                let _ = wire.oneshot(delete).await;
                Ok(Response::new(whole(
                    json!({"status": "Success"}).to_string(),
                )))
            }
        }))
    };
    let faults = faults_of(deletes(), &deletes_at_once);
    let law = "a pod is deleted only after its budget refused it until the deadline";
    let said: Vec<&str> = faults.lines().filter(|line| line.contains(law)).collect();
    assert!(
        said.iter().any(|s| s.contains("no budget refuses it")),
        "{faults}"
    );
    assert!(
        !faults.contains("only what the plan names is deleted"),
        "{faults}"
    );
}

#[test]
fn a_program_that_deletes_before_the_deadline_or_two_of_a_workload_at_once_is_caught() {
    let closed = |from: &str| Variation {
        rules: vec![format!("budget:expense/backend:3{from}")],
        ..deletes()
    };
    let pods = ["8mmdl", "hm8xx", "n69g7"].map(|end| format!("backend-7d8fcc99f4-{end}"));
    let all = move |request: &Request| match begins_node(request) {
        true => pods
            .iter()
            .map(|pod| {
                changed(eviction(request, pod), |parts, body| {
                    retarget(parts, Method::DELETE, "/eviction", "");
                    *body = Bytes::new();
                })
            })
            .collect(),
        false => Vec::new(),
    };
    let faults = faults_of(closed("@drain"), &asks_first(all.clone()));
    assert!(
        faults.contains("refused for 0s, the deadline is 120s"),
        "{faults}"
    );

    // The budget lets nobody go from the beginning: late enough, but not one after another.
    let faults = faults_of(closed(""), &asks_first(all));
    assert!(!faults.contains("refused for 0s"), "{faults}");
    let law = "one pod of a workload is deleted at a time: ";
    assert!(faults.contains(law), "{faults}");
    assert!(
        faults.contains("Deployment expense/backend has"),
        "{faults}"
    );
}

#[test]
fn a_program_that_evicts_the_same_workload_again_and_again_is_caught() {
    let again = |request: &Request| match is(request, Method::POST, "/eviction") {
        true => vec![request.clone(); 30],
        false => Vec::new(),
    };
    let faults = faults_of(Variation::default(), &asks_first(again));
    let law = "a workload's pods are moved a bounded number of times";
    assert!(faults.contains(law), "{faults}");
}
