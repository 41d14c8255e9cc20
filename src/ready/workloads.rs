//! Workloads and pods of a reading by name, and which workload a pod belongs to.

use std::collections::HashMap;

use super::Finding;
use super::codes::Code;
use crate::model::Inventory;
use crate::model::kube::{NamespacedName, Owner, Pod, Workload};
use crate::model::workload_name::WorkloadName;

/// The kind, namespace and name of an object.
type ObjectId<'a> = (&'a str, &'a str, &'a str);

/// Workloads by name.
pub struct WorkloadIndex<'a> {
    by_id: HashMap<ObjectId<'a>, &'a Workload>,
}

impl<'a> WorkloadIndex<'a> {
    /// Indexes what was read.
    pub fn new(inventory: &'a Inventory) -> Self {
        let workloads = inventory.workloads.iter();
        let by_id = workloads
            .map(|w| {
                let id = (
                    w.kind.as_str(),
                    w.key.namespace.as_str(),
                    w.key.name.as_str(),
                );
                (id, w)
            })
            .collect();
        Self { by_id }
    }

    /// The workload that makes a pod: a Deployment rather than its ReplicaSet.
    pub fn workload_of(&self, pod: &Pod) -> Option<&'a Workload> {
        let owner = pod.owner.as_ref()?;
        let direct = self.find_owner(owner, &pod.key.namespace)?;
        let above = direct.owner.as_ref();
        let above = above.and_then(|o| self.find_owner(o, &pod.key.namespace));
        Some(above.unwrap_or(direct))
    }

    /// What makes a pod from its own template: a ReplicaSet rather than its Deployment.
    pub fn maker_of(&self, pod: &Pod) -> Option<&'a Workload> {
        self.find_owner(pod.owner.as_ref()?, &pod.key.namespace)
    }

    /// The Deployment behind a pod.
    pub fn deployment_of(&self, pod: &Pod) -> Option<&'a Workload> {
        let owner = pod.owner.as_ref().filter(|o| o.kind == "ReplicaSet")?;
        let set = self.find_owner(owner, &pod.key.namespace)?;
        let top = set.owner.as_ref().filter(|o| o.kind == "Deployment")?;
        self.find_owner(top, &pod.key.namespace)
    }

    /// The name that findings and consents give to a pod's workload.
    pub fn name_of(&self, pod: &Pod) -> WorkloadName {
        let name = WorkloadName::of_pod(pod);
        if name.kind != "ReplicaSet" {
            return name;
        }
        // A ReplicaSet that is not named after its Deployment.
        let set = (
            name.kind.as_str(),
            name.key.namespace.as_str(),
            name.key.name.as_str(),
        );
        let owner = self.by_id.get(&set).and_then(|w| w.owner.as_ref());
        let above = owner.map(|o| {
            let key = NamespacedName::new(&pod.key.namespace, &o.name);
            WorkloadName::new(&o.kind, key)
        });
        above.unwrap_or(name)
    }

    fn find_owner(&self, owner: &Owner, namespace: &str) -> Option<&'a Workload> {
        let id = (owner.kind.as_str(), namespace, owner.name.as_str());
        self.by_id.get(&id).copied()
    }
}

/// Names workloads instead of their pods: what is found of several pods of one is told once.
pub fn name_workloads(inventory: &Inventory, index: &WorkloadIndex<'_>, findings: &mut [Finding]) {
    // Of a pod that hangs its own name is what a reader needs.
    let of_pod = |f: &&mut Finding| {
        f.subject.starts_with(POD_SUBJECT_PREFIX) && f.code != Code::StuckTerminating.as_str()
    };
    let mut of_pods = findings.iter_mut().filter(of_pod).peekable();
    if of_pods.peek().is_none() {
        return;
    }
    let pods = inventory.pods.iter();
    let pods: HashMap<String, &Pod> = pods.map(|p| (p.key.to_string(), p)).collect();
    // A pod without an owner keeps its own name, which a consent needs.
    for finding in of_pods {
        let key = finding
            .subject
            .strip_prefix(POD_SUBJECT_PREFIX)
            .unwrap_or_default();
        if let Some(pod) = pods.get(key).filter(|p| p.owner.is_some()) {
            finding.subject = index.name_of(pod).to_string();
        }
    }
}

/// How the subject of a finding about a pod begins.
const POD_SUBJECT_PREFIX: &str = "pod ";
