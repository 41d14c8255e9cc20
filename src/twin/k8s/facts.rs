//! What controllers look at most, read once out of pods and nodes when they are written.

use std::collections::BTreeMap;

use serde_json::Value;

use super::json::{at, condition, flag, list, millis, number, text, texts, units};
use super::pod_requests::{Amounts, HostPort, PodRequests, host_ports, other_amounts};
use super::pod_terms::{PodTerm, avoided_pods};
use super::selector::Labels;

/// A taint or what tolerates it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    pub key: String,
    pub value: String,
    pub effect: String,
}

impl Taint {
    /// Reads a taint.
    pub fn of(value: &Value) -> Self {
        let part = |key| text(value, key).to_owned();
        Self {
            key: part("key"),
            value: part("value"),
            effect: part("effect"),
        }
    }

    /// Whether one of `tolerations` tolerates it; for how long, when not for ever.
    pub fn tolerated(&self, tolerations: &[Value]) -> Option<Option<i64>> {
        tolerations
            .iter()
            .find(|t| self.tolerated_by(t))
            .map(|t| t.get("tolerationSeconds").and_then(Value::as_i64))
    }

    fn tolerated_by(&self, toleration: &Value) -> bool {
        let (key, effect) = (text(toleration, "key"), text(toleration, "effect"));
        let exists = text(toleration, "operator") == "Exists";
        (effect.is_empty() || effect == self.effect)
            && (key == self.key || (key.is_empty() && exists))
            && (exists || text(toleration, "value") == self.value)
    }
}

/// The controller of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    pub uid: String,
}

impl Owner {
    /// The owner that controls `object`.
    pub fn of(object: &Value) -> Option<Self> {
        let owner = list(object, "metadata.ownerReferences")
            .iter()
            .find(|o| flag(o, "controller"))?;
        Some(Self::read(owner))
    }

    /// The first owner of an object that nobody controls.
    pub fn first(object: &Value) -> Option<Self> {
        list(object, "metadata.ownerReferences")
            .first()
            .map(Self::read)
    }

    fn read(owner: &Value) -> Self {
        let part = |key| text(owner, key).to_owned();
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
pub struct Pod {
    pub ns: String,
    pub name: String,
    pub uid: String,
    /// Empty until it is bound.
    pub node: String,
    pub phase: String,
    pub ready: bool,
    pub deleting: bool,
    pub owner: Option<Owner>,
    pub labels: Labels,
    pub cpu: i64,
    pub memory: i64,
    /// Requests of all other resources.
    pub others: Amounts,
    pub host_ports: Vec<HostPort>,
    /// The pods it must not be near to.
    pub avoids: Vec<PodTerm>,
    /// Whether its place depends on where other pods are: hard spreading or required pod affinity.
    pub looks_at_others: bool,
    pub ip: String,
    pub host_network: bool,
    pub priority: i64,
}

impl Pod {
    /// Reads a pod.
    pub fn of(pod: &Value) -> Self {
        let PodRequests {
            cpu,
            memory,
            others,
        } = PodRequests::of(at(pod, "spec").unwrap_or(&Value::Null));
        Self {
            ns: text(pod, "metadata.namespace").to_owned(),
            name: text(pod, "metadata.name").to_owned(),
            uid: text(pod, "metadata.uid").to_owned(),
            node: text(pod, "spec.nodeName").to_owned(),
            phase: text(pod, "status.phase").to_owned(),
            ready: condition(pod, "Ready").is_some_and(|c| text(c, "status") == "True"),
            deleting: at(pod, "metadata.deletionTimestamp").is_some(),
            owner: Owner::of(pod),
            labels: texts(pod, "metadata.labels"),
            cpu,
            memory,
            others,
            host_ports: host_ports(at(pod, "spec").unwrap_or(&Value::Null)),
            avoids: avoided_pods(pod),
            looks_at_others: looks_at_others(pod),
            ip: text(pod, "status.podIP").to_owned(),
            host_network: flag(pod, "spec.hostNetwork"),
            priority: number(pod, "spec.priority").unwrap_or(0),
        }
    }

    /// Whether it has run its course.
    pub fn finished(&self) -> bool {
        self.phase == "Succeeded" || self.phase == "Failed"
    }

    /// Whether it is there to stay: neither finished nor on its way out.
    pub fn active(&self) -> bool {
        !self.deleting && !self.finished()
    }

    /// Whether the object with `uid` controls it.
    pub fn owned_by(&self, uid: &str) -> bool {
        self.owner.as_ref().is_some_and(|o| o.uid == uid)
    }
}

fn looks_at_others(pod: &Value) -> bool {
    let affinity = "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution";
    !list(pod, affinity).is_empty()
        || list(pod, "spec.topologySpreadConstraints")
            .iter()
            .any(|c| text(c, "whenUnsatisfiable") != "ScheduleAnyway")
}

/// A node in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    pub labels: Labels,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub ready: bool,
    pub cpu: i64,
    pub memory: i64,
    pub pods: i64,
    /// What it has of all other resources.
    pub others: Amounts,
    /// The EC2 instance behind it; empty when there is none.
    pub instance: String,
    /// The version its kubelet reports.
    pub kubelet: String,
}

impl Node {
    /// Reads a node.
    pub fn of(node: &Value) -> Self {
        let room = at(node, "status.allocatable");
        Self {
            name: text(node, "metadata.name").to_owned(),
            labels: texts(node, "metadata.labels"),
            taints: list(node, "spec.taints").iter().map(Taint::of).collect(),
            unschedulable: flag(node, "spec.unschedulable"),
            ready: condition(node, "Ready").is_some_and(|c| text(c, "status") == "True"),
            cpu: millis(room.and_then(|r| r.get("cpu"))),
            memory: units(room.and_then(|r| r.get("memory"))),
            pods: units(room.and_then(|r| r.get("pods"))),
            others: other_amounts(room),
            instance: text(node, "spec.providerID")
                .rsplit('/')
                .next()
                .unwrap_or_default()
                .to_owned(),
            kubelet: text(node, "status.nodeInfo.kubeletVersion").to_owned(),
        }
    }

    /// The label `key`; empty when it has none.
    pub fn label(&self, key: &str) -> &str {
        self.labels.get(key).map(String::as_str).unwrap_or_default()
    }

    /// The node group it belongs to.
    pub fn group(&self) -> &str {
        self.label("eks.amazonaws.com/nodegroup")
    }

    /// The zone it is in.
    pub fn zone(&self) -> &str {
        self.label("topology.kubernetes.io/zone")
    }
}

/// What the pods of a node take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub cpu: i64,
    pub memory: i64,
    pub pods: i64,
    pub others: Amounts,
    /// By controller: how many pods; spreading looks at it.
    pub by_owner: BTreeMap<String, i64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_taint_is_tolerated_by_key_value_and_effect() {
        let taint = Taint {
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
                taint.tolerated(std::slice::from_ref(&toleration)).is_some(),
                tolerated,
                "{toleration}"
            );
        }
    }
}
