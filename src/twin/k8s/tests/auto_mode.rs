//! EKS Auto Mode: its nodes follow the control plane's version, one after another.

use std::collections::BTreeSet;

use super::*;
use crate::twin::k8s::cloud_hooks;

const WEB: &str = "/api/v1/namespaces/shop/pods?labelSelector=app%3Dweb";

/// Name and kubelet of each node.
fn kubelets(bench: &Bench) -> Vec<(String, String)> {
    bench.twin.with_world(|w| cloud_hooks::kubelet_versions(w))
}

fn all_at(bench: &Bench, minor: &str) -> bool {
    let all = kubelets(bench);
    all.iter()
        .all(|(_, v)| v.starts_with(&format!("v{minor}.")))
}

/// The control plane has been taken to a version.
fn set_version(bench: &Bench, minor: u16) {
    let minor = Minor::new(minor);
    bench.twin.with_world(|w| {
        if let Some(eks) = w.cloud.eks.as_mut() {
            eks.version = minor;
        }
        cloud_hooks::set_server_version(w, minor);
    });
}

async fn serving(bench: &Bench) -> usize {
    let pods = bench.get(WEB).await;
    let pods = pods["items"].as_array().unwrap().clone();
    let serves = |p: &&Value| is_ready(p) && p["metadata"].get("deletionTimestamp").is_none();
    pods.iter().filter(serves).count()
}

#[tokio::test(start_paused = true)]
async fn nodes_are_replaced_one_after_another_and_budgets_hold() {
    let bench = Bench::of_scenario("auto-mode");
    let before: BTreeSet<String> = kubelets(&bench).into_iter().map(|(n, _)| n).collect();
    assert!(before.iter().all(|n| n.starts_with("i-")), "{before:?}");
    set_version(&bench, 31);
    let (mut least, mut most, mut seconds) = (usize::MAX, 0, 0);
    while !all_at(&bench, "1.31") || kubelets(&bench).len() != before.len() {
        least = least.min(serving(&bench).await);
        most = most.max(kubelets(&bench).len());
        bench.sleep(5.0).await;
        seconds += 5;
        assert!(seconds < 7200, "{:?}", kubelets(&bench));
    }
    assert!(least >= 2, "the budget allows one pod less: {least}");
    // Ten percent of three and of two is one node of each pool.
    assert!(most <= before.len() + 2, "{most}");
    let after = kubelets(&bench);
    assert!(after.iter().all(|(n, _)| !before.contains(n)));
    let one = bench.get(&format!("/api/v1/nodes/{}", after[0].0)).await;
    let labels = &one["metadata"]["labels"];
    assert_eq!(labels["eks.amazonaws.com/compute-type"], "auto");
    let words = one["status"]["nodeInfo"]["osImage"].as_str().unwrap();
    assert!(
        words.starts_with("Bottlerocket (EKS Auto, Standard)"),
        "{words}"
    );
    assert!(words.contains("aws-k8s-1.31"), "{words}");
    bench.sleep(60.0).await;
    assert_eq!(serving(&bench).await, 3);
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_allows_nothing_holds_a_node_for_the_pools_grace_and_no_longer() {
    // AWS's own grace is a day.
    let text = serde_json::to_string(&find_scenario("auto-mode").unwrap()).unwrap();
    let snapshot = serde_json::from_str(&text.replace("24h0m0s", "20m0s")).unwrap();
    let bench = Bench::of_snapshot(&snapshot);
    let path = "/apis/policy/v1/namespaces/shop/poddisruptionbudgets/web";
    bench
        .patch(path, MERGE, json!({"spec": {"maxUnavailable": 0}}))
        .await;
    bench.sleep(1.0).await;
    set_version(&bench, 31);
    let old = |bench: &Bench| {
        let all = kubelets(bench);
        all.iter().filter(|(_, v)| v.starts_with("v1.30.")).count()
    };
    bench.sleep(15.0 * 60.0).await;
    // The system's nodes have moved, those of the shop are held.
    assert_eq!(old(&bench), 3, "{:?}", kubelets(&bench));
    assert_eq!(serving(&bench).await, 3);
    bench.sleep(2.0 * 3600.0).await;
    assert_eq!(old(&bench), 0, "{:?}", kubelets(&bench));
}
