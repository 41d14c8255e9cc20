//! Calls of `eksup::aws` that the bundled upgrades make seldom or never, asked directly of a twin: with every member that
//! they can send, of what does not exist, and without permission, so that these requests and errors are in the record too.

use std::collections::BTreeMap;
use std::fmt::Debug;

use eksup::aws::AwsApi;
use eksup::aws::elb::RuleWritten;
use eksup::model::Minor;
use eksup::model::eks::{
    LaunchTemplateRef, NewNodegroup, NodeRepairConfig, NodeRepairOverride, NodegroupTaint,
    RemoteAccess, Scaling, UpdateConfig, WarmPoolConfig,
};
use eksup::model::elb::{ClassicBalancer, RegisteredTarget, TargetHealth, WeightedTargetGroup};
use eksup::twin::aws::IamAuthorizer;
use eksup::twin::scenario;
use eksup::wire::Wire;

use super::fixture::ask_twin;

const CLUSTER: &str = "expense-dev";

/// Asks over a twin's wire, with `around` put around it.
pub fn ask(around: &(dyn Fn(Wire) -> Wire + Sync)) {
    let mut snapshot = scenario::find_scenario(CLUSTER).unwrap();
    // Its traffic is the listener's default action, which is changed by another call than a rule.
    snapshot.inventory.rules.retain(|rule| !rule.is_default);
    let rule = &mut snapshot.inventory.rules[0];
    (rule.is_default, rule.priority) = (true, "default".to_owned());
    rule.conditions.clear();
    let inventory = &mut snapshot.inventory;
    inventory.classic_balancers.push(ClassicBalancer {
        name: "old".to_owned(),
        vpc: inventory.cluster.vpc_id.clone(),
        zones: vec!["us-east-1a".to_owned()],
        instance_ports: vec![30080],
        tags: BTreeMap::from([("team".to_owned(), "expense".to_owned())]),
    });
    let asg = inventory.asgs.values_mut().next().unwrap();
    asg.load_balancers.push("old".to_owned());
    ask_twin(&snapshot, around, async |aws, twin| {
        seldom(aws).await;
        of_nothing(aws).await;
        create_with_everything(aws).await;
        let nothing = r#"{"Version": "2012-10-17", "Statement": []}"#;
        twin.with_world(|world| {
            world.cloud.iam = Some(IamAuthorizer::new(nothing.parse().unwrap()));
        });
        denied(aws).await;
    });
}

fn refused<T: Debug, E>(result: Result<T, E>) {
    assert!(result.is_err(), "{result:?}", result = result.ok());
}

/// What an upgrade asks once in a while.
async fn seldom(aws: &AwsApi) {
    aws.get_caller_identity().await.unwrap();
    aws.list_clusters().await.unwrap();
    assert!(
        aws.describe_insights_refresh("absent")
            .await
            .unwrap()
            .is_none()
    );
    aws.start_insights_refresh(CLUSTER).await.unwrap();
    // A second one while the first is under way is refused by EKS.
    aws.start_insights_refresh(CLUSTER).await.unwrap();
    aws.describe_insights_refresh(CLUSTER).await.unwrap();
    // Described in a run only where it does not pass.
    let insights = aws.eks.list_insights().cluster_name(CLUSTER);
    let insights = insights.send().await.unwrap();
    let id = insights.insights()[0].id().unwrap();
    let insight = aws.eks.describe_insight().cluster_name(CLUSTER).id(id);
    insight.send().await.unwrap();
    for name in aws.list_addons(CLUSTER).await.unwrap() {
        let addon = aws.describe_addon(CLUSTER, &name).await.unwrap();
        aws.describe_addon_schema(&name, &addon.version)
            .await
            .unwrap();
    }
    let cluster = aws.describe_cluster(CLUSTER).await.unwrap();
    let vpc = cluster.vpc_id.unwrap();
    let balancers = aws.describe_load_balancers(&vpc).await.unwrap();
    for listener in aws.describe_listeners(&balancers[0].arn).await.unwrap() {
        for rule in aws.describe_rules(&listener).await.unwrap() {
            let groups = aws.describe_target_groups(&vpc).await.unwrap();
            let forward: Vec<WeightedTargetGroup> = groups
                .iter()
                .map(|group| WeightedTargetGroup {
                    arn: group.arn.clone(),
                    weight: 1,
                })
                .collect();
            let written = aws.set_forward_weights(&rule.arn, &rule.forward, &forward);
            assert_eq!(written.await.unwrap(), RuleWritten::AsAsked);
        }
    }
    let group = aws
        .describe_target_groups(&vpc)
        .await
        .unwrap()
        .remove(0)
        .arn;
    let targets = aws.describe_target_health(&group).await.unwrap();
    let targets: Vec<_> = targets.into_iter().map(at_group_port).collect();
    aws.register_targets(&group, &targets).await.unwrap();
    classic_load_balancers(aws, &vpc).await;
    let sent = aws
        .sns
        .publish()
        .topic_arn("arn:aws:sns:us-east-1:123456789012:upgrades");
    let sent = sent.subject("eksup expense-dev").message("done");
    sent.send().await.unwrap();
}

/// Everything that is asked of classic load balancers, which the bundled clusters have none of.
async fn classic_load_balancers(aws: &AwsApi, vpc: &str) {
    let balancers = aws.describe_classic_balancers(vpc).await.unwrap();
    assert_eq!(balancers[0].name, "old");
    let targets = aws.describe_registered_targets("old").await.unwrap();
    let old = ["old".to_owned()];
    let group = aws.describe_nodegroup(CLUSTER, "expense-blue");
    let asg = group.await.unwrap().asgs.remove(0);
    aws.detach_served(&asg, &old).await.unwrap();
    let targets: Vec<_> = targets.into_iter().map(at_group_port).collect();
    aws.register_targets("old", &targets).await.unwrap();
    aws.deregister_targets("old", &targets).await.unwrap();
    aws.attach_served(&asg, &old).await.unwrap();
    aws.describe_lifecycle_hooks(&asg).await.unwrap();
    refused(aws.describe_registered_targets("absent").await);
    refused(aws.register_targets("absent", &targets).await);
    refused(aws.deregister_targets("absent", &targets).await);
    refused(aws.attach_served(&asg, &["absent".to_owned()]).await);
}

/// What is not there, and what cannot be.
async fn of_nothing(aws: &AwsApi) {
    refused(aws.describe_cluster("absent").await);
    refused(aws.describe_nodegroup(CLUSTER, "absent").await);
    refused(aws.describe_addon(CLUSTER, "absent").await);
    refused(aws.delete_nodegroup(CLUSTER, "absent").await);
    refused(
        aws.update_cluster_version(CLUSTER, Minor::new(33), "a-token")
            .await,
    );
    refused(
        aws.describe_launch_template_version("lt-0123456789abcdef0", "1")
            .await,
    );
    refused(aws.describe_target_health("arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/absent/0123456789abcdef").await);
    refused(aws.suspend_processes("absent", &["AZRebalance"]).await);
    let rule = "arn:aws:elasticloadbalancing:us-east-1:123456789012:listener-rule/app/absent/0123456789abcdef/0123456789abcdef/0123456789abcdef";
    refused(aws.set_forward_weights(rule, &[], &[]).await);
}

/// A node group with every member that can be sent: without a template, and with one.
async fn create_with_everything(aws: &AwsApi) {
    let text = |text: &str| Some(text.to_owned());
    let texts = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        let pairs = pairs.iter();
        pairs
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    };
    let blue = aws
        .describe_nodegroup(CLUSTER, "expense-blue")
        .await
        .unwrap();
    let whole = NewNodegroup {
        name: "whole".to_owned(),
        scaling: Scaling {
            min: 0,
            max: 4,
            desired: 2,
        },
        subnets: blue.subnets.clone(),
        node_role: blue.node_role.clone().unwrap(),
        instance_types: vec!["m5.large".to_owned(), "m5a.large".to_owned()],
        ami_type: text("AL2023_x86_64_STANDARD"),
        capacity_type: text("SPOT"),
        disk_size: Some(40),
        remote_access: Some(RemoteAccess {
            ec2_ssh_key: text("key"),
            source_security_groups: vec!["sg-0123456789abcdef0".to_owned()],
        }),
        labels: texts(&[("team", "expense")]),
        taints: vec![NodegroupTaint {
            key: "dedicated".to_owned(),
            value: text("expense"),
            effect: "NO_SCHEDULE".to_owned(),
        }],
        tags: texts(&[("env", "dev")]),
        update_config: Some(UpdateConfig {
            max_unavailable: None,
            max_unavailable_percentage: Some(25),
            update_strategy: text("MINIMAL"),
        }),
        node_repair_config: Some(NodeRepairConfig {
            enabled: true,
            max_unhealthy_node_threshold_count: Some(2),
            max_unhealthy_node_threshold_percentage: None,
            max_parallel_nodes_repaired_count: Some(1),
            max_parallel_nodes_repaired_percentage: None,
            overrides: vec![NodeRepairOverride {
                node_monitoring_condition: text("AcceleratedInstanceNotReady"),
                node_unhealthy_reason: text("NvidiaXID13Error"),
                min_repair_wait_time_mins: Some(10),
                repair_action: text("Replace"),
            }],
        }),
        warm_pool_config: Some(WarmPoolConfig {
            enabled: true,
            min_size: Some(1),
            max_group_prepared_capacity: Some(3),
            pool_state: text("STOPPED"),
            reuse_on_scale_in: Some(true),
        }),
        launch_template: None,
        release_version: None,
    };
    aws.create_nodegroup(CLUSTER, &whole, "token-whole")
        .await
        .unwrap();
    aws.describe_nodegroup(CLUSTER, "whole").await.unwrap();
    // A name that is taken.
    refused(aws.create_nodegroup(CLUSTER, &whole, "token-again").await);
    let templated = NewNodegroup {
        name: "templated".to_owned(),
        launch_template: Some(LaunchTemplateRef {
            id: text("lt-0123456789abcdef0"),
            name: None,
            version: text("1"),
        }),
        disk_size: None,
        remote_access: None,
        ..whole
    };
    // No such template.
    refused(
        aws.create_nodegroup(CLUSTER, &templated, "token-templated")
            .await,
    );
}

/// One call of each service, by somebody who may do nothing.
async fn denied(aws: &AwsApi) {
    refused(aws.describe_cluster(CLUSTER).await);
    refused(
        aws.describe_subnets(&["subnet-0123456789abcdef0".to_owned()])
            .await,
    );
    refused(aws.describe_load_balancers("vpc-0123456789abcdef0").await);
    refused(aws.describe_asgs(&["eks-blue".to_owned()]).await);
    let topic = "arn:aws:sns:us-east-1:123456789012:upgrades";
    refused(aws.sns.publish().topic_arn(topic).message("m").send().await);
    // Whoever signs is somebody.
    aws.get_caller_identity().await.unwrap();
}

/// An instance, registered at its target group's own port.
fn at_group_port(found: TargetHealth) -> RegisteredTarget {
    RegisteredTarget {
        instance: found.id,
        port: None,
    }
}
