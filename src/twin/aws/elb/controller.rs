//! A load balancer controller, as far as others see it: its rules come back, its target groups follow the nodes (LBC-1 to
//! LBC-4).

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
        let wanted = kube::balanced(world, &binding.node_selector);
        let port = i64::from(binding.port);
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
            targets::register(world, &arn, id, Some(port));
        }
        for id in registered.iter().filter(|id| !wanted.contains(id)) {
            targets::deregister(world, &arn, id, None);
        }
    }
    after(world, SYNC, Due::Synced);
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
