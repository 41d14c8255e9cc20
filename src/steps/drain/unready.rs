//! Pods that serve nothing, in a rollback: which of them go at once, what dead nodes hold on to, and what has not come
//! back. Pure.

use std::collections::BTreeSet;

use super::act::{DrainStepAct, PodRef};
use super::budget::{BudgetGate, Budgets};
use super::observation::DrainObservation;
use crate::k8s::cache::CacheSnapshot;
use crate::model::elb::short_name;
use crate::model::kube::Pod;
use crate::steps::evictable::{EvictionConsents, PodVerdict, judge_pod, keeps_node_occupied};

/// Most pods in one act, as in a wave of the drain.
const MAX_PODS_PER_ACT: usize = 50;
/// More pods than a person reads.
const MAX_PODS_NAMED: usize = 5;

/// Whether a pod has to leave a node that goes.
pub fn has_to_move(pod: &Pod) -> bool {
    !pod.is_daemon_pod() && !pod.mirror && !pod.is_finished()
}

/// Whether a pod that has to leave the group's nodes one day is Ready on one of them.
pub fn has_serving_pod(snapshot: &CacheSnapshot, group: &str) -> bool {
    let nodes = snapshot.nodes.values();
    let names = nodes
        .filter(|n| n.nodegroup_name() == Some(group))
        .map(|n| &n.name);
    names
        .map(|name| snapshot.pods.on_node(name))
        .any(|on| on.iter().any(|p| has_to_move(p) && p.ready))
}

/// What moves pods of green that are not Ready. They take nothing from anybody who is served, so no node waits for
/// another, and a budget that counts them as down already loses nothing when they are deleted: with the default
/// `unhealthyPodEvictionPolicy` it would hold them on green forever. `unready`: pods that have not been Ready for a
/// while; one that has not started is asked for no time.
pub fn move_unready(
    seen: &DrainObservation,
    unready: &BTreeSet<String>,
    dead: &BTreeSet<String>,
    consents: EvictionConsents<'_>,
) -> Option<DrainStepAct> {
    let budgets = Budgets::new(seen.snapshot.pdbs.values());
    let (mut evict, mut delete) = (Vec::new(), Vec::new());
    for node in &seen.nodes {
        let is_dead = dead.contains(&node.node.name);
        for pod in node
            .pods
            .iter()
            .filter(|p| keeps_node_occupied(p, &node.node))
        {
            // A pod that has just lost readiness may have it again in a moment. One that has not started loses nothing.
            let lasting = unready.contains(&pod.uid) || pod.phase == "Pending";
            if pod.ready || !lasting || pod.deletion_timestamp.is_some() {
                continue;
            }
            let goes = match judge_pod(pod, consents) {
                PodVerdict::Evict => true,
                // Nobody will say that a Job under a dead kubelet has ended.
                PodVerdict::WaitForJob => is_dead,
                PodVerdict::Leave(_) | PodVerdict::Block(_) => false,
            };
            if !goes || seen.paused_pods.contains(&pod.uid) {
                continue;
            }
            // The budget is asked first all the same: an eviction leaves the choice to the API server and its webhooks.
            let pod_ref = PodRef::of_pod(pod);
            match budgets.check_gate(pod) {
                BudgetGate::Free | BudgetGate::Spend(_) => evict.push(pod_ref),
                BudgetGate::Closed { .. } | BudgetGate::TwoBudgets(_) => delete.push(pod_ref),
            }
        }
    }
    // Evictions go before deletions, because they may change what budgets allow.
    if !evict.is_empty() {
        evict.truncate(MAX_PODS_PER_ACT);
        return Some(DrainStepAct::Evict { pods: evict });
    }
    delete.truncate(MAX_PODS_PER_ACT);
    (!delete.is_empty()).then(|| DrainStepAct::Delete {
        pods: delete,
        why: "they are not Ready, so their budget counts them as down already, and they come back on blue".to_owned(),
    })
}

/// Whether a pod's controller makes another only when this one is gone.
pub fn blocks_replacement(pod: &Pod) -> bool {
    pod.owner.as_ref().is_some_and(|o| o.kind == "StatefulSet")
}

/// What only the end of a dead node's instance sets free: pods whose controller waits for the old one to be gone, and
/// volumes.
pub fn find_stranded(seen: &DrainObservation, dead: &BTreeSet<String>) -> Vec<String> {
    let mut stranded = Vec::new();
    for node in seen.nodes.iter().filter(|n| dead.contains(&n.node.name)) {
        for pod in node.pods.iter().filter(|p| has_to_move(p)) {
            if blocks_replacement(pod) && pod.deletion_timestamp.is_some() {
                stranded.push(format!("pod {} on {}", pod.key, node.node.name));
            }
        }
    }
    let volumes = seen.attached.iter().filter(|(_, n)| dead.contains(n));
    stranded.extend(volumes.map(|(volume, node)| format!("volume {volume} on {node}")));
    stranded
}

/// Leaves out of a look at green what need not be waited for: volumes and targets of dead nodes, which go with their
/// instances; and targets of nodes without a pod in `local` groups, where such a node gets no request.
pub fn drop_dead_holders(seen: &mut DrainObservation, dead: &BTreeSet<String>, local: &[String]) {
    // In a group of a Local service a node without a pod gets no request, so it need not be waited for, nor be taken
    // out.
    let holds_pods: BTreeSet<String> = seen
        .nodes
        .iter()
        .filter(|n| n.pods.iter().any(|p| keeps_node_occupied(p, &n.node)))
        .map(|n| n.node.name.clone())
        .collect();
    let instances: BTreeSet<String> = seen
        .nodes
        .iter()
        .filter(|n| holds_pods.contains(&n.node.name) && !dead.contains(&n.node.name))
        .filter_map(|n| Some(n.node.instance_id()?.to_owned()))
        .collect();
    let local: BTreeSet<&str> = local.iter().map(|arn| short_name(arn)).collect();
    seen.attached.retain(|(_, node)| !dead.contains(node));
    seen.registered.retain(|(node, group)| {
        !dead.contains(node) && (holds_pods.contains(node) || !local.contains(group.as_str()))
    });
    seen.deregister.retain(|t| instances.contains(&t.instance));
}

/// Pods of the workloads that were on green which are elsewhere now and not Ready; and those of nodes that are gone, as
/// long as another waits for their end.
pub fn not_ready_text(seen: &DrainObservation, moved: &BTreeSet<String>) -> Vec<String> {
    let on_green = |pod: &Pod| {
        let node = pod.node.as_deref();
        node.is_some_and(|name| seen.nodes.iter().any(|n| n.node.name == name))
    };
    let waiting = |pod: &&Pod| {
        // Jobs are left out: one that has ended is not Ready either.
        let ours = pod
            .owner
            .as_ref()
            .is_some_and(|o| moved.contains(&o.uid) && o.kind != "Job");
        let gone = pod
            .node
            .as_ref()
            .is_some_and(|n| !seen.snapshot.nodes.contains_key(n));
        // A pod of a node that is gone still reads Ready until pod GC (K8S-NODE-1). A StatefulSet waits for its end, so
        // it is named.
        let stopping = pod.deletion_timestamp.is_some();
        ours && has_to_move(pod)
            && !on_green(pod)
            && (!pod.ready || gone)
            && (!stopping || (gone && blocks_replacement(pod)))
    };
    let pods = seen.snapshot.pods.values().map(AsRef::as_ref);
    let mut texts: Vec<String> = pods
        .filter(waiting)
        .map(|pod| {
            let why = pod.waiting.as_deref().unwrap_or(&pod.phase);
            let node = pod.node.as_deref().unwrap_or("no node");
            format!("pod {} on {node}: {why}", pod.key)
        })
        .collect();
    let more = texts.len().saturating_sub(MAX_PODS_NAMED);
    texts.truncate(MAX_PODS_NAMED);
    if more > 0 {
        texts.push(format!("{more} more"));
    }
    texts
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::consent::ConsentScope;
    use crate::model::kube::Pdb;
    use crate::steps::drain::budget::tests::pdb;
    use crate::steps::drain::fixtures::{TEST_RUN_ID, closed_node};
    use crate::steps::drain::observation::BlueNode;
    use crate::steps::evictable::tests::pod;

    /// A look at nodes `n1` and `n2` of green.
    fn seen(pods: Vec<Pod>, budgets: Vec<Arc<Pdb>>) -> DrainObservation {
        let on = |name: &str| {
            let here = pods.iter().filter(|p| p.node.as_deref() == Some(name));
            let mut node = closed_node(name, None);
            node.provider_id = Some(format!("aws:///us-east-1a/i-{name}"));
            let here: Vec<Arc<Pod>> = here.cloned().map(Arc::new).collect();
            BlueNode::new(Arc::new(node), Arc::new(here))
        };
        let mut seen = DrainObservation {
            run: TEST_RUN_ID.into(),
            group: "green".into(),
            nodes: vec![on("n1"), on("n2")],
            ..DrainObservation::default()
        };
        for pod in pods {
            Arc::make_mut(&mut seen.snapshot.pods).put_pod(Arc::new(pod));
        }
        for budget in budgets {
            Arc::make_mut(&mut seen.snapshot.pdbs).insert(budget.key.clone(), budget);
        }
        seen
    }

    const CONSENTS: EvictionConsents<'_> = EvictionConsents {
        bare_pods: &ConsentScope::NONE,
        empty_dir: &ConsentScope::NONE,
        host_path: &ConsentScope::NONE,
        wait_for_jobs: true,
        evict_jobs: &ConsentScope::NONE,
    };

    fn unready(name: &str, on: &str) -> Pod {
        let mut pod = pod(name, on);
        pod.ready = false;
        pod
    }

    fn all(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|n| format!("uid-{n}")).collect()
    }

    #[test]
    fn pods_that_serve_nothing_go_from_all_nodes_at_once_and_pods_that_serve_stay() {
        let pods = vec![unready("a", "n1"), unready("b", "n2"), pod("c", "n2")];
        let seen = seen(pods, vec![]);
        let none = BTreeSet::new();
        let Some(DrainStepAct::Evict { pods }) =
            move_unready(&seen, &all(&["a", "b"]), &none, CONSENTS)
        else {
            panic!()
        };
        let names: Vec<&str> = pods.iter().map(|p| p.key.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        // One that has just lost readiness may have it again in a moment.
        assert_eq!(move_unready(&seen, &none, &none, CONSENTS), None);
    }

    #[test]
    fn a_budget_does_not_hold_a_pod_that_it_counts_as_down_but_a_pod_that_is_starting_is_evicted() {
        let mut starting = unready("starting", "n1");
        starting.phase = "Pending".into();
        let budget = pdb("web", 0, 0, 2, 3);
        let none = BTreeSet::new();
        let with = |pods| seen(pods, vec![budget.clone()]);
        let act = move_unready(
            &with(vec![unready("a", "n1")]),
            &all(&["a"]),
            &none,
            CONSENTS,
        );
        assert!(
            matches!(&act, Some(DrainStepAct::Delete { pods, why }) if pods.len() == 1 && why.contains("not Ready")),
            "{act:?}"
        );
        let act = move_unready(&with(vec![starting]), &none, &none, CONSENTS);
        assert!(matches!(&act, Some(DrainStepAct::Evict { pods }) if pods.len() == 1));
    }

    #[test]
    fn a_job_is_waited_for_unless_its_kubelet_is_dead_and_what_nobody_consented_to_stays() {
        let mut job = unready("job", "n1");
        job.owner.as_mut().unwrap().kind = "Job".into();
        let mut bare = unready("bare", "n1");
        bare.owner = None;
        let seen = seen(vec![job, bare], vec![]);
        let pods = all(&["job", "bare"]);
        assert_eq!(move_unready(&seen, &pods, &BTreeSet::new(), CONSENTS), None);
        let dead = BTreeSet::from(["n1".to_owned()]);
        let act = move_unready(&seen, &pods, &dead, CONSENTS);
        assert!(
            matches!(&act, Some(DrainStepAct::Evict { pods }) if pods.len() == 1 && pods[0].key.name == "job"),
            "{act:?}"
        );
    }

    #[test]
    fn a_dead_node_holds_nothing_and_what_it_keeps_from_coming_back_is_named() {
        let mut set = unready("db-0", "n1");
        set.owner.as_mut().unwrap().kind = "StatefulSet".into();
        set.deletion_timestamp = Some("2026-11-21T08:00:00Z".parse().unwrap());
        let mut seen = seen(vec![set], vec![]);
        seen.attached = vec![("vol-1".into(), "n1".into()), ("vol-2".into(), "n2".into())];
        let dead = BTreeSet::from(["n1".to_owned()]);
        assert_eq!(
            find_stranded(&seen, &dead),
            ["pod shop/db-0 on n1", "volume vol-1 on n1"]
        );
        drop_dead_holders(&mut seen, &dead, &[]);
        assert_eq!(seen.attached, [("vol-2".to_owned(), "n2".to_owned())]);
    }

    #[test]
    fn an_empty_node_is_not_waited_for_in_a_group_where_it_gets_no_request() {
        let mut seen = seen(vec![pod("a", "n2")], vec![]);
        let at = |node: &str, group: &str| (node.to_owned(), group.to_owned());
        seen.registered = vec![at("n1", "local"), at("n1", "other"), at("n2", "local")];
        drop_dead_holders(&mut seen, &BTreeSet::new(), &["local".to_owned()]);
        assert_eq!(seen.registered, [at("n1", "other"), at("n2", "local")]);
    }

    #[test]
    fn what_has_come_back_and_is_not_ready_is_named_and_what_is_ready_or_of_others_is_not() {
        let mut back = unready("back", "blue-1");
        back.waiting = Some("ImagePullBackOff".into());
        let mut other = unready("other", "blue-1");
        other.owner.as_mut().unwrap().uid = "another".into();
        let mut stopping = unready("stopping", "gone-1");
        stopping.owner.as_mut().unwrap().kind = "StatefulSet".into();
        stopping.deletion_timestamp = Some("2026-11-21T08:00:00Z".parse().unwrap());
        let fine = pod("fine", "blue-1");
        let pods = vec![back, other, fine, unready("here", "n1"), stopping];
        let mut seen = seen(pods, vec![]);
        let blue = Arc::new(closed_node("blue-1", None));
        Arc::make_mut(&mut seen.snapshot.nodes).insert("blue-1".into(), blue);
        let moved = BTreeSet::from(["rs".to_owned()]);
        let texts = not_ready_text(&seen, &moved);
        let named = [
            "pod shop/back on blue-1: ImagePullBackOff",
            "pod shop/stopping on gone-1: Running",
        ];
        assert_eq!(texts, named);
    }
}
