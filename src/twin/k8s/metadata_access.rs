//! Pods that read the instance metadata service, and nodes where they do not reach it: an answer that may travel one hop
//! does not get into a pod's own network (EKS-NG-7, CTL-1 to CTL-3).

use serde_json::Value;

use super::cluster::Cluster;
use super::facts::Pod;
use super::json::{annotation, at, list, text};
use super::kinds::SERVICE_ACCOUNTS;
use super::store::Name;

/// Variables that give a container credentials of its own.
const CREDENTIALS: &[&str] = &[
    "AWS_ACCESS_KEY_ID",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
];

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    list(pod, "spec.containers").iter()
}

fn has_variable(pod: &Value, names: &[&str]) -> bool {
    let mut variables = containers(pod).flat_map(|c| list(c, "env"));
    variables.any(|v| names.contains(&text(v, "name")))
}

/// The service account of a pod.
fn account(pod: &Value) -> Name {
    let name = text(pod, "spec.serviceAccountName");
    let name = if name.is_empty() { "default" } else { name };
    Name::new(text(pod, "metadata.namespace"), name)
}

/// Notes what a pod of a snapshot shows of its account: the webhooks of EKS give credentials to pods as they are made, not
/// to templates.
pub fn learn(cluster: &mut Cluster, pod: &Value) {
    if has_variable(pod, CREDENTIALS) {
        cluster.own_credentials.insert(account(pod));
    }
}

/// Answers travel one hop from these nodes. Who is Ready there does without them.
pub fn mark_short_hops(cluster: &mut Cluster, nodes: &[String]) {
    for node in nodes {
        cluster.short_hop_nodes.insert(node.clone());
        for pod in cluster.store.pods_on(node).iter().filter(|p| p.ready) {
            let object = cluster
                .store
                .find(super::kinds::PODS, &Name::new(&*pod.ns, &*pod.name));
            if let Some(account) = object.map(|o| account(o)) {
                cluster.without_metadata.insert(account);
            }
        }
    }
}

fn has_credentials(cluster: &Cluster, pod: &Value) -> bool {
    let account = account(pod);
    let object = cluster.store.find(SERVICE_ACCOUNTS, &account);
    has_variable(pod, CREDENTIALS)
        || cluster.own_credentials.contains(&account)
        || object.is_some_and(|o| annotation(o, "eks.amazonaws.com/role-arn").is_some())
}

fn has_flag(pod: &Value, flags: &[&str]) -> bool {
    let words = containers(pod)
        .flat_map(|c| list(c, "args").iter().chain(list(c, "command")))
        .filter_map(Value::as_str);
    let mut words = words.flat_map(str::split_whitespace);
    words.any(|w| flags.iter().any(|f| w.split('=').next() == Some(*f)))
}

/// Whether software that is known to read the metadata service would not reach it on the pod's node, and so not start.
pub fn is_cut_off(cluster: &Cluster, object: &Value, pod: &Pod) -> bool {
    if pod.host_network
        || !cluster.short_hop_nodes.contains(&pod.node)
        || cluster.without_metadata.contains(&account(object))
    {
        return false;
    }
    let runs = |image: &str| containers(object).any(|c| text(c, "image").contains(image));
    let daemon = pod.owner.as_ref().is_some_and(|o| o.kind == "DaemonSet");
    if runs("aws-load-balancer-controller") {
        let network = has_flag(object, &["--aws-vpc-id", "--aws-vpc-tags"]);
        let region = has_flag(object, &["--aws-region"])
            || has_variable(object, &["AWS_REGION", "AWS_DEFAULT_REGION"]);
        return !(network && region && has_credentials(cluster, object));
    }
    let aws_autoscaler = runs("cluster-autoscaler") && at(object, "spec.containers").is_some();
    let disk_controller = runs("aws-ebs-csi-driver") && !daemon;
    (aws_autoscaler || disk_controller) && !has_credentials(cluster, object)
}
