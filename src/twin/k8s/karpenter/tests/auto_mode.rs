//! A pool whose class is EKS Auto Mode's, without a Deployment of Karpenter.

use serde_json::json;

use super::super::super::json::set_at;
use super::super::super::kinds::DEPLOYMENTS;
use super::super::super::store::ObjectKey;
use super::*;

#[tokio::test(start_paused = true)]
async fn pools_of_auto_mode_are_looked_after_without_a_controller_in_the_cluster() {
    let mut snapshot = scenario::find_scenario(SCENARIO).unwrap();
    let class = json!({
        "apiVersion": "eks.amazonaws.com/v1", "kind": "NodeClass",
        "metadata": {"name": "default", "uid": "c1", "generation": 1, "creationTimestamp": "2026-11-21T08:16:00Z"},
        "spec": {"role": "auto", "subnetSelectorTerms": [{"tags": {"a": "b"}}], "securityGroupSelectorTerms": [{"tags": {"a": "b"}}]},
    });
    snapshot.kubernetes.insert(
        "/apis/eks.amazonaws.com/v1/nodeclasses".to_owned(),
        vec![class],
    );
    let clock = Clock::starting_at(snapshot.inventory.taken_at);
    let twin = Twin::start(scenario::load_world_at(&snapshot, 5, clock));
    pass(10).await;
    twin.with_world(|w| {
        run_in_cluster(w, |cluster| {
            let pool = json!({
                "metadata": {"name": "auto"},
                "spec": {"weight": 50, "template": {"spec": {
                    "nodeClassRef": {"group": "eks.amazonaws.com", "kind": "NodeClass", "name": "default"},
                    "requirements": [{"key": "eks.amazonaws.com/instance-category", "operator": "In", "values": ["m"]}],
                }}},
            });
            let kinds = objects::kinds(cluster).unwrap();
            cluster.create_object(kinds.pools, pool, false).unwrap();
            // Karpenter itself is not there.
            cluster.delete_object(&ObjectKey::new(DEPLOYMENTS, "kube-system", "karpenter"), None);
            let key = ObjectKey::new(DEPLOYMENTS, "expense", "backend");
            cluster.change_object(&key, |d| set_at(d, "spec.replicas", 4));
        });
    });
    pass(240).await;
    twin.with_world(|w| {
        let all = claims(w, "auto");
        assert_eq!(all.len(), 1, "{:?}", actions(w));
        assert_eq!(condition(&all[0], "Ready"), "True", "{:#}", all[0]);
        let labels = &all[0]["metadata"]["labels"];
        assert_eq!(labels["eks.amazonaws.com/nodeclass"], "default");
        assert_eq!(kubelets(w, "auto"), ["v1.28.15"]);
        let nodes = w.kube.store.index.nodes.values();
        let auto = nodes.filter(|n| n.label_value("eks.amazonaws.com/compute-type") == "auto");
        assert_eq!(auto.count(), 1);
        set_version(w, 29);
    });
    pass(1800).await;
    twin.with_world(|w| {
        assert_eq!(kubelets(w, "auto"), ["v1.29.15"], "{:?}", actions(w));
        // Nobody looks after the others.
        assert_eq!(kubelets(w, "general"), ["v1.28.15"; 3]);
    });
}
