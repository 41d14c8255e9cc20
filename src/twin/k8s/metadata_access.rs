//! Pods that read the instance metadata service, and nodes where they do not reach it: an answer that may travel one hop
//! does not get into a pod's own network (EKS-NG-7, CTL-1 to CTL-3).

use serde_json::Value;

use super::cluster::SimCluster;
use super::json::{find_annotation, list_at, text_at, value_at};
use super::kinds::SERVICE_ACCOUNTS;
use super::store::ObjectName;
use super::typed_views::PodView;

/// Variables that give a container credentials of its own.
const CREDENTIAL_VARIABLES: &[&str] = &[
    "AWS_ACCESS_KEY_ID",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
];

fn all_containers(pod: &Value) -> impl Iterator<Item = &Value> {
    list_at(pod, "spec.containers").iter()
}

fn has_variable(pod: &Value, names: &[&str]) -> bool {
    let mut variables = all_containers(pod).flat_map(|c| list_at(c, "env"));
    variables.any(|v| names.contains(&text_at(v, "name")))
}

/// The service account of a pod.
fn service_account(pod: &Value) -> ObjectName {
    let name = text_at(pod, "spec.serviceAccountName");
    let name = if name.is_empty() { "default" } else { name };
    ObjectName::new(text_at(pod, "metadata.namespace"), name)
}

/// Notes what a pod of a snapshot shows of its account: the webhooks of EKS give credentials to pods as they are made, not
/// to templates.
pub fn learn_credentials(cluster: &mut SimCluster, pod: &Value) {
    if has_variable(pod, CREDENTIAL_VARIABLES) {
        cluster.own_credentials.insert(service_account(pod));
    }
}

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
    has_variable(pod, CREDENTIAL_VARIABLES)
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
    if pod.host_network
        || !cluster.short_hop_nodes.contains(&pod.node)
        || cluster.without_metadata.contains(&service_account(object))
    {
        return false;
    }
    let runs = |image: &str| all_containers(object).any(|c| text_at(c, "image").contains(image));
    let daemon = pod.owner.as_ref().is_some_and(|o| o.kind == "DaemonSet");
    if runs("aws-load-balancer-controller") {
        let network = has_flag(object, &["--aws-vpc-id", "--aws-vpc-tags"]);
        let region = has_flag(object, &["--aws-region"])
            || has_variable(object, &["AWS_REGION", "AWS_DEFAULT_REGION"]);
        return !(network && region && has_credentials(cluster, object));
    }
    let aws_autoscaler =
        runs("cluster-autoscaler") && value_at(object, "spec.containers").is_some();
    let disk_controller = runs("aws-ebs-csi-driver") && !daemon;
    (aws_autoscaler || disk_controller) && !has_credentials(cluster, object)
}
