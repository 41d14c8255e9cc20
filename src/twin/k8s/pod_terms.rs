//! Which pods terms of pod affinity and anti-affinity mean (K8S-SCHED-3).

use std::sync::Arc;

use super::affinity_term::AffinityTerm;
use super::cluster::SimCluster;
use super::json::text_map_at;
use super::kinds::NAMESPACES;
use super::store::ObjectName;
use super::typed_views::PodView;

impl AffinityTerm {
    fn is_in_namespace(&self, cluster: &SimCluster, ns: &str) -> bool {
        self.namespaces.contains(ns)
            || self.namespaces_by_label.as_ref().is_some_and(|selector| {
                let found = cluster
                    .store
                    .find_object(NAMESPACES, &ObjectName::new("", ns));
                found.is_some_and(|n| selector.matches(&text_map_at(n, "metadata.labels")))
            })
    }

    /// Whether it means this pod.
    pub fn selects(&self, cluster: &SimCluster, pod: &PodView) -> bool {
        self.pods.matches(&pod.labels) && self.is_in_namespace(cluster, &pod.ns)
    }

    /// The pods on nodes that it means; those that are terminating count, finished ones do not.
    pub fn pods_on_nodes(&self, cluster: &SimCluster) -> Vec<Arc<PodView>> {
        let mut namespaces = self.namespaces.clone();
        if self.namespaces_by_label.is_some() {
            let all = cluster
                .store
                .objects_of(NAMESPACES, "")
                .map(|(n, _)| &n.name);
            namespaces.extend(all.filter(|n| self.is_in_namespace(cluster, n)).cloned());
        }
        let index = &cluster.store.index;
        let mut pods = Vec::new();
        for ns in &namespaces {
            pods.extend(index.selected_pods(ns, &self.pods));
        }
        pods.retain(|p| !p.node.is_empty() && !p.is_finished());
        pods
    }
}
