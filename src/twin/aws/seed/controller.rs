//! The load balancer controller a snapshot shows the work of.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::model::snapshot::Snapshot;
use crate::twin::aws::state::{AwsAccount, ControllerBinding, LoadBalancerController};

/// Where a snapshot has its TargetGroupBindings.
pub const BINDINGS_PATH: &str = "/apis/elbv2.k8s.aws/v1beta1/targetgroupbindings";
/// The same of EKS Auto Mode.
const AUTO_MODE_BINDINGS_PATH: &str = "/apis/eks.amazonaws.com/v1/targetgroupbindings";
/// The tag by which the cloud provider names the Service that it made a load balancer for (LBC-7).
const SERVICE_TAG: &str = "kubernetes.io/service-name";
/// The annotation that says which nodes a load balancer takes (CCM-1).
const NODE_LABELS_ANNOTATION: &str =
    "service.beta.kubernetes.io/aws-load-balancer-target-node-labels";

/// The controller, where rules carry its tags or target groups are bound: what is there now is what it wants.
pub fn seed_controller(cloud: &AwsAccount, snapshot: &Snapshot) -> Option<LoadBalancerController> {
    // The tag that every version 2 of the controller puts on all it makes.
    // Only rules and groups with the controller's tag are its own; everything else was made by others.
    let tagged = |tags: &BTreeMap<String, String>| tags.contains_key("elbv2.k8s.aws/cluster");
    let owned = |arn: &String| cloud.elb.tags.get(arn).is_some_and(tagged);
    let rules: BTreeMap<String, Vec<Value>> = cloud
        .elb
        .rules
        .values()
        .filter(|r| !r.default && owned(&r.arn))
        .map(|r| (r.arn.clone(), r.actions.clone()))
        .collect();
    let kubernetes = &snapshot.kubernetes;
    // Bindings of the controller and of Auto Mode are the same object under two names (LBC-8).
    let bound = [BINDINGS_PATH, AUTO_MODE_BINDINGS_PATH]
        .into_iter()
        .filter_map(|path| kubernetes.get(path))
        .flatten()
        .filter_map(|b| target_group_binding(snapshot, b));
    // Groups of the cloud provider are known by the Service that they were made for (LBC-7).
    let served = cloud.elb.groups.values();
    let served = served
        .filter(|g| g.target_type == "instance")
        .map(|g| &g.arn);
    let of_services = served
        .chain(cloud.elb.classics.keys())
        .filter_map(|served| service_binding(cloud, snapshot, served));
    // Where both name a group, the binding decides, as the controller does.
    let bindings: BTreeMap<String, ControllerBinding> = of_services.chain(bound).collect();
    (!rules.is_empty() || !bindings.is_empty()).then_some(LoadBalancerController {
        rules,
        bindings,
        seen: None,
    })
}

fn find_service<'s>(snapshot: &'s Snapshot, namespace: &str, name: &str) -> Option<&'s Value> {
    let is_it = |s: &&Value| {
        let of = |pointer: &str| s.pointer(pointer).and_then(Value::as_str);
        of("/metadata/name") == Some(name) && of("/metadata/namespace") == Some(namespace)
    };
    let services = snapshot.kubernetes.get("/api/v1/services");
    services.into_iter().flatten().find(is_it)
}

/// What the cloud provider made for a Service of type LoadBalancer: it takes the nodes that the Service's annotation names,
/// all where there is none.
fn service_binding(
    cloud: &AwsAccount,
    snapshot: &Snapshot,
    served: &str,
) -> Option<(String, ControllerBinding)> {
    let owner = cloud.elb.tags.get(served)?.get(SERVICE_TAG)?;
    let (namespace, name) = owner.split_once('/')?;
    // A binding to a Service that the snapshot does not have is left out.
    let found = find_service(snapshot, namespace, name)?;
    let annotations = found.pointer("/metadata/annotations");
    let labels = annotations.and_then(|a| a.get(NODE_LABELS_ANNOTATION)?.as_str());
    // Only pairs with a value limit the nodes; a key without one takes any node (CCM-1).
    let pairs = labels.into_iter().flat_map(|l| l.split(','));
    let pairs = pairs.filter_map(|p| p.split_once('='));
    let node_selector = pairs
        .map(|(k, v)| (k.trim().to_owned(), v.trim().to_owned()))
        .filter(|(_, v)| !v.is_empty())
        .collect();
    let binding = ControllerBinding {
        node_selector,
        port: None,
        service: Some((namespace.to_owned(), name.to_owned())),
    };
    Some((served.to_owned(), binding))
}

/// A binding with target type `instance` and the node port of its service.
fn target_group_binding(
    snapshot: &Snapshot,
    binding: &Value,
) -> Option<(String, ControllerBinding)> {
    let text = |pointer: &str| binding.pointer(pointer).and_then(Value::as_str);
    // Only groups of instances have nodes as targets; those of pods are filled by their addresses.
    if text("/spec/targetType") != Some("instance") {
        return None;
    }
    let arn = text("/spec/targetGroupARN")?.to_owned();
    let (namespace, name) = (text("/metadata/namespace")?, text("/spec/serviceRef/name")?);
    let found = find_service(snapshot, namespace, name)?;
    // The Service's port is named or numbered, and the target port is its node port.
    let wanted = binding.pointer("/spec/serviceRef/port");
    let ports = found
        .pointer("/spec/ports")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let port = ports
        .filter(|p| p.get("port") == wanted || p.get("name") == wanted)
        .find_map(|p| p.get("nodePort")?.as_u64())?;
    // Expressions of a selector are left out: a binding that has only those would fill its group from all nodes.
    let labels = binding
        .pointer("/spec/nodeSelector/matchLabels")
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    let node_selector = labels
        .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
        .collect();
    Some((
        arn,
        ControllerBinding {
            node_selector,
            port: Some(u16::try_from(port).ok()?),
            service: None,
        },
    ))
}
