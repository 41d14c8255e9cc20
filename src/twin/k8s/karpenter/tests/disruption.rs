//! Budgets, what blocks a node, emptiness and consolidation.

use serde_json::json;

use super::super::super::json::{set_at, set_default_at};
use super::super::super::kinds::{BUDGETS, DEPLOYMENTS, PODS};
use super::super::super::store::ObjectKey;
use super::*;

/// Somebody changes a Deployment.
fn change_app(world: &mut SimWorld, name: &str, f: impl FnOnce(&mut Value)) {
    run_in_cluster(world, |cluster| {
        cluster.change_object(&ObjectKey::new(DEPLOYMENTS, "expense", name), f);
    });
}

/// A label of the template makes all nodes of a pool drift.
fn make_drift(world: &mut SimWorld, pool: &str) {
    change_pool(world, pool, |p| {
        set_at(p, "spec.template.metadata.labels.team", "shop");
    });
}

fn set_budgets(world: &mut SimWorld, pool: &str, budgets: Value) {
    change_pool(world, pool, |p| {
        set_at(p, "spec.disruption.budgets", budgets);
    });
}

#[tokio::test(start_paused = true)]
async fn drift_by_a_label_shows_at_once_and_a_budget_of_none_holds_it() {
    let twin = twin(&[]);
    pass(30).await;
    twin.with_world(|w| {
        let none = json!([{"nodes": "0", "reasons": ["Drifted"]}, {"nodes": "100%"}]);
        set_budgets(w, "general", none);
        make_drift(w, "general");
    });
    pass(5).await;
    let before = twin.with_world(|w| {
        let all = claims(w, "general");
        for claim in &all {
            let found = find_condition(claim, "Drifted").unwrap();
            assert_eq!(text_at(found, "reason"), "NodePoolDrifted");
        }
        names(&all)
    });
    pass(1800).await;
    twin.with_world(|w| {
        assert_eq!(names(&claims(w, "general")), before);
        let why = "No allowed disruptions for disruption reason Drifted due to blocking budget";
        assert!(events(w, "NodePool", "DisruptionBlocked").contains(&why.to_owned()));
        // The old label brings the old hash back.
        change_pool(w, "general", |p| {
            set_at(
                p,
                "spec.template.metadata.labels",
                json!({"workload": "general"}),
            );
        });
    });
    pass(5).await;
    twin.with_world(|w| {
        for claim in claims(w, "general") {
            assert_eq!(condition(&claim, "Drifted"), "");
        }
    });
}

#[tokio::test(start_paused = true)]
async fn the_old_node_is_tainted_before_its_replacement_is_there_and_deleted_after() {
    let twin = twin(&[]);
    pass(30).await;
    twin.with_world(|w| make_drift(w, "batch"));
    let old = twin.with_world(|w| names(&claims(w, "batch")).remove(0));
    let (mut tainted, mut initialized, mut deleted) = (None, None, None);
    for second in 0..600 {
        pass(1).await;
        twin.with_world(|w| {
            let all = claims(w, "batch");
            let of_old = all.iter().find(|c| name_of(c) == old);
            let marked = |c: &&Value| condition(c, "DisruptionReason") == "True";
            if of_old.filter(marked).is_some() {
                tainted.get_or_insert(second);
            }
            if of_old.is_none_or(objects::is_deleting) {
                deleted.get_or_insert(second);
            }
            let new = all.iter().find(|c| name_of(c) != old);
            if new.is_some_and(|c| condition(c, "Initialized") == "True") {
                initialized.get_or_insert(second);
            }
        });
    }
    assert!(
        tainted < initialized && initialized <= deleted,
        "{tainted:?} {initialized:?} {deleted:?}"
    );
    twin.with_world(|w| {
        assert_eq!(actions(w), ["created batch", "Drifted 1", "ended"]);
        assert!(
            events(w, "NodeClaim", "DisruptionTerminating")
                .contains(&"Disrupting NodeClaim: Drifted".to_owned())
        );
        assert!(events(w, "Pod", "Evicted").contains(&"Evicted pod: Drifted".to_owned()));
    });
}

#[tokio::test(start_paused = true)]
async fn a_budget_of_pods_that_allows_nothing_keeps_its_nodes_and_says_so() {
    let twin = twin(&["budget:expense/backend:3"]);
    pass(30).await;
    let before = twin.with_world(|w| {
        make_drift(w, "general");
        names(&claims(w, "general"))
    });
    pass(1800).await;
    twin.with_world(|w| {
        assert_eq!(names(&claims(w, "general")), before);
        let why = "Pdb prevents pod evictions (PodDisruptionBudget=[expense/backend])";
        assert!(events(w, "Node", "DisruptionBlocked").contains(&why.to_owned()));
        assert!(events(w, "NodeClaim", "DisruptionBlocked").contains(&why.to_owned()));
        // Nothing is tainted and nothing is made.
        assert_eq!(actions(w), Vec::<String>::new());
        run_in_cluster(w, |cluster| {
            let key = ObjectKey::new(BUDGETS, "expense", "backend");
            cluster.change_object(&key, |b| set_at(b, "spec.minAvailable", 2));
        });
    });
    pass(1800).await;
    twin.with_world(|w| {
        assert!(
            names(&claims(w, "general"))
                .iter()
                .all(|n| !before.contains(n))
        );
    });
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_not_to_be_disrupted_keeps_its_node_and_the_others_go() {
    let twin = twin(&["do-not-disrupt:expense/redis"]);
    pass(30).await;
    let before = twin.with_world(|w| {
        make_drift(w, "general");
        names(&claims(w, "general"))
    });
    pass(3600).await;
    twin.with_world(|w| {
        let left: Vec<String> = names(&claims(w, "general"));
        let kept: Vec<&String> = left.iter().filter(|n| before.contains(n)).collect();
        assert_eq!((left.len(), kept.len()), (3, 1), "{left:?}");
        let told = events(w, "NodeClaim", "DisruptionBlocked");
        assert!(
            told.iter().any(|m| m.starts_with(
                "Pod has \"karpenter.sh/do-not-disrupt\" annotation (Pod=expense/redis-"
            )),
            "{told:?}"
        );
        super::super::restore_pools(w);
    });
    pass(1800).await;
    twin.with_world(|w| {
        assert!(
            names(&claims(w, "general"))
                .iter()
                .all(|n| !before.contains(n))
        );
    });
}

#[tokio::test(start_paused = true)]
async fn a_node_annotation_counts_and_one_of_the_node_claim_does_not() {
    let twin = twin(&[]);
    pass(30).await;
    let (by_node, by_claim) = twin.with_world(|w| {
        let all = claims(w, "general");
        let (node, claim) = (
            text_at(&all[0], "status.nodeName").to_owned(),
            name_of(&all[1]).to_owned(),
        );
        run_in_cluster(w, |cluster| {
            let mark = |o: &mut Value| {
                o["metadata"]["annotations"]["karpenter.sh/do-not-disrupt"] = json!("true");
            };
            cluster.change_object(&objects::node_key(&node), mark);
            let key = objects::claim_key(cluster, &claim).unwrap();
            cluster.change_object(&key, mark);
        });
        make_drift(w, "general");
        (name_of(&all[0]).to_owned(), claim)
    });
    pass(3600).await;
    twin.with_world(|w| {
        let left = names(&claims(w, "general"));
        assert!(
            left.contains(&by_node) && !left.contains(&by_claim),
            "{left:?}"
        );
        let why = "Disruption is blocked through the \"karpenter.sh/do-not-disrupt\" annotation";
        assert!(events(w, "Node", "DisruptionBlocked").contains(&why.to_owned()));
    });
}

#[tokio::test(start_paused = true)]
async fn an_empty_node_goes_half_a_minute_after_the_pool_may_consolidate_it() {
    let twin = twin(&[]);
    pass(30).await;
    twin.with_world(|w| change_app(w, "batch-worker", |d| set_at(d, "spec.replicas", 0)));
    let mut gone_at = None;
    for second in 0..400 {
        pass(1).await;
        twin.with_world(|w| {
            if gone_at.is_none() && claims(w, "batch").iter().all(objects::is_deleting) {
                gone_at = Some(second);
            }
        });
    }
    // The pod ends within half a minute; the pool waits a minute; a look every ten seconds, and a second one after fifteen.
    assert!(
        gone_at.is_some_and(|at| (75..=140).contains(&at)),
        "{gone_at:?}"
    );
    twin.with_world(|w| {
        assert_eq!(actions(w), ["Empty 1", "ended"]);
        change_app(w, "batch-worker", |d| set_at(d, "spec.replicas", 1));
    });
    pass(300).await;
    twin.with_world(|w| {
        assert_eq!(kubelets(w, "batch").len(), 1);
        assert!(
            events(w, "Pod", "Nominated")
                .iter()
                .any(|m| m.starts_with("Pod should schedule on: nodeclaim/batch-"))
        );
    });
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_pods_fit_elsewhere_goes_as_underutilized() {
    let twin = twin(&[]);
    pass(30).await;
    // Without the rule that keeps the backend's pods apart, they fit on fewer nodes.
    twin.with_world(|w| {
        change_app(w, "backend", |d| {
            super::super::super::json::remove_at(d, "spec.template.spec.affinity");
        });
    });
    pass(3600).await;
    twin.with_world(|w| {
        assert_eq!(claims(w, "general").len(), 2, "{:?}", actions(w));
        assert!(actions(w).contains(&"Underutilized 1".to_owned()));
        let (all, ready) = ready_pods(w);
        assert_eq!(all, ready);
        change_pool(w, "general", |p| {
            set_default_at(p, "spec.disruption.consolidateAfter", "1m");
        });
    });
}

#[tokio::test(start_paused = true)]
async fn an_old_node_claim_is_deleted_whatever_budgets_say() {
    let twin = twin(&[]);
    pass(30).await;
    twin.with_world(|w| {
        set_budgets(w, "batch", json!([{"nodes": "0"}]));
        let claim = names(&claims(w, "batch")).remove(0);
        run_in_cluster(w, |cluster| {
            let key = objects::claim_key(cluster, &claim).unwrap();
            cluster.change_object(&key, |c| set_at(c, "spec.expireAfter", "40m"));
            let pods: Vec<_> = cluster.store.index.pods.keys().cloned().collect();
            assert!(
                pods.iter()
                    .any(|p| cluster.store.find_object(PODS, p).is_some())
            );
        });
    });
    pass(3600).await;
    twin.with_world(|w| {
        assert_eq!(actions(w), ["created batch", "ended"]);
        assert!(
            events(w, "Pod", "Evicted").contains(&"Evicted pod: Forceful Termination".to_owned())
        );
    });
}
