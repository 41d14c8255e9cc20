//! Who takes a target or a rule back, and when.

use super::sdk::{Asked, BLUE, asked, expense_dev, seconds};
use crate::twin::{Twin, scenario};

/// The ports at which an instance is registered and not draining.
fn open_ports(asked: &Asked, group: &str, instance: &str) -> Vec<i64> {
    use crate::twin::aws::state::ElbTargetState;
    asked.twin.with_world(|world| {
        let targets = &world.cloud.elb.groups[group].targets;
        targets
            .iter()
            .filter(|((id, _), t)| id == instance && t.state != ElbTargetState::Draining)
            .map(|((_, port), _)| *port)
            .collect()
    })
}

#[tokio::test(start_paused = true)]
async fn a_detached_group_leaves_targets_at_other_ports_alone() {
    let asked = expense_dev();
    let (asg, group) = (asked.asg_of(BLUE).await, asked.group("expense-blue-tg"));
    let instance = asked.twin.with_world(|world| {
        let members = &world.cloud.asgs[&asg].members;
        members.keys().next().unwrap().clone()
    });
    let target = aws_sdk_elasticloadbalancingv2::types::TargetDescription::builder()
        .id(&instance)
        .port(9999)
        .build();
    let request = asked.elb.register_targets().target_group_arn(&group);
    request.targets(target).send().await.unwrap();
    assert_eq!(open_ports(&asked, &group, &instance).len(), 2);
    let request = asked.asg.detach_load_balancer_target_groups();
    let request = request.auto_scaling_group_name(&asg);
    request.target_group_arns(&group).send().await.unwrap();
    assert_eq!(open_ports(&asked, &group, &instance), [9999]);
}

fn is_edited(asked: &Asked, rule: &str) -> bool {
    asked.twin.with_world(|world| {
        let actions = &world.cloud.elb.rules[rule].actions;
        format!("{actions:?}").contains("\"edited\"")
    })
}

/// Marks a rule of the controller's, as an edit by hand would change it.
fn edit_rule(asked: &Asked, rule: &str) {
    asked.twin.with_world(|world| {
        let actions = &mut world.cloud.elb.rules.get_mut(rule).unwrap().actions;
        actions[0]["edited"] = true.into();
    });
}

#[tokio::test(start_paused = true)]
async fn a_controllers_rule_stays_edited_until_a_service_changes_or_ten_hours_are_over() {
    let world = scenario::load_world(&scenario::find_scenario("controller-ingress").unwrap(), 7);
    let asked = asked(Twin::start(world), "us-east-1");
    let rule = asked.twin.with_world(|world| {
        let controller = world.cloud.switches.controller.as_ref().unwrap();
        controller.rules.keys().next().unwrap().clone()
    });
    seconds(10).await;
    edit_rule(&asked, &rule);
    seconds(3600).await;
    assert!(is_edited(&asked, &rule), "it does not watch ELB");
    asked
        .twin
        .with_world(crate::twin::k8s::balancer_controller::label_services);
    seconds(10).await;
    assert!(!is_edited(&asked, &rule));

    edit_rule(&asked, &rule);
    seconds(9 * 3600).await;
    assert!(is_edited(&asked, &rule));
    seconds(2 * 3600).await;
    assert!(!is_edited(&asked, &rule));
}
