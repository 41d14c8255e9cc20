//! What makes a load balancer controller write its rules: changes of Ingresses and Services, and its own restart (LBC-2).

use super::json::text_at;
use super::kinds::{INGRESSES, KindId, SERVICES};
use crate::twin::world::SimWorld;

/// What the controller saw of the cluster when it last looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalancerControllerSight {
    /// How many Ingresses and Services there are, and the newest version among them.
    objects: Vec<(usize, u64)>,
    /// The uid of the pod that leads; none where no pod of the controller is Ready.
    leader: Option<String>,
    /// Whether a pod of the controller has ever led. Where none has, the controller runs outside of the cluster's nodes, as
    /// EKS's own does.
    has_led: bool,
}

impl BalancerControllerSight {
    /// Whether the controller runs; one that does not writes nothing.
    pub fn is_running(&self) -> bool {
        self.leader.is_some() || !self.has_led
    }

    /// Whether what changed since `before` makes the controller write its rules.
    pub fn causes_a_write(&self, before: &Self) -> bool {
        self.is_running() && (&self.objects, &self.leader) != (&before.objects, &before.leader)
    }
}

/// Looks at the cluster as the controller does; the pod that led `before` leads for as long as it is Ready.
pub fn look_at_cluster(
    world: &SimWorld,
    before: Option<&BalancerControllerSight>,
) -> BalancerControllerSight {
    let store = &world.kube.store;
    let count = |kind: KindId| {
        let versions = store.objects_of(kind, "").map(|(_, object)| {
            let version = text_at(object, "metadata.resourceVersion");
            version.parse::<u64>().unwrap_or_default()
        });
        versions.fold((0, 0), |(count, newest), version| {
            (count + 1, newest.max(version))
        })
    };
    let nodes = store.index.nodes.keys();
    let pods = nodes.flat_map(|node| store.pods_on(node));
    let ready: Vec<String> = pods
        .filter(|pod| {
            let name = pod.labels.get("app.kubernetes.io/name");
            pod.ready && name.is_some_and(|name| name == "aws-load-balancer-controller")
        })
        .map(|pod| pod.uid.clone())
        .collect();
    let led = before.and_then(|before| before.leader.as_ref());
    let leader = match led.filter(|uid| ready.contains(uid)) {
        Some(uid) => Some(uid.clone()),
        None => ready.into_iter().min(),
    };
    let has_led = leader.is_some() || before.is_some_and(|before| before.has_led);
    BalancerControllerSight {
        objects: [INGRESSES, SERVICES].into_iter().map(count).collect(),
        leader,
        has_led,
    }
}

/// Changes every Service a little, as somebody would by a label.
#[cfg(test)]
pub fn label_services(world: &mut SimWorld) {
    super::run_in_cluster(world, |cluster| {
        let names: Vec<_> = cluster
            .store
            .objects_of(SERVICES, "")
            .map(|(name, _)| name.clone())
            .collect();
        for at in names {
            let key = super::store::ObjectKey { res: SERVICES, at };
            cluster.change_object(&key, |service| {
                super::json::set_at(service, "metadata.labels.touched", "yes");
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_that_is_down_writes_nothing_and_one_outside_of_the_nodes_always_runs() {
        let sight = |version: u64, leader: Option<&str>, has_led| BalancerControllerSight {
            objects: vec![(1, version)],
            leader: leader.map(str::to_owned),
            has_led,
        };
        let (up, down) = (sight(1, Some("a"), true), sight(1, None, true));
        assert!(sight(2, Some("a"), true).causes_a_write(&up));
        assert!(sight(1, Some("b"), true).causes_a_write(&down), "a restart");
        // It went, and a Service changed while it was gone.
        assert!(!down.causes_a_write(&up));
        assert!(!sight(2, None, true).causes_a_write(&down));
        assert!(!down.is_running());
        assert!(sight(2, None, false).causes_a_write(&sight(1, None, false)));
    }
}
