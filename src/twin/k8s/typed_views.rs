//! What controllers look at most, read once out of pods and nodes when they are written.

use std::collections::BTreeMap;

use serde_json::Value;

use super::affinity_term::{AffinityTerm, avoided_pods};
use super::json::{
    cpu_millis, find_condition, flag_at, list_at, number_at, quantity_units, text_at, text_map_at,
    value_at,
};
use super::pod_requests::{PodHostPort, PodRequests, ResourceAmounts, host_ports, other_amounts};
use super::selector::Labels;

/// A taint or what tolerates it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeTaint {
    pub key: String,
    pub value: String,
    pub effect: String,
}

impl NodeTaint {
    /// Reads a taint.
    pub fn from_spec(value: &Value) -> Self {
        let part = |key| text_at(value, key).to_owned();
        Self {
            key: part("key"),
            value: part("value"),
            effect: part("effect"),
        }
    }

    /// Whether one of `tolerations` tolerates it; for how long, when not forever.
    pub fn toleration_for(&self, tolerations: &[Value]) -> Option<Option<i64>> {
        tolerations
            .iter()
            .find(|t| self.tolerated_by(t))
            .map(|t| t.get("tolerationSeconds").and_then(Value::as_i64))
    }

    fn tolerated_by(&self, toleration: &Value) -> bool {
        let (key, effect) = (text_at(toleration, "key"), text_at(toleration, "effect"));
        let exists = text_at(toleration, "operator") == "Exists";
        (effect.is_empty() || effect == self.effect)
            && (key == self.key || (key.is_empty() && exists))
            && (exists || text_at(toleration, "value") == self.value)
    }
}

/// The controller of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerRef {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    pub uid: String,
}

impl OwnerRef {
    /// The owner that controls `object`.
    pub fn controller_of(object: &Value) -> Option<Self> {
        let owner = list_at(object, "metadata.ownerReferences")
            .iter()
            .find(|o| flag_at(o, "controller"))?;
        Some(Self::from_reference(owner))
    }

    /// The first owner of an object that nobody controls.
    pub fn first_of(object: &Value) -> Option<Self> {
        list_at(object, "metadata.ownerReferences")
            .first()
            .map(Self::from_reference)
    }

    fn from_reference(owner: &Value) -> Self {
        let part = |key| text_at(owner, key).to_owned();
        Self {
            api_version: part("apiVersion"),
            kind: part("kind"),
            name: part("name"),
            uid: part("uid"),
        }
    }
}

/// A pod in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodView {
    pub ns: String,
    pub name: String,
    pub uid: String,
    /// Empty until it is bound.
    pub node: String,
    pub phase: String,
    pub ready: bool,
    pub deleting: bool,
    pub owner: Option<OwnerRef>,
    pub labels: Labels,
    pub cpu: i64,
    pub memory: i64,
    /// Requests of all other resources.
    pub others: ResourceAmounts,
    pub host_ports: Vec<PodHostPort>,
    /// The pods it must not be near to.
    pub avoids: Vec<AffinityTerm>,
    /// Whether its place depends on where other pods are: hard spreading or required pod affinity.
    pub looks_at_others: bool,
    pub ip: String,
    pub host_network: bool,
    pub priority: i64,
}

impl PodView {
    /// Reads a pod.
    pub fn from_object(pod: &Value) -> Self {
        let PodRequests {
            cpu,
            memory,
            others,
        } = PodRequests::from_spec(value_at(pod, "spec").unwrap_or(&Value::Null));
        Self {
            ns: text_at(pod, "metadata.namespace").to_owned(),
            name: text_at(pod, "metadata.name").to_owned(),
            uid: text_at(pod, "metadata.uid").to_owned(),
            node: text_at(pod, "spec.nodeName").to_owned(),
            phase: text_at(pod, "status.phase").to_owned(),
            // The condition decides and not the containers' own state, as for everybody else who asks.
            ready: find_condition(pod, "Ready").is_some_and(|c| text_at(c, "status") == "True"),
            deleting: value_at(pod, "metadata.deletionTimestamp").is_some(),
            owner: OwnerRef::controller_of(pod),
            labels: text_map_at(pod, "metadata.labels"),
            cpu,
            memory,
            others,
            host_ports: host_ports(value_at(pod, "spec").unwrap_or(&Value::Null)),
            avoids: avoided_pods(pod),
            looks_at_others: depends_on_other_pods(pod),
            ip: text_at(pod, "status.podIP").to_owned(),
            host_network: flag_at(pod, "spec.hostNetwork"),
            priority: number_at(pod, "spec.priority").unwrap_or(0),
        }
    }

    /// Whether it has run its course.
    pub fn is_finished(&self) -> bool {
        self.phase == "Succeeded" || self.phase == "Failed"
    }

    /// Whether it is there to stay: neither finished nor on its way out.
    pub fn is_active(&self) -> bool {
        !self.deleting && !self.is_finished()
    }

    /// Whether the object with `uid` controls it.
    pub fn is_owned_by(&self, uid: &str) -> bool {
        self.owner.as_ref().is_some_and(|o| o.uid == uid)
    }
}

fn depends_on_other_pods(pod: &Value) -> bool {
    let affinity = "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution";
    !list_at(pod, affinity).is_empty()
        || list_at(pod, "spec.topologySpreadConstraints")
            .iter()
            .any(|c| text_at(c, "whenUnsatisfiable") != "ScheduleAnyway")
}

/// A node in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    pub name: String,
    pub labels: Labels,
    pub taints: Vec<NodeTaint>,
    pub unschedulable: bool,
    pub ready: bool,
    pub cpu: i64,
    pub memory: i64,
    pub pods: i64,
    /// What it has of all other resources.
    pub others: ResourceAmounts,
    /// The EC2 instance behind it; empty when there is none.
    pub instance: String,
    /// The version its kubelet reports.
    pub kubelet: String,
}

impl NodeView {
    /// Reads a node.
    pub fn from_object(node: &Value) -> Self {
        // What pods can use is the allocatable amount, not the capacity.
        let room = value_at(node, "status.allocatable");
        Self {
            name: text_at(node, "metadata.name").to_owned(),
            labels: text_map_at(node, "metadata.labels"),
            taints: list_at(node, "spec.taints")
                .iter()
                .map(NodeTaint::from_spec)
                .collect(),
            unschedulable: flag_at(node, "spec.unschedulable"),
            ready: find_condition(node, "Ready").is_some_and(|c| text_at(c, "status") == "True"),
            cpu: cpu_millis(room.and_then(|r| r.get("cpu"))),
            memory: quantity_units(room.and_then(|r| r.get("memory"))),
            pods: quantity_units(room.and_then(|r| r.get("pods"))),
            others: other_amounts(room),
            // The instance is the last part of the provider's identifier (`aws:///ZONE/INSTANCE`); Fargate's nodes have
            // none, and their name stands there.
            instance: text_at(node, "spec.providerID")
                .rsplit('/')
                .next()
                .filter(|id| !id.starts_with("fargate-"))
                .unwrap_or_default()
                .to_owned(),
            kubelet: text_at(node, "status.nodeInfo.kubeletVersion").to_owned(),
        }
    }

    /// The label `key`; empty when it has none.
    pub fn label_value(&self, key: &str) -> &str {
        self.labels.get(key).map(String::as_str).unwrap_or_default()
    }

    /// The node group it belongs to.
    pub fn node_group(&self) -> &str {
        self.label_value("eks.amazonaws.com/nodegroup")
    }

    /// Whether EKS Auto Mode runs it.
    pub fn is_auto_mode(&self) -> bool {
        self.label_value("eks.amazonaws.com/compute-type") == "auto"
    }

    /// The zone it is in.
    pub fn zone(&self) -> &str {
        self.label_value("topology.kubernetes.io/zone")
    }
}

/// What the pods of a node take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeUsage {
    pub cpu: i64,
    pub memory: i64,
    pub pods: i64,
    pub others: ResourceAmounts,
    /// By controller: how many pods; spreading looks at it.
    pub by_owner: BTreeMap<String, i64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_taint_is_tolerated_by_key_value_and_effect() {
        let taint = NodeTaint {
            key: "a".into(),
            value: "b".into(),
            effect: "NoSchedule".into(),
        };
        for (toleration, tolerated) in [
            (json!({"operator": "Exists"}), true),
            (json!({"key": "a", "operator": "Exists"}), true),
            (json!({"key": "a", "value": "b"}), true),
            (json!({"key": "a", "value": "c"}), false),
            (
                json!({"key": "a", "operator": "Exists", "effect": "NoExecute"}),
                false,
            ),
            (json!({"key": "b", "operator": "Exists"}), false),
        ] {
            assert_eq!(
                taint
                    .toleration_for(std::slice::from_ref(&toleration))
                    .is_some(),
                tolerated,
                "{toleration}"
            );
        }
    }
}
