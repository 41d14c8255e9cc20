//! What PodDisruptionBudgets allow, by the API server's own rules (kubernetes pkg/registry/core/pod/storage/eviction.go). Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use foldhash::fast::FixedState;

use crate::model::kube::{NamespacedName, Pdb, Pod};

/// Whether an eviction would be let through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BudgetGate {
    /// No budget is asked, or none has a say.
    Free,
    /// It takes one from this budget.
    Spend(NamespacedName),
    /// This budget refuses it now.
    Closed { budget: NamespacedName, why: String },
    /// Two budgets match; the API server refuses that forever.
    TwoBudgets(Vec<NamespacedName>),
}

/// Budgets, with what is left of each while a wave is put together.
pub struct Budgets {
    /// By namespace and one of the labels they ask for, so that a pod is compared with few of many; by an empty label
    /// where they ask for none.
    by_label: HashMap<[String; 3], Vec<Arc<Pdb>>, FixedState>,
    left: BTreeMap<NamespacedName, i32>,
}

impl Budgets {
    /// Reads what the budgets allow now.
    pub fn new<'a>(pdbs: impl Iterator<Item = &'a Arc<Pdb>>) -> Self {
        let mut by_label: HashMap<_, Vec<Arc<Pdb>>, FixedState> = HashMap::default();
        let mut left = BTreeMap::new();
        for pdb in pdbs {
            left.insert(pdb.key.clone(), pdb.allowed);
            // Without a selector a budget selects nothing.
            let Some(selector) = &pdb.selector else {
                continue;
            };
            let label = selector.match_labels.iter().next();
            let (key, value) = label
                .map(|(k, v)| (k.clone(), v.clone()))
                .unwrap_or_default();
            let label = [pdb.key.namespace.clone(), key, value];
            by_label.entry(label).or_default().push(pdb.clone());
        }
        Self { by_label, left }
    }

    /// The budgets that select the pod.
    pub fn budgets_of(&self, pod: &Pod) -> Vec<Arc<Pdb>> {
        let none = (String::new(), String::new());
        let labels = pod.labels.iter().chain([(&none.0, &none.1)]);
        let here = labels.filter_map(|(key, value)| {
            let label = [pod.key.namespace.clone(), key.clone(), value.clone()];
            self.by_label.get(&label)
        });
        here.flatten()
            .filter(|b| b.selector.as_ref().is_some_and(|s| s.matches(&pod.labels)))
            .cloned()
            .collect()
    }

    /// Whether the pod's eviction would be let through now.
    pub fn check_gate(&self, pod: &Pod) -> BudgetGate {
        // These are evicted without regard to a budget (K8S-EVICT-5).
        if pod.phase == "Pending" || pod.is_finished() || pod.deletion_timestamp.is_some() {
            return BudgetGate::Free;
        }
        // With two budgets every eviction is a 500, and no waiting changes that (K8S-EVICT-4).
        let budgets = self.budgets_of(pod);
        let budget = match budgets.as_slice() {
            [] => return BudgetGate::Free,
            [one] => one,
            more => return BudgetGate::TwoBudgets(more.iter().map(|b| b.key.clone()).collect()),
        };
        // A pod that serves nobody goes only if enough others are healthy, or the policy says so (K8S-EVICT-6).
        if !pod.ready {
            let always = budget.unhealthy_policy.as_deref() == Some("AlwaysAllow");
            if always
                || (budget.current_healthy >= budget.desired_healthy && budget.desired_healthy > 0)
            {
                return BudgetGate::Free;
            }
        }
        let closed = |why: String| BudgetGate::Closed {
            budget: budget.key.clone(),
            why,
        };
        // The counts are of an older spec: the API server refuses until its controller has caught up (K8S-EVICT-2).
        if budget.observed_generation < budget.generation {
            return closed(format!(
                "PDB {} is still being processed by the server",
                budget.key
            ));
        }
        if self.left.get(&budget.key).copied().unwrap_or(0) > 0 {
            return BudgetGate::Spend(budget.key.clone());
        }
        // From here on it is closed. The reason tells the reader whether waiting can help.
        if let Some(failed) = &budget.sync_failed {
            return closed(format!(
                "PDB {} allows nothing because its controller cannot compute it (SyncFailed): {failed}",
                budget.key
            ));
        }
        let unhealthy = if pod.ready {
            ""
        } else {
            ", the pod itself is not Ready and the budget's unhealthyPodEvictionPolicy is not AlwaysAllow"
        };
        // An eviction whose process died may be booked although its pod was never deleted.
        let booked = match budget.disrupted.as_slice() {
            [] => String::new(),
            names => format!(
                ", evictions are recorded for {} (disruptedPods); the API server drops such a record after 2 minutes",
                names.join(", ")
            ),
        };
        closed(format!(
            "PDB {} allows {} of {} ({} healthy, {} needed{unhealthy}{booked})",
            budget.key,
            budget.allowed,
            budget.expected,
            budget.current_healthy,
            budget.desired_healthy
        ))
    }

    /// Takes one from a budget for a pod of the wave.
    pub fn take_one(&mut self, budget: &NamespacedName) {
        if let Some(left) = self.left.get_mut(budget) {
            *left -= 1;
        }
    }

    /// Whether the pod's budget can never let it go while all its pods are healthy: one replica that must stay, or
    /// nothing may be unavailable.
    pub fn never_allows(&self, pod: &Pod) -> bool {
        matches!(self.budgets_of(pod).as_slice(), [one] if one.allowed == 0 && one.expected > 0 && one.desired_healthy >= one.expected)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::model::kube::Selector;
    use crate::steps::evictable::tests::pod;

    /// A budget over `app: web`.
    pub fn pdb(name: &str, allowed: i32, healthy: i32, needed: i32, expected: i32) -> Arc<Pdb> {
        Arc::new(Pdb {
            key: NamespacedName::new("shop", name),
            selector: Some(Selector {
                match_labels: [("app".to_owned(), "web".to_owned())].into(),
                expressions: vec![],
            }),
            min_available: None,
            max_unavailable: None,
            unhealthy_policy: None,
            allowed,
            current_healthy: healthy,
            desired_healthy: needed,
            expected,
            generation: 1,
            observed_generation: 1,
            disrupted: vec![],
            owner: None,
            sync_failed: None,
        })
    }

    #[test]
    fn a_wave_spends_what_a_budget_has() {
        let mut budgets = Budgets::new([pdb("b", 2, 4, 2, 4)].iter());
        let p = pod("a", "n");
        for _ in 0..2 {
            let BudgetGate::Spend(key) = budgets.check_gate(&p) else {
                panic!()
            };
            budgets.take_one(&key);
        }
        assert!(matches!(budgets.check_gate(&p), BudgetGate::Closed { .. }));
    }

    #[test]
    fn a_pod_that_is_not_ready_goes_only_if_the_rest_is_healthy_or_the_policy_says_so() {
        let mut p = pod("a", "n");
        p.ready = false;
        assert!(matches!(
            Budgets::new([pdb("b", 0, 0, 1, 1)].iter()).check_gate(&p),
            BudgetGate::Closed { .. }
        ));
        assert_eq!(
            Budgets::new([pdb("b", 0, 2, 2, 3)].iter()).check_gate(&p),
            BudgetGate::Free
        );
        let mut always = (*pdb("b", 0, 0, 1, 1)).clone();
        always.unhealthy_policy = Some("AlwaysAllow".into());
        assert_eq!(
            Budgets::new([Arc::new(always)].iter()).check_gate(&p),
            BudgetGate::Free
        );
    }

    #[test]
    fn a_booked_eviction_is_told_where_the_counts_alone_would_let_the_pod_go() {
        let mut booked = (*pdb("b", 0, 2, 2, 3)).clone();
        booked.disrupted = vec!["web-x".into()];
        let BudgetGate::Closed { why, .. } =
            Budgets::new([Arc::new(booked)].iter()).check_gate(&pod("p", "n"))
        else {
            panic!()
        };
        assert!(why.contains("recorded for web-x"), "{why}");
    }

    #[test]
    fn two_budgets_on_one_pod_are_named() {
        let gate = Budgets::new([pdb("a", 1, 3, 2, 3), pdb("b", 1, 3, 2, 3)].iter())
            .check_gate(&pod("p", "n"));
        assert_eq!(
            gate,
            BudgetGate::TwoBudgets(vec![
                NamespacedName::new("shop", "a"),
                NamespacedName::new("shop", "b")
            ])
        );
    }
}
