//! What an empty blue could still carry, for whoever watches the soak. Pure.

use crate::k8s::cache::CacheSnapshot;
use crate::model::kube::{Pod, Resources};

/// Says in one clause how many nodes `blue` still has and whether the pods of `green` would find room on them.
pub fn describe_capacity(snapshot: &CacheSnapshot, blue: &str, green: Option<&str>) -> String {
    let of = |group: &str| {
        let nodes = snapshot.nodes.values();
        let nodes = nodes.filter(move |n| n.nodegroup_name() == Some(group));
        nodes.cloned().collect::<Vec<_>>()
    };
    // Nodes that are not Ready carry nothing now.
    let all = of(blue);
    let ready: Vec<_> = all.iter().filter(|n| n.is_ready()).collect();
    let nodes = if ready.len() == all.len() {
        format!("{blue} still has {} Ready", count_text(all.len(), "node"))
    } else {
        format!("{} of {} nodes of {blue} are Ready", ready.len(), all.len())
    };
    let Some(green) = green else {
        return nodes;
    };
    // What stays on each node, whoever comes, takes its part; a node cannot lend another what it has too much of, so this
    // says when there is certainly no room, and otherwise that there is enough in sum.
    let mut room = Resources::default();
    for node in &ready {
        let taken = sum_requests(snapshot.pods.on_node(&node.name).iter().map(AsRef::as_ref));
        room.cpu_millis += (node.allocatable.cpu_millis - taken.cpu_millis).max(0);
        room.memory_bytes += (node.allocatable.memory_bytes - taken.memory_bytes).max(0);
        room.pods += (node.allocatable.pods - taken.pods).max(0);
    }
    // Pods of DaemonSets and static pods do not move to blue: each node of blue runs its own.
    let pods: Vec<_> = of(green)
        .iter()
        .flat_map(|n| {
            snapshot
                .pods
                .on_node(&n.name)
                .iter()
                .cloned()
                .collect::<Vec<_>>()
        })
        .filter(|p| !p.is_daemon_pod() && !p.mirror && !p.is_finished())
        .collect();
    // All three are compared, because the scarcest of them decides.
    let asked = sum_requests(pods.iter().map(AsRef::as_ref));
    let short: Vec<String> = [
        (asked.pods > room.pods).then(|| format!("room for {} pods", room.pods)),
        (asked.cpu_millis > room.cpu_millis)
            .then(|| format!("{} of {} CPU", cpu_text(room), cpu_text(asked))),
        (asked.memory_bytes > room.memory_bytes)
            .then(|| format!("{} of {} memory", memory_text(room), memory_text(asked))),
    ]
    .into_iter()
    .flatten()
    .collect();
    let carried = count_text(pods.len(), "pod");
    if short.is_empty() {
        format!(
            "{nodes} and could carry the {carried} of {green} ({} of {} CPU, {} of {})",
            cpu_text(asked),
            cpu_text(room),
            memory_text(asked),
            memory_text(room)
        )
    } else {
        format!(
            "{nodes} and could not carry the {carried} of {green}: it has {}; a rollback scales it up to its size before first",
            short.join(" and ")
        )
    }
}

/// What pods ask for together; finished ones take nothing.
fn sum_requests<'a>(pods: impl Iterator<Item = &'a Pod>) -> Resources {
    let mut sum = Resources::default();
    for pod in pods.filter(|p| !p.is_finished()) {
        sum.cpu_millis += pod.requests.cpu_millis;
        sum.memory_bytes += pod.requests.memory_bytes;
        sum.pods += 1;
    }
    sum
}

fn count_text(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn cpu_text(of: Resources) -> String {
    format!("{:.1}", of.cpu_millis as f64 / 1000.0)
}

fn memory_text(of: Resources) -> String {
    format!("{:.1} GiB", of.memory_bytes as f64 / f64::from(1 << 30))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::marks;
    use crate::steps::closing::tests::node;
    use crate::steps::evictable::tests::pod;

    fn snapshot(blue: usize) -> CacheSnapshot {
        let mut snapshot = CacheSnapshot::default();
        let names = (0..blue).map(|n| (format!("b{n}"), "blue"));
        for (name, group) in names.chain([("g1".to_owned(), "green")]) {
            let mut node = node(&name);
            node.labels
                .insert(marks::NODEGROUP_LABEL.into(), group.into());
            node.allocatable = Resources {
                cpu_millis: 2000,
                memory_bytes: 4 << 30,
                pods: 10,
            };
            Arc::make_mut(&mut snapshot.nodes).insert(name, Arc::new(node));
        }
        for n in 0..3 {
            let mut pod = pod(&format!("p{n}"), "g1");
            pod.requests.cpu_millis = 1000;
            Arc::make_mut(&mut snapshot.pods).put_pod(Arc::new(pod));
        }
        snapshot
    }

    #[test]
    fn an_empty_blue_says_whether_everything_could_go_back_to_it() {
        let two = describe_capacity(&snapshot(2), "blue", Some("green"));
        assert_eq!(
            two,
            "blue still has 2 nodes Ready and could carry the 3 pods of green (3.0 of 4.0 CPU, 0.0 GiB of 8.0 GiB)"
        );
        let one = describe_capacity(&snapshot(1), "blue", Some("green"));
        assert!(
            one.contains("blue still has 1 node Ready and could not carry the 3 pods of green")
                && one.contains("2.0 of 3.0 CPU")
                && one.contains("a rollback scales it up"),
            "{one}"
        );
        assert_eq!(
            describe_capacity(&snapshot(0), "blue", None),
            "blue still has 0 nodes Ready"
        );
    }
}
