//! Drift: by a new version of the control plane, by a pool's fields, within budgets.

use super::*;

#[tokio::test(start_paused = true)]
async fn the_bundled_cluster_does_nothing_by_itself() {
    let twin = twin(&[]);
    pass(7200).await;
    twin.with_world(|w| {
        assert_eq!(actions(w), Vec::<String>::new());
        assert_eq!(claims(w, "general").len(), 3);
        for claim in claims(w, "general") {
            assert_eq!(condition(&claim, "Drifted"), "", "{claim:#}");
            assert_eq!(condition(&claim, "Ready"), "True");
        }
    });
}

#[tokio::test(start_paused = true)]
async fn a_new_version_makes_nodes_drift_and_replaces_them_one_after_the_other() {
    let twin = twin(&[]);
    pass(60).await;
    let pods = twin.with_world(|w| {
        set_version(w, 29);
        ready_pods(w)
    });
    // The version is read every five minutes, and so is the class (KARP-6).
    let mut drifted_at = None;
    let mut most = 0;
    for second in 0..3600 {
        pass(1).await;
        twin.with_world(|w| {
            let all = claims(w, "general");
            if drifted_at.is_none() && all.iter().any(|c| condition(c, "Drifted") == "True") {
                drifted_at = Some(second);
            }
            most = most.max(all.iter().filter(|c| objects::is_deleting(c)).count());
        });
    }
    assert!(drifted_at.is_some_and(|at| at <= 601), "{drifted_at:?}");
    assert_eq!(most, 1);
    twin.with_world(|w| {
        assert_eq!(kubelets(w, "general"), ["v1.29.15"; 3], "{:?}", actions(w));
        assert_eq!(kubelets(w, "batch"), ["v1.29.15"]);
        assert_eq!(ready_pods(w), pods);
        let instances = w.cloud.instances.values();
        let running: Vec<_> = instances
            .filter(|i| i.state == "running" && i.tags.contains_key("karpenter.sh/nodepool"))
            .collect();
        assert_eq!(running.len(), 4);
        assert!(
            running
                .iter()
                .all(|i| i.tags["kubernetes.io/cluster/karpenter-drift"] == "owned")
        );
    });
}

#[tokio::test(start_paused = true)]
async fn targets_of_the_balancer_follow_the_nodes_of_the_pool() {
    let twin = twin(&[]);
    pass(60).await;
    let arn = twin.with_world(|w| {
        let controller = w.cloud.switches.controller.as_ref().unwrap();
        let arn = controller.bindings.keys().next().unwrap().clone();
        set_version(w, 29);
        arn
    });
    let mut least = usize::MAX;
    for _ in 0..360 {
        pass(10).await;
        twin.with_world(|w| least = least.min(aws::count_healthy_targets(w, &arn)));
    }
    twin.with_world(|w| {
        assert_eq!(aws::count_healthy_targets(w, &arn), 3, "{:?}", actions(w));
        assert_eq!(kubelets(w, "general"), ["v1.29.15"; 3]);
    });
    // A node that is drained is out, and its replacement was in before.
    assert!(least >= 2, "{least}");
}
