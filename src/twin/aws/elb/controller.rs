//! A load balancer controller, as far as others see it: its rules come back, its target groups follow the nodes (LBC-1 to
//! LBC-4). The cloud provider's service controller is another such: it fills what it made for a Service (LBC-7, CCM-1).

use std::time::Duration;

use super::{Due, after, forwards, targets};
use crate::twin::aws::kube;
use crate::twin::aws::state::TargetState;
use crate::twin::world::World;

/// How often the controller hears of nodes.
const SYNC: Duration = Duration::from_secs(3);

/// Begins the syncs, where there is a controller.
pub fn start(world: &mut World) {
    if world.cloud.switches.controller.is_some() {
        after(world, SYNC, Due::Synced);
    }
}

/// Brings the targets of bound groups to the nodes that may serve.
pub fn synced(world: &mut World) {
    let Some(controller) = world.cloud.switches.controller.clone() else {
        return;
    };
    for (arn, binding) in controller.bindings {
        let gone = |(ns, name): &(String, String)| !kube::has_service(world, ns, name);
        if binding.service.as_ref().is_some_and(gone) {
            remove(world, &arn);
            continue;
        }
        let wanted = kube::balanced(world, &binding.node_selector);
        if let Some(classic) = world.cloud.elb.classics.get_mut(&arn) {
            classic.registered = wanted.into_iter().collect();
            continue;
        }
        let own = world.cloud.elb.groups.get(&arn).map(|g| g.port);
        let port = binding.port.map(i64::from).or(own);
        let registered: Vec<String> = world
            .cloud
            .elb
            .groups
            .get(&arn)
            .map(|g| {
                g.targets
                    .iter()
                    .filter(|(_, t)| t.state != TargetState::Draining)
                    .map(|((id, _), _)| id.clone())
                    .collect()
            })
            .unwrap_or_default();
        for id in wanted.iter().filter(|id| !registered.contains(id)) {
            targets::register(world, &arn, id, port);
        }
        for id in registered.iter().filter(|id| !wanted.contains(id)) {
            targets::deregister(world, &arn, id, None);
        }
    }
    after(world, SYNC, Due::Synced);
}

/// A Service of type LoadBalancer was deleted: the cloud provider deletes what it made for it (LBC-7).
fn remove(world: &mut World, served: &str) {
    if let Some(controller) = &mut world.cloud.switches.controller {
        controller.bindings.remove(served);
    }
    let elb = &mut world.cloud.elb;
    elb.groups.remove(served);
    elb.classics.remove(served);
    elb.tags.remove(served);
    let listeners: Vec<String> = (elb.listeners.values())
        .filter(|l| forwards(&l.actions).iter().any(|(arn, _)| arn == served))
        .map(|l| l.arn.clone())
        .collect();
    for listener in listeners {
        elb.listeners.remove(&listener);
        elb.tags.remove(&listener);
    }
}

/// Somebody wrote to a rule; the controller hears of it within half a minute when the rule is its own.
pub fn edited(world: &mut World, rule: &str) {
    let owned = world
        .cloud
        .switches
        .controller
        .as_ref()
        .is_some_and(|c| c.rules.contains_key(rule));
    if owned {
        let wait = world.between(Duration::from_secs(10), Duration::from_secs(30));
        after(
            world,
            wait,
            Due::Reverted {
                rule: rule.to_owned(),
            },
        );
    }
}

/// The controller writes its rule back.
pub fn reverted(world: &mut World, rule: &str) {
    let Some(actions) = world
        .cloud
        .switches
        .controller
        .as_ref()
        .and_then(|c| c.rules.get(rule))
        .cloned()
    else {
        return;
    };
    let mut touched = forwards(&actions);
    if let Some(rule) = world.cloud.elb.rules.get_mut(rule) {
        touched.extend(forwards(&rule.actions));
        rule.actions = actions;
    }
    let arns: Vec<String> = touched.into_iter().map(|(arn, _)| arn).collect();
    targets::recheck(world, &arns);
}
