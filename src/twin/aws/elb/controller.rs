//! A load balancer controller, as far as others see it: its rules come back, its target groups follow the nodes (LBC-1 to
//! LBC-4). The cloud provider's service controller is another such: it fills what it made for a Service (LBC-7, CCM-1).

use std::time::Duration;

use super::{ElbEvent, forward_weights, schedule_after, targets};
use crate::twin::aws::kube;
use crate::twin::aws::state::ElbTargetState;
use crate::twin::world::SimWorld;

/// How often the controller hears of nodes.
const CONTROLLER_SYNC_INTERVAL: Duration = Duration::from_secs(3);

/// Begins the syncs, where there is a controller.
pub fn start_syncs(world: &mut SimWorld) {
    if world.cloud.switches.controller.is_some() {
        schedule_after(world, CONTROLLER_SYNC_INTERVAL, ElbEvent::Synced);
    }
}

/// Brings the targets of bound groups to the nodes that may serve.
pub fn sync_targets(world: &mut SimWorld) {
    let Some(controller) = world.cloud.switches.controller.clone() else {
        return;
    };
    // A binding whose Service is gone takes its balancer with it (LBC-7).
    for (arn, binding) in controller.bindings {
        let gone = |(ns, name): &(String, String)| !kube::has_service(world, ns, name);
        if binding.service.as_ref().is_some_and(gone) {
            delete_service_balancer(world, &arn);
            continue;
        }
        // The nodes that may serve are read from the cluster at each round (LBC-3).
        let wanted = kube::balanced_instances(world, &binding.node_selector);
        // A classic balancer gets the list as a whole.
        if let Some(classic) = world.cloud.elb.classics.get_mut(&arn) {
            classic.registered = wanted.into_iter().collect();
            continue;
        }
        // A binding can have a port of its own, by which its targets are registered.
        let own = world.cloud.elb.groups.get(&arn).map(|g| g.port);
        let port = binding.port.map(i64::from).or(own);
        // A target that drains is no target any more: it would be registered again if its node came back.
        let registered: Vec<String> = world
            .cloud
            .elb
            .groups
            .get(&arn)
            .map(|g| {
                g.targets
                    .iter()
                    .filter(|(_, t)| t.state != ElbTargetState::Draining)
                    .map(|((id, _), _)| id.clone())
                    .collect()
            })
            .unwrap_or_default();
        for id in wanted.iter().filter(|id| !registered.contains(id)) {
            targets::register_target(world, &arn, id, port);
        }
        // Targets that the binding does not want are deregistered, whoever registered them (LBC-4).
        for id in registered.iter().filter(|id| !wanted.contains(id)) {
            targets::deregister_target(world, &arn, id, None);
        }
    }
    // The controller looks again by itself, since nodes change without any call.
    schedule_after(world, CONTROLLER_SYNC_INTERVAL, ElbEvent::Synced);
}

/// A Service of type LoadBalancer was deleted: the cloud provider deletes what it made for it (LBC-7).
fn delete_service_balancer(world: &mut SimWorld, served: &str) {
    // The binding goes first, so that the next round does not fill what is deleted here.
    if let Some(controller) = &mut world.cloud.switches.controller {
        controller.bindings.remove(served);
    }
    let elb = &mut world.cloud.elb;
    elb.groups.remove(served);
    elb.classics.remove(served);
    elb.tags.remove(served);
    // A listener that forwards to the group goes with it, since the cloud provider made both.
    let listeners: Vec<String> = (elb.listeners.values())
        .filter(|l| {
            forward_weights(&l.actions)
                .iter()
                .any(|(arn, _)| arn == served)
        })
        .map(|l| l.arn.clone())
        .collect();
    for listener in listeners {
        elb.listeners.remove(&listener);
        elb.tags.remove(&listener);
    }
}

/// Somebody wrote to a rule; the controller hears of it within half a minute when the rule is its own.
pub fn on_rule_edited(world: &mut SimWorld, rule: &str) {
    let owned = world
        .cloud
        .switches
        .controller
        .as_ref()
        .is_some_and(|c| c.rules.contains_key(rule));
    if owned {
        let wait = world.random_duration(Duration::from_secs(10), Duration::from_secs(30));
        schedule_after(
            world,
            wait,
            ElbEvent::Reverted {
                rule: rule.to_owned(),
            },
        );
    }
}

/// The controller writes its rule back.
pub fn revert_rule(world: &mut SimWorld, rule: &str) {
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
    // The groups of the actions that are replaced are touched as well: they may be unused now (ELB-2).
    let mut touched = forward_weights(&actions);
    if let Some(rule) = world.cloud.elb.rules.get_mut(rule) {
        touched.extend(forward_weights(&rule.actions));
        rule.actions = actions;
    }
    let arns: Vec<String> = touched.into_iter().map(|(arn, _)| arn).collect();
    targets::update_health_checks(world, &arns);
}
