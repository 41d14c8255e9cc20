//! Pods that read the instance metadata service, and nodes where they do not reach it: an answer that may travel one hop
//! does not get into a pod's own network (EKS-NG-7, CTL-1 to CTL-3).

use serde_json::Value;

use super::cluster::SimCluster;
use super::json::{find_annotation, list_at, text_at, value_at};
use super::kinds::SERVICE_ACCOUNTS;
use super::pod_credentials::{all_containers, has_own_credentials, has_variable, service_account};
use super::store::ObjectName;
use super::typed_views::PodView;

/// Answers travel one hop from these nodes. Who is Ready there does without them.
pub fn mark_short_hops(cluster: &mut SimCluster, nodes: &[String]) {
    for node in nodes {
        cluster.short_hop_nodes.insert(node.clone());
        for pod in cluster.store.pods_on(node).iter().filter(|p| p.ready) {
            let object = cluster
                .store
                .find_object(super::kinds::PODS, &ObjectName::new(&*pod.ns, &*pod.name));
            if let Some(account) = object.map(|o| service_account(o)) {
                cluster.without_metadata.insert(account);
            }
        }
    }
}

fn has_credentials(cluster: &SimCluster, pod: &Value) -> bool {
    let account = service_account(pod);
    let object = cluster.store.find_object(SERVICE_ACCOUNTS, &account);
    has_own_credentials(pod)
        || cluster.own_credentials.contains(&account)
        || object.is_some_and(|o| find_annotation(o, "eks.amazonaws.com/role-arn").is_some())
}

fn has_flag(pod: &Value, flags: &[&str]) -> bool {
    let words = all_containers(pod)
        .flat_map(|c| list_at(c, "args").iter().chain(list_at(c, "command")))
        .filter_map(Value::as_str);
    let mut words = words.flat_map(str::split_whitespace);
    words.any(|w| flags.iter().any(|f| w.split('=').next() == Some(*f)))
}

/// Whether software that is known to read the metadata service would not reach it on the pod's node, and so not start.
pub fn is_cut_off(cluster: &SimCluster, object: &Value, pod: &PodView) -> bool {
    // A pod on the host's network is one hop nearer, and so reaches the service where others do not (EKS-NG-7).
    if pod.host_network
        || !cluster.short_hop_nodes.contains(&pod.node)
        || cluster.without_metadata.contains(&service_account(object))
    {
        return false;
    }
    let runs = |image: &str| all_containers(object).any(|c| text_at(c, "image").contains(image));
    let daemon = pod.owner.as_ref().is_some_and(|o| o.kind == "DaemonSet");
    // The controller needs its VPC, its region and credentials, and each can come from elsewhere (CTL-1).
    if runs("aws-load-balancer-controller") {
        let network = has_flag(object, &["--aws-vpc-id", "--aws-vpc-tags"]);
        let region = has_flag(object, &["--aws-region"])
            || has_variable(object, &["AWS_REGION", "AWS_DEFAULT_REGION"]);
        return !(network && region && has_credentials(cluster, object));
    }
    // Both end without credentials (CTL-2, CTL-3). Node pods of the disk driver do not need the service.
    let aws_autoscaler =
        runs("cluster-autoscaler") && value_at(object, "spec.containers").is_some();
    let disk_controller = runs("aws-ebs-csi-driver") && !daemon;
    (aws_autoscaler || disk_controller) && !has_credentials(cluster, object)
}
