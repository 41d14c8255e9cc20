//! Pods found by what selects, owns or is mounted by them, so that no judge looks at every pod for every budget.

use std::collections::HashMap;

use crate::model::Inventory;
use crate::model::kube::{NamespacedName, Owner, Pdb, Pod};
use crate::scheduling::pod_index::PodIndex;

/// All pods of a reading, indexed.
pub struct PodSearch<'a> {
    pods: &'a [Pod],
    index: PodIndex<'a>,
    /// By the owner's uid: numbers of pods.
    by_owner: HashMap<&'a str, Vec<usize>>,
    /// By namespace and claim: numbers of pods.
    by_claim: HashMap<(&'a str, &'a str), Vec<usize>>,
}

impl<'a> PodSearch<'a> {
    /// Indexes what was read.
    pub fn new(inventory: &'a Inventory) -> Self {
        let mut search = Self {
            pods: &inventory.pods,
            index: PodIndex::default(),
            by_owner: HashMap::new(),
            by_claim: HashMap::new(),
        };
        for (number, pod) in search.pods.iter().enumerate() {
            search.index.push_pod(pod);
            if let Some(owner) = &pod.owner {
                search.by_owner.entry(&owner.uid).or_default().push(number);
            }
            for claim in &pod.claims {
                let users = search.by_claim.entry((&pod.key.namespace, claim));
                let users = users.or_default();
                // Two volumes of a pod may be of one claim.
                if users.last() != Some(&number) {
                    users.push(number);
                }
            }
        }
        search
    }

    /// The pods that a budget selects, in order.
    pub fn selected_by(&self, budget: &Pdb) -> impl Iterator<Item = &'a Pod> {
        self.numbers_selected_by(budget).map(|n| &self.pods[n])
    }

    /// The pods that a budget selects and the other pods of their owners, in order.
    pub fn with_siblings(&self, budget: &Pdb) -> Vec<&'a Pod> {
        let mut numbers: Vec<usize> = self.numbers_selected_by(budget).collect();
        let owners = numbers.iter().filter_map(|n| self.pods[*n].owner.as_ref());
        let mut owners: Vec<&str> = owners.map(|o| o.uid.as_str()).collect();
        owners.sort_unstable();
        owners.dedup();
        let of_owners = owners.into_iter().filter_map(|uid| self.by_owner.get(uid));
        numbers.extend(of_owners.flatten());
        numbers.sort_unstable();
        numbers.dedup();
        numbers.into_iter().map(|n| &self.pods[n]).collect()
    }

    /// The pods of an owner.
    pub fn of_owner(&self, owner: &Owner) -> impl Iterator<Item = &'a Pod> {
        let numbers = self.by_owner.get(owner.uid.as_str()).into_iter().flatten();
        let pods = numbers.map(|n| &self.pods[*n]);
        pods.filter(move |p| p.owner.as_ref() == Some(owner))
    }

    /// The pods that mount a claim, in order.
    pub fn mounting_claim<'s>(
        &'s self,
        claim: &'s NamespacedName,
    ) -> impl Iterator<Item = &'a Pod> {
        let key = (claim.namespace.as_str(), claim.name.as_str());
        let numbers = self.by_claim.get(&key).into_iter().flatten();
        numbers.map(|n| &self.pods[*n])
    }

    fn numbers_selected_by(&self, budget: &Pdb) -> impl Iterator<Item = usize> {
        let selector = budget.selector.as_ref();
        let candidates = selector.map(|s| self.index.candidate_slots(&budget.key.namespace, s));
        let candidates = candidates.unwrap_or_default().iter().copied();
        candidates.filter(move |n| selector.is_some_and(|s| s.matches(&self.pods[*n].labels)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::kube::Selector;
    use crate::route::fixture::expense_dev;
    use crate::steps::drain::budget::tests::pdb;

    #[test]
    fn what_is_found_by_index_is_what_a_search_through_all_pods_finds() {
        let inventory = expense_dev();
        let search = PodSearch::new(&inventory);
        let mut budgets = inventory.pdbs.clone();
        let mut of_all = (*pdb("all", 0, 1, 1, 1)).clone();
        of_all.key.namespace = inventory.pods[0].key.namespace.clone();
        of_all.selector = Some(Selector::default());
        budgets.push(of_all);
        for budget in &budgets {
            let selects = |p: &&Pod| {
                let selector = budget.selector.as_ref();
                p.key.namespace == budget.key.namespace
                    && selector.is_some_and(|s| s.matches(&p.labels))
            };
            let all: Vec<&Pod> = inventory.pods.iter().filter(selects).collect();
            let found: Vec<&Pod> = search.selected_by(budget).collect();
            assert_eq!(found, all, "{}", budget.key);
            for owner in all.iter().filter_map(|p| p.owner.as_ref()) {
                let pods = inventory.pods.iter();
                let of_owner: Vec<&Pod> =
                    pods.filter(|p| p.owner.as_ref() == Some(owner)).collect();
                assert_eq!(search.of_owner(owner).collect::<Vec<_>>(), of_owner);
                let near = search.with_siblings(budget);
                assert!(of_owner.iter().all(|p| near.contains(p)));
            }
        }
        for claim in inventory.volumes.iter().filter_map(|v| v.claim.as_ref()) {
            let mounts =
                |p: &&Pod| p.key.namespace == claim.namespace && p.claims.contains(&claim.name);
            let all: Vec<&Pod> = inventory.pods.iter().filter(mounts).collect();
            assert_eq!(search.mounting_claim(claim).collect::<Vec<_>>(), all);
        }
    }
}
