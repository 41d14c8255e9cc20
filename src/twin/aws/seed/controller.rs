//! The load balancer controller a snapshot shows the work of.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::model::snapshot::Snapshot;
use crate::twin::aws::state::{Binding, Cloud, Controller};

/// Where a snapshot has its TargetGroupBindings.
pub const BINDINGS: &str = "/apis/elbv2.k8s.aws/v1beta1/targetgroupbindings";

/// The controller, where rules carry its tags or target groups are bound: what is there now is what it wants.
pub fn of(cloud: &Cloud, snapshot: &Snapshot) -> Option<Controller> {
    // The tag that every version 2 of the controller puts on all it makes.
    let tagged = |tags: &BTreeMap<String, String>| tags.contains_key("elbv2.k8s.aws/cluster");
    let owned = |arn: &String| cloud.elb.tags.get(arn).is_some_and(tagged);
    let rules: BTreeMap<String, Vec<Value>> = cloud
        .elb
        .rules
        .values()
        .filter(|r| !r.default && owned(&r.arn))
        .map(|r| (r.arn.clone(), r.actions.clone()))
        .collect();
    let bindings: BTreeMap<String, Binding> = snapshot
        .kubernetes
        .get(BINDINGS)
        .into_iter()
        .flatten()
        .filter_map(|b| binding(snapshot, b))
        .collect();
    (!rules.is_empty() || !bindings.is_empty()).then_some(Controller { rules, bindings })
}

/// A binding with target type `instance` and the node port of its service.
fn binding(snapshot: &Snapshot, binding: &Value) -> Option<(String, Binding)> {
    let text = |pointer: &str| binding.pointer(pointer).and_then(Value::as_str);
    if text("/spec/targetType") != Some("instance") {
        return None;
    }
    let arn = text("/spec/targetGroupARN")?.to_owned();
    let (namespace, service) = (text("/metadata/namespace")?, text("/spec/serviceRef/name")?);
    let is_it = |s: &&Value| {
        s.pointer("/metadata/name").and_then(Value::as_str) == Some(service)
            && s.pointer("/metadata/namespace").and_then(Value::as_str) == Some(namespace)
    };
    let found = snapshot
        .kubernetes
        .get("/api/v1/services")
        .into_iter()
        .flatten()
        .find(is_it)?;
    let wanted = binding.pointer("/spec/serviceRef/port");
    let ports = found
        .pointer("/spec/ports")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let port = ports
        .filter(|p| p.get("port") == wanted || p.get("name") == wanted)
        .find_map(|p| p.get("nodePort")?.as_u64())?;
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
        Binding {
            node_selector,
            port: u16::try_from(port).ok()?,
        },
    ))
}
