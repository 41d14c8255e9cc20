//! A load balancer controller, as far as others see it: its rules come back, its target groups follow the nodes (LBC-1 to
//! LBC-4). The cloud provider's service controller is another such: it fills what it made for a Service (LBC-7, CCM-1).

use std::time::Duration;

use jiff::SignedDuration;

use super::{ElbEvent, forward_weights, schedule_after, targets};
use crate::twin::aws::kube;
use crate::twin::aws::state::ElbTargetState;
use crate::twin::k8s::balancer_controller::look_at_cluster;
use crate::twin::world::SimWorld;

/// How often the controller hears of the cluster.
const CONTROLLER_SYNC_INTERVAL: Duration = Duration::from_secs(3);
/// How often it writes its rules for no other reason.
const CONTROLLER_SYNC_PERIOD: SignedDuration = SignedDuration::from_hours(10);

/// Begins the syncs, where there is a controller.
pub fn start_syncs(world: &mut SimWorld) {
    if world.cloud.switches.controller.is_some() {
        schedule_after(world, CONTROLLER_SYNC_INTERVAL, ElbEvent::Synced);
    }
}

/// Writes rules back where there is a reason, and brings the targets of bound groups to the nodes that may serve.
pub fn sync_targets(world: &mut SimWorld) {
    write_rules(world);
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
        let registered: Vec<(String, i64)> = world
            .cloud
            .elb
            .groups
            .get(&arn)
            .map(|g| {
                g.targets
                    .iter()
                    .filter(|(_, t)| t.state != ElbTargetState::Draining)
                    .map(|(target, _)| target.clone())
                    .collect()
            })
            .unwrap_or_default();
        let is_registered = |id: &&String| registered.iter().any(|(there, _)| there == *id);
        for id in wanted.iter().filter(|id| !is_registered(id)) {
            targets::register_target(world, &arn, id, port);
        }
        // Targets that the binding does not want are deregistered, whoever registered them (LBC-4).
        for (id, port) in registered.iter().filter(|(id, _)| !wanted.contains(id)) {
            targets::deregister_target(world, &arn, id, Some(*port));
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

/// Writes the controller's rules back where something made it look at them: a change of an Ingress or a Service, its own
/// restart, or its sync period. It does not watch ELB, so an edit of a rule stays until then (LBC-2).
fn write_rules(world: &mut SimWorld) {
    let now = world.now();
    let controller = world.cloud.switches.controller.as_ref();
    let Some(controller) = controller.filter(|c| !c.rules.is_empty()) else {
        return;
    };
    let before = controller.seen.clone();
    let sight = look_at_cluster(world, before.as_ref().map(|(sight, _)| sight));
    let due = match &before {
        // What a snapshot shows is what the controller has written.
        None => false,
        Some((seen, written)) => {
            let period = now.duration_since(*written) >= CONTROLLER_SYNC_PERIOD;
            period && sight.is_running() || sight.causes_a_write(seen)
        }
    };
    let written = match before {
        Some((_, written)) if !due => written,
        _ => now,
    };
    let Some(controller) = world.cloud.switches.controller.as_mut() else {
        return;
    };
    controller.seen = Some((sight, written));
    if due {
        let rules: Vec<String> = controller.rules.keys().cloned().collect();
        for rule in rules {
            revert_rule(world, &rule);
        }
    }
}

/// The controller writes its rule back.
fn revert_rule(world: &mut SimWorld, rule: &str) {
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
