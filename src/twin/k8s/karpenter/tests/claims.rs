//! Node claims: made by hand, deleted by hand, without capacity, under a class that is not Ready.

use serde_json::json;

use super::super::super::json::{set_at, value_at};
use super::super::super::kinds::{NODES, PODS};
use super::super::super::store::ObjectKey;
use super::*;

/// A node claim as a client makes one.
fn claim_by_hand(name: &str, owner: Option<&Value>) -> Value {
    let mut claim = json!({
        "apiVersion": "karpenter.sh/v1", "kind": "NodeClaim",
        "metadata": {"name": name, "labels": {"karpenter.sh/nodepool": "general", "workload": "general"}},
        "spec": {
            "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"},
            "requirements": [
                {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": ["t3.large"]},
                {"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]},
                {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["us-east-1b"]},
            ],
        },
    });
    if let Some(owner) = owner {
        claim["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "karpenter.sh/v1", "kind": "NodePool", "name": name_of(owner),
            "uid": text_at(owner, "metadata.uid"), "blockOwnerDeletion": true,
        }]);
    }
    claim
}

fn create_claim(world: &mut SimWorld, claim: Value) {
    run_in_cluster(world, |cluster| {
        let kinds = objects::kinds(cluster).unwrap();
        cluster.create_object(kinds.claims, claim, false).unwrap();
    });
}

fn delete_claim(world: &mut SimWorld, name: &str) {
    run_in_cluster(world, |cluster| {
        super::super::lifecycle::delete_claim(cluster, name);
    });
}

fn find(world: &SimWorld, name: &str) -> Option<Value> {
    objects::find_claim(&world.kube, name).map(|c| Value::clone(&c))
}

#[tokio::test(start_paused = true)]
async fn a_node_claim_made_by_hand_is_launched_and_belongs_to_its_pool() {
    let twin = twin(&[]);
    pass(30).await;
    twin.with_world(|w| {
        change_pool(w, "general", |p| {
            set_at(p, "spec.disruption.budgets", json!([{"nodes": "0"}]));
        });
        create_claim(w, claim_by_hand("by-hand", None));
    });
    pass(180).await;
    twin.with_world(|w| {
        let claim = find(w, "by-hand").unwrap();
        for kind in ["Launched", "Registered", "Initialized", "Ready"] {
            assert_eq!(condition(&claim, kind), "True", "{claim:#}");
        }
        assert_eq!(condition(&claim, "Drifted"), "", "{claim:#}");
        assert_eq!(text_at(&claim, "spec.expireAfter"), "720h");
        assert!(objects::has_finalizer(&claim, objects::FINALIZER));
        let node = objects::find_named(&w.kube, NODES, text_at(&claim, "status.nodeName")).unwrap();
        for (label, value) in [
            ("karpenter.sh/nodepool", "general"),
            ("karpenter.sh/registered", "true"),
            ("karpenter.sh/initialized", "true"),
            ("karpenter.sh/capacity-type", "on-demand"),
            ("topology.kubernetes.io/zone", "us-east-1b"),
            ("workload", "general"),
        ] {
            assert_eq!(node["metadata"]["labels"][label], value, "{label}");
        }
        assert!(objects::has_finalizer(&node, objects::FINALIZER));
        assert_eq!(
            text_at(&node["metadata"]["ownerReferences"][0], "name"),
            "by-hand"
        );
        assert!(value_at(&node, "spec.taints").is_none(), "{node:#}");
        let instance = objects::instance_of_claim(&claim);
        let tags = &w.cloud.instances[instance].tags;
        assert_eq!(tags["karpenter.sh/nodeclaim"], "by-hand");
        assert_eq!(tags["karpenter.sh/nodepool"], "general");
        let pool = objects::find_pool(&w.kube, "general").unwrap();
        assert_eq!(pool["status"]["nodes"], 4);
    });
}

#[tokio::test(start_paused = true)]
async fn a_node_claim_outside_its_pools_requirements_drifts_at_once() {
    let twin = twin(&[]);
    pass(30).await;
    twin.with_world(|w| {
        change_pool(w, "general", |p| {
            set_at(p, "spec.disruption.budgets", json!([{"nodes": "0"}]));
        });
        let mut claim = claim_by_hand("by-hand", None);
        claim["spec"]["requirements"][0]["values"] = json!(["m5.xlarge"]);
        create_claim(w, claim);
    });
    pass(5).await;
    twin.with_world(|w| {
        let claim = find(w, "by-hand").unwrap();
        let drifted = find_condition(&claim, "Drifted").unwrap();
        assert_eq!(text_at(drifted, "reason"), "RequirementsDrifted");
    });
}

#[tokio::test(start_paused = true)]
async fn a_deleted_node_claim_gets_a_place_for_its_pods_before_they_are_evicted_and_its_instance_ends()
 {
    let twin = twin(&[]);
    pass(30).await;
    let (name, instance, pods) = twin.with_world(|w| {
        let claim = claims(w, "batch").remove(0);
        let instance = objects::instance_of_claim(&claim).to_owned();
        delete_claim(w, name_of(&claim));
        (name_of(&claim).to_owned(), instance, ready_pods(w))
    });
    pass(5).await;
    twin.with_world(|w| {
        let claim = find(w, &name).unwrap();
        assert_eq!(condition(&claim, "Drained"), "Unknown");
        let node = text_at(&claim, "status.nodeName");
        let node = objects::find_named(&w.kube, NODES, node).unwrap();
        assert!(objects::is_deleting(&node));
        assert_eq!(
            text_at(&node["spec"]["taints"][1], "key"),
            "karpenter.sh/disrupted"
        );
        assert_eq!(
            node["metadata"]["labels"]["node.kubernetes.io/exclude-from-external-load-balancers"],
            "karpenter"
        );
    });
    pass(300).await;
    twin.with_world(|w| {
        assert!(find(w, &name).is_none());
        assert_eq!(w.cloud.instances[&instance].state, "terminated");
        assert_eq!(ready_pods(w), pods, "{:?}", actions(w));
    });
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_allows_nothing_holds_a_deleted_node_claim_forever() {
    let twin = twin(&["budget:expense/backend:3"]);
    pass(30).await;
    let name = twin.with_world(|w| {
        let name = names(&claims(w, "general")).remove(0);
        delete_claim(w, &name);
        name
    });
    pass(3600).await;
    twin.with_world(|w| {
        let claim = find(w, &name).unwrap();
        assert_eq!(condition(&claim, "Drained"), "Unknown");
        let told = events(w, "Node", "FailedDraining");
        assert!(
            told.contains(&"Failed to drain node, 1 pods are waiting to be evicted".to_owned()),
            "{told:?}"
        );
    });
}

#[tokio::test(start_paused = true)]
async fn a_termination_grace_period_ends_what_a_budget_holds() {
    let twin = twin(&["budget:expense/backend:3"]);
    pass(30).await;
    let name = twin.with_world(|w| {
        let name = names(&claims(w, "general")).remove(0);
        run_in_cluster(w, |cluster| {
            let key = objects::claim_key(cluster, &name).unwrap();
            cluster.change_object(&key, |c| set_at(c, "spec.terminationGracePeriod", "10m"));
        });
        delete_claim(w, &name);
        name
    });
    pass(500).await;
    twin.with_world(|w| assert!(find(w, &name).is_some()));
    pass(300).await;
    twin.with_world(|w| {
        assert!(find(w, &name).is_none());
        let told = events(w, "Pod", "Disrupted");
        assert!(
            told.iter()
                .any(|m| m.contains("This bypasses the PDB of the pod")),
            "{told:?}"
        );
    });
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_not_to_be_disrupted_is_not_evicted_by_karpenter_but_by_others() {
    let twin = twin(&["do-not-disrupt:expense/batch-worker"]);
    pass(30).await;
    let name = twin.with_world(|w| {
        let name = names(&claims(w, "batch")).remove(0);
        delete_claim(w, &name);
        name
    });
    pass(600).await;
    twin.with_world(|w| {
        assert!(find(w, &name).is_some());
        run_in_cluster(w, |cluster| {
            let pods = cluster.store.index.pods.keys();
            let pod = pods
                .into_iter()
                .find(|p| p.name.starts_with("batch-worker"))
                .cloned();
            let key = ObjectKey {
                res: PODS,
                at: pod.unwrap(),
            };
            let query = super::super::super::query::QueryParams::default();
            super::super::super::rest::evict::evict_pod(cluster, &key, &query, &json!({})).unwrap();
        });
    });
    pass(120).await;
    twin.with_world(|w| assert!(find(w, &name).is_none()));
}

#[tokio::test(start_paused = true)]
async fn without_capacity_a_node_claim_is_deleted_and_another_made_three_minutes_later() {
    let twin = twin(&["node-pool-capacity:batch"]);
    pass(30).await;
    twin.with_world(|w| {
        let name = names(&claims(w, "batch")).remove(0);
        delete_claim(w, &name);
    });
    pass(900).await;
    twin.with_world(|w| {
        let tries = actions(w).iter().filter(|a| *a == "no capacity").count();
        assert!((3..=6).contains(&tries), "{:?}", actions(w));
        let all = w
            .kube
            .store
            .objects_of(super::super::super::kinds::EVENTS, "");
        let told: Vec<String> = all
            .filter(|(_, e)| text_at(e, "reason") == "InsufficientCapacityError")
            .map(|(_, e)| text_at(e, "message").to_owned())
            .collect();
        assert!(
            told.iter()
                .any(|m| m.contains("InsufficientInstanceCapacity")),
            "{told:?}"
        );
        super::super::restore_pools(w);
    });
    pass(600).await;
    twin.with_world(|w| assert_eq!(kubelets(w, "batch").len(), 1));
}

#[tokio::test(start_paused = true)]
async fn under_a_class_that_is_not_ready_nothing_is_launched() {
    let twin = twin(&["nodeclass-not-ready:default"]);
    pass(30).await;
    twin.with_world(|w| {
        let pool = objects::find_pool(&w.kube, "general").unwrap();
        assert_eq!(condition(&pool, "NodeClassReady"), "False", "{pool:#}");
        assert_eq!(condition(&pool, "Ready"), "False");
        create_claim(w, claim_by_hand("by-hand", None));
    });
    pass(5).await;
    twin.with_world(|w| {
        assert!(find(w, "by-hand").is_none());
        super::super::restore_pools(w);
    });
    pass(30).await;
    twin.with_world(|w| {
        let pool = objects::find_pool(&w.kube, "general").unwrap();
        assert_eq!(condition(&pool, "Ready"), "True");
    });
}

#[tokio::test(start_paused = true)]
async fn while_karpenter_is_down_nothing_happens_and_later_all_of_it() {
    let twin = twin(&["karpenter-down"]);
    pass(30).await;
    twin.with_world(|w| {
        set_version(w, 29);
        create_claim(w, claim_by_hand("by-hand", None));
    });
    pass(1800).await;
    twin.with_world(|w| {
        assert!(value_at(&find(w, "by-hand").unwrap(), "status.providerID").is_none());
        assert_eq!(kubelets(w, "general"), ["v1.28.15"; 3]);
        super::super::set_stopped(w, false);
    });
    pass(3600).await;
    twin.with_world(|w| {
        assert!(
            kubelets(w, "general").iter().all(|k| k == "v1.29.15"),
            "{:?}",
            actions(w)
        );
    });
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pool_takes_its_own_node_claims_along_and_a_class_waits_for_them() {
    let twin = twin(&[]);
    pass(30).await;
    twin.with_world(|w| {
        run_in_cluster(w, |cluster| {
            let kinds = objects::kinds(cluster).unwrap();
            let class = cluster
                .store
                .kinds
                .find_kind(objects::EC2_GROUP, "EC2NodeClass")
                .unwrap();
            cluster.delete_object(&ObjectKey::new(class, "", "default"), None);
            cluster.delete_object(&ObjectKey::new(kinds.pools, "", "batch"), None);
        });
    });
    pass(5).await;
    twin.with_world(|w| {
        assert!(objects::find_pool(&w.kube, "batch").is_none());
        assert!(claims(w, "batch").iter().all(objects::is_deleting));
        let class = w
            .kube
            .store
            .kinds
            .find_kind(objects::EC2_GROUP, "EC2NodeClass")
            .unwrap();
        let class = objects::find_named(&w.kube, class, "default").unwrap();
        assert!(objects::is_deleting(&class));
        let pool = objects::find_pool(&w.kube, "general").unwrap();
        let ready = find_condition(&pool, "NodeClassReady").unwrap();
        assert_eq!(text_at(ready, "reason"), "NodeClassTerminating");
    });
    pass(300).await;
    twin.with_world(|w| {
        assert!(claims(w, "batch").is_empty());
        assert_eq!(claims(w, "general").len(), 3);
    });
}

#[tokio::test(start_paused = true)]
async fn limits_of_a_pool_hold_back_new_nodes_and_not_those_made_by_hand() {
    let twin = twin(&[]);
    pass(30).await;
    twin.with_world(|w| {
        change_pool(w, "batch", |p| {
            set_at(p, "spec.limits", json!({"cpu": "0"}));
        });
        let name = names(&claims(w, "batch")).remove(0);
        delete_claim(w, &name);
    });
    pass(300).await;
    twin.with_world(|w| {
        assert!(claims(w, "batch").is_empty());
        let told = events(w, "Pod", "FailedScheduling");
        let why = "all available instance types exceed limits for nodepool (NodePool=batch)";
        assert!(told.iter().any(|m| m.contains(why)), "{told:?}");
        let mut claim = claim_by_hand("by-hand", None);
        claim["metadata"]["labels"] =
            json!({"karpenter.sh/nodepool": "batch", "workload": "batch"});
        create_claim(w, claim);
    });
    pass(180).await;
    twin.with_world(|w| assert_eq!(kubelets(w, "batch").len(), 1));
}
