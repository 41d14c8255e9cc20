use aws_sdk_elasticloadbalancingv2::types::{
    Action, ActionTypeEnum, ForwardActionConfig, TargetDescription, TargetGroupAttribute,
    TargetGroupTuple,
};

use super::sdk::{Asked, expense_dev, said, seconds};

fn forward(groups: &[(&str, i32)]) -> Action {
    let tuple = |(arn, weight): &(&str, i32)| {
        TargetGroupTuple::builder()
            .target_group_arn(*arn)
            .weight(*weight)
            .build()
    };
    let config = ForwardActionConfig::builder()
        .set_target_groups(Some(groups.iter().map(tuple).collect()))
        .build();
    Action::builder()
        .r#type(ActionTypeEnum::Forward)
        .forward_config(config)
        .build()
}

async fn modify(
    asked: &Asked,
    action: Action,
) -> Result<aws_sdk_elasticloadbalancingv2::types::Rule, (String, String)> {
    let answer = asked
        .elb
        .modify_rule()
        .rule_arn(asked.rule())
        .actions(action)
        .send()
        .await;
    answer.map(|a| a.rules.unwrap().remove(0)).map_err(said)
}

async fn states(asked: &Asked, group: &str) -> Vec<(String, String)> {
    let health = asked
        .elb
        .describe_target_health()
        .target_group_arn(group)
        .send()
        .await
        .unwrap();
    let of = |t: &aws_sdk_elasticloadbalancingv2::types::TargetHealthDescription| {
        let health = t.target_health().unwrap();
        (
            health.state().unwrap().as_str().to_owned(),
            health
                .reason()
                .map(|r| r.as_str().to_owned())
                .unwrap_or_default(),
        )
    };
    health.target_health_descriptions().iter().map(of).collect()
}

fn pair(state: &str, reason: &str) -> (String, String) {
    (state.to_owned(), reason.to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_target_is_unused_until_a_rule_names_its_group_then_initial_then_healthy() {
    let asked = expense_dev();
    let (blue, green) = (
        asked.group("expense-blue-tg"),
        asked.group("expense-green-tg"),
    );
    let id = asked
        .twin
        .with_world(|w| w.cloud.instances.keys().next().unwrap().clone());
    asked
        .elb
        .register_targets()
        .target_group_arn(&green)
        .targets(TargetDescription::builder().id(&id).build())
        .send()
        .await
        .unwrap();
    seconds(300).await;
    assert_eq!(
        states(&asked, &green).await,
        [pair("unused", "Target.NotInUse")]
    );
    modify(&asked, forward(&[(&blue, 100), (&green, 0)]))
        .await
        .unwrap();
    assert_eq!(states(&asked, &green).await[0].0, "initial");
    // Ten seconds apart, two in a row.
    seconds(15).await;
    assert_eq!(
        states(&asked, &green).await,
        [pair("initial", "Elb.InitialHealthChecking")]
    );
    seconds(10).await;
    assert_eq!(states(&asked, &green).await, [pair("healthy", "")]);
    let groups = asked
        .elb
        .describe_target_groups()
        .target_group_arns(&green)
        .send()
        .await
        .unwrap();
    assert_eq!(groups.target_groups()[0].load_balancer_arns().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_deregistered_target_drains_for_the_groups_delay() {
    let asked = expense_dev();
    let blue = asked.group("expense-blue-tg");
    let attribute = TargetGroupAttribute::builder()
        .key("deregistration_delay.timeout_seconds")
        .value("30")
        .build();
    asked
        .elb
        .modify_target_group_attributes()
        .target_group_arn(&blue)
        .attributes(attribute)
        .send()
        .await
        .unwrap();
    let id = asked
        .twin
        .with_world(|w| w.cloud.instances.keys().next().unwrap().clone());
    asked
        .elb
        .deregister_targets()
        .target_group_arn(&blue)
        .targets(TargetDescription::builder().id(&id).build())
        .send()
        .await
        .unwrap();
    seconds(25).await;
    assert!(
        states(&asked, &blue)
            .await
            .contains(&pair("draining", "Target.DeregistrationInProgress"))
    );
    seconds(10).await;
    assert_eq!(states(&asked, &blue).await.len(), 2);
    let target = TargetDescription::builder().id(&id).port(30080).build();
    let one = asked
        .elb
        .describe_target_health()
        .target_group_arn(&blue)
        .targets(target)
        .send()
        .await
        .unwrap();
    assert_eq!(
        one.target_health_descriptions()[0]
            .target_health()
            .unwrap()
            .reason()
            .unwrap()
            .as_str(),
        "Target.NotRegistered"
    );
}

#[tokio::test(start_paused = true)]
async fn a_rule_with_one_target_group_also_names_it_and_with_two_does_not() {
    let asked = expense_dev();
    let (blue, green) = (
        asked.group("expense-blue-tg"),
        asked.group("expense-green-tg"),
    );
    let rule = modify(
        &asked,
        Action::builder()
            .r#type(ActionTypeEnum::Forward)
            .target_group_arn(&blue)
            .build(),
    )
    .await
    .unwrap();
    let action = &rule.actions()[0];
    assert_eq!(action.target_group_arn(), Some(blue.as_str()));
    assert_eq!(
        action.forward_config().unwrap().target_groups()[0].weight(),
        Some(1)
    );
    let rule = modify(&asked, forward(&[(&blue, 90), (&green, 10)]))
        .await
        .unwrap();
    assert_eq!(rule.actions()[0].target_group_arn(), None);
    assert_eq!(rule.conditions()[0].values(), ["/*"]);
    let read = asked
        .elb
        .describe_rules()
        .rule_arns(asked.rule())
        .send()
        .await
        .unwrap();
    assert_eq!(read.rules()[0], rule);
}

#[tokio::test(start_paused = true)]
async fn what_elb_refuses_is_refused() {
    let asked = expense_dev();
    let (blue, green) = (
        asked.group("expense-blue-tg"),
        asked.group("expense-green-tg"),
    );
    let nowhere = green.replace("green", "other");
    assert_eq!(
        modify(&asked, forward(&[(&blue, 1000), (&green, 1)]))
            .await
            .unwrap_err()
            .0,
        "ValidationError"
    );
    assert_eq!(
        modify(&asked, forward(&[(&blue, -1), (&green, 1)]))
            .await
            .unwrap_err()
            .0,
        "ValidationError"
    );
    assert_eq!(
        modify(&asked, forward(&[(&blue, 0), (&green, 0)]))
            .await
            .unwrap_err()
            .0,
        "ValidationError"
    );
    assert_eq!(
        modify(&asked, forward(&[(&nowhere, 1)]))
            .await
            .unwrap_err()
            .0,
        "TargetGroupNotFound"
    );
    let mut both = forward(&[(&blue, 1), (&green, 1)]);
    both.target_group_arn = Some(blue.clone());
    assert_eq!(modify(&asked, both).await.unwrap_err().0, "ValidationError");
    let default = asked.twin.with_world(|w| {
        w.cloud
            .elb
            .rules
            .values()
            .find(|r| r.default)
            .unwrap()
            .arn
            .clone()
    });
    let error = asked
        .elb
        .modify_rule()
        .rule_arn(default)
        .actions(forward(&[(&blue, 1)]))
        .send()
        .await
        .unwrap_err();
    assert!(
        error
            .into_service_error()
            .is_operation_not_permitted_exception()
    );
    asked.twin.with_world(|w| {
        w.cloud
            .elb
            .groups
            .get_mut(&green)
            .unwrap()
            .attributes
            .insert("stickiness.enabled".into(), "true".into())
    });
    assert_eq!(
        modify(&asked, forward(&[(&blue, 1), (&green, 1)]))
            .await
            .unwrap_err()
            .0,
        "InvalidLoadBalancerAction"
    );
}

#[tokio::test(start_paused = true)]
async fn the_default_action_is_the_listeners() {
    let asked = expense_dev();
    let blue = asked.group("expense-blue-tg");
    let listener = asked
        .twin
        .with_world(|w| w.cloud.elb.listeners.keys().next().unwrap().clone());
    let changed = asked
        .elb
        .modify_listener()
        .listener_arn(&listener)
        .default_actions(forward(&[(&blue, 5)]))
        .send()
        .await
        .unwrap();
    assert_eq!(
        changed.listeners()[0].default_actions()[0].target_group_arn(),
        Some(blue.as_str())
    );
    let rules = asked
        .elb
        .describe_rules()
        .listener_arn(&listener)
        .send()
        .await
        .unwrap();
    let last = rules.rules().last().unwrap();
    assert_eq!(
        (last.is_default(), last.priority()),
        (Some(true), Some("default"))
    );
    assert_eq!(last.actions()[0].target_group_arn(), Some(blue.as_str()));
}

#[tokio::test(start_paused = true)]
async fn a_node_without_a_serving_pod_behind_its_port_is_unhealthy() {
    let asked = expense_dev();
    let blue = asked.group("expense-blue-tg");
    seconds(60).await;
    assert_eq!(states(&asked, &blue).await, vec![pair("healthy", ""); 3]);
    asked.fault("kubelet-dies:1");
    seconds(120).await;
    let now = states(&asked, &blue).await;
    assert_eq!(
        now.iter()
            .filter(|s| **s == pair("unhealthy", "Target.Timeout"))
            .count(),
        1,
        "{now:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn requests_go_where_the_weights_send_them_and_nowhere_without_targets() {
    use crate::twin::aws::elb::test_support::{RequestOutcome, send_request};
    let asked = expense_dev();
    let (blue, green) = (
        asked.group("expense-blue-tg"),
        asked.group("expense-green-tg"),
    );
    let rule = asked.rule();
    let visits = |n: usize| -> Vec<RequestOutcome> {
        asked
            .twin
            .with_world(|w| (0..n).map(|_| send_request(w, &rule)).collect())
    };
    assert!(
        visits(50)
            .iter()
            .all(|v| *v == RequestOutcome::Answered(blue.clone()))
    );
    modify(&asked, forward(&[(&blue, 50), (&green, 50)]))
        .await
        .unwrap();
    let nowhere = visits(400)
        .iter()
        .filter(|v| **v == RequestOutcome::Nowhere)
        .count();
    assert!((150..=250).contains(&nowhere), "{nowhere}");
}
