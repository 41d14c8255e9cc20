//! What makes a load balancer controller write its rules: changes of Ingresses and Services, and its own restart (LBC-2).

use super::json::text_at;
use super::kinds::{INGRESSES, KindId, SERVICES};
use crate::twin::world::SimWorld;

/// What the controller saw of the cluster when it last wrote its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalancerControllerSight {
    /// How many Ingresses and Services there are, and the newest version among them.
    objects: Vec<(usize, u64)>,
    /// The uid of the pod that leads; none where no pod of the controller is Ready.
    leader: Option<String>,
}

impl BalancerControllerSight {
    /// Whether the controller writes its rules between `before` and this: one that does not run writes none.
    pub fn causes_a_write(&self, before: &Self) -> bool {
        self != before && (self.leader.is_some() || before.leader.is_none())
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
    BalancerControllerSight {
        objects: [INGRESSES, SERVICES].into_iter().map(count).collect(),
        leader,
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
