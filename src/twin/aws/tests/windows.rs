use aws_sdk_eks::types::{AmiTypes, NodegroupScalingConfig};

use super::sdk::{asked, seconds};
use crate::twin::k8s::cloud_hooks;
use crate::twin::{Twin, scenario};

#[tokio::test(start_paused = true)]
async fn a_windows_group_has_its_own_releases_and_disks_and_its_nodes_join_as_windows() {
    let snapshot = scenario::find_scenario("windows").unwrap();
    let asked = asked(Twin::start(scenario::load_world(&snapshot, 7)), "us-east-1");
    let sizes = NodegroupScalingConfig::builder();
    let sizes = sizes.min_size(2).max_size(4).desired_size(2).build();
    let subnets = snapshot.inventory.subnets.iter().map(|s| s.id.clone());
    let group = asked
        .eks
        .create_nodegroup()
        .cluster_name("windows")
        .nodegroup_name("iis-green")
        .ami_type(AmiTypes::WindowsCore2022X8664)
        .instance_types("m5.large")
        .set_subnets(Some(subnets.collect()))
        .node_role("arn:aws:iam::123456789012:role/eks-node")
        .scaling_config(sizes)
        .send()
        .await
        .unwrap()
        .nodegroup
        .unwrap();
    assert_eq!(group.release_version(), Some("1.28-2026.11.05"));
    assert_eq!(group.disk_size(), Some(50));
    seconds(600).await;
    let nodes = asked
        .twin
        .with_world(|w| cloud_hooks::nodes_of_group(w, "iis-green"));
    assert_eq!(nodes.len(), 2);
    for node in nodes {
        let (ready, labels) = asked.twin.with_world(|w| {
            (
                cloud_hooks::is_node_ready(w, &node),
                cloud_hooks::node_labels(w, &node),
            )
        });
        assert!(ready, "{node}");
        assert_eq!(labels["kubernetes.io/os"], "windows");
        assert_eq!(labels["node.kubernetes.io/windows-build"], "10.0.20348");
    }
}
