//! Programs that are careless with Karpenter's nodes, by a wire that changes what they ask for: each is caught by a law.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use eksup::chaos::Variation;
use eksup::wire::{Request, Wire};
use http::Method;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::mutants::{changed, is};
use super::workload_mutants::{asks_first, begin_nodes, begins_node, believes_every_pod, trial_of};

const NODE_POOL: &str = "/apis/karpenter.sh/v1/nodepools/general";

fn faults_of(plan: &str, variation: Variation, around: &(dyn Fn(Wire) -> Wire + Sync)) -> String {
    trial_of(plan, variation, around).faults.join("\n")
}

/// A request to the API server, with everything else as in `request`.
fn kube_request(request: &Request, method: Method, to: &str, body: Option<&Value>) -> Request {
    changed(request.clone(), |parts, bytes| {
        parts.method = method;
        let uri = parts.uri.to_string();
        let path = parts.uri.path_and_query().map_or("", |p| p.as_str());
        parts.uri = uri.replace(path, to).parse().unwrap();
        let kind = "application/merge-patch+json".parse().unwrap();
        parts.headers.insert("content-type", kind);
        *bytes = body.map_or_else(Bytes::new, |body| body.to_string().into());
    })
}

#[test]
fn a_program_that_lets_a_node_pool_go_while_the_control_plane_moves_is_caught() {
    for plan in ["karpenter-drift", "karpenter-blue-green"] {
        let (held, records) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let opens = move |request: &Request| {
            if is(request, Method::PATCH, NODE_POOL) {
                held.fetch_add(1, Ordering::SeqCst);
            }
            let record = is(request, Method::PATCH, "/configmaps/eksup-run");
            if !record || held.load(Ordering::SeqCst) == 0 {
                return Vec::new();
            }
            // Both NodePools are held by then, and the hop is written down.
            if records.fetch_add(1, Ordering::SeqCst) != 6 {
                return Vec::new();
            }
            let open = json!({"spec": {"disruption": {"budgets": []}}});
            vec![kube_request(request, Method::PATCH, NODE_POOL, Some(&open))]
        };
        let faults = faults_of(plan, Variation::default(), &asks_first(opens));
        let law = "a NodePool that the run holds loses no node by Karpenter";
        assert!(faults.contains(law), "{plan}: {faults}");
    }
}

#[test]
fn a_program_that_lets_the_next_node_be_replaced_before_pods_are_back_is_caught() {
    let no_image = Variation {
        rules: vec!["image-missing:expense/backend".to_owned()],
        without_budgets: true,
        ..Variation::default()
    };
    let faults = faults_of("karpenter-drift", no_image, &believes_every_pod);
    let law = "a NodePool is let go only when what was moved is Ready again";
    assert!(faults.contains(law), "{faults}");
}

#[test]
fn a_program_that_lets_more_nodes_be_replaced_at_once_than_the_plan_says_is_caught() {
    let asked = Arc::new(AtomicU32::new(0));
    let wide = move |wire: Wire| {
        let asked = asked.clone();
        Wire::new(tower::service_fn(move |request: Request| {
            let (wire, asked) = (wire.clone(), asked.clone());
            async move {
                let of_pool = is(&request, Method::PATCH, NODE_POOL);
                let widens = of_pool && asked.fetch_add(1, Ordering::SeqCst) > 0;
                wire.oneshot(match widens {
                    true => changed(request, |_, body| {
                        let text = String::from_utf8_lossy(body);
                        // The NodePool's own budget would hold as well.
                        let words = ["0", "1", "10%"].map(|n| format!("\"nodes\":\"{n}\""));
                        let wide =
                            |text: String, word: &String| text.replace(word, "\"nodes\":\"3\"");
                        *body = words.iter().fold(text.into_owned(), wide).into();
                    }),
                    false => request,
                })
                .await
            }
        }))
    };
    let faults = faults_of("karpenter-drift", Variation::default(), &wide);
    let law = "Karpenter replaces no more nodes at once than the plan says";
    assert!(faults.contains(law), "{faults}");
}

#[test]
fn a_program_that_deletes_a_node_pool_before_it_is_empty_is_caught() {
    let deletes = |request: &Request| match begins_node(request) {
        true => vec![kube_request(request, Method::DELETE, NODE_POOL, None)],
        false => Vec::new(),
    };
    let faults = faults_of(
        "karpenter-blue-green",
        Variation::default(),
        &asks_first(deletes),
    );
    let law = "only what the plan names is deleted: /apis/karpenter.sh/v1/nodepools/general";
    assert!(faults.contains(law), "{faults}");
}

#[test]
fn a_program_that_begins_a_node_of_a_node_pool_too_many_is_caught() {
    let two =
        |request: &Request| begin_nodes(request, ["ip-10-0-0-7", "ip-10-0-32-8", "ip-10-0-64-4"]);
    let faults = faults_of(
        "karpenter-blue-green",
        Variation::default(),
        &asks_first(two),
    );
    let law = "no more nodes are emptied at once than the plan says";
    assert!(faults.contains(law), "{faults}");
}
