use aws_sdk_eks::types::{
    AmiTypes, LaunchTemplateSpecification, NodegroupScalingConfig, Taint, TaintEffect,
    UpdateTaintsPayload,
};

use super::sdk::{Asked, BLUE, CLUSTER, expense_dev, said, seconds};

fn create(
    asked: &Asked,
    name: &str,
) -> aws_sdk_eks::operation::create_nodegroup::builders::CreateNodegroupFluentBuilder {
    let subnets = asked
        .twin
        .with_world(|world| world.cloud.subnets.keys().cloned().collect());
    asked
        .eks
        .create_nodegroup()
        .cluster_name(CLUSTER)
        .nodegroup_name(name)
        .set_subnets(Some(subnets))
        .node_role("arn:aws:iam::123456789012:role/eks-node")
        .ami_type(AmiTypes::Al2023X8664Standard)
        .instance_types("t3.large")
        .scaling_config(
            NodegroupScalingConfig::builder()
                .min_size(0)
                .max_size(3)
                .desired_size(3)
                .build(),
        )
}

fn template(id: Option<&str>, name: Option<&str>) -> LaunchTemplateSpecification {
    LaunchTemplateSpecification::builder()
        .set_id(id.map(str::to_owned))
        .set_name(name.map(str::to_owned))
        .version("1")
        .build()
}

/// The id of some launch template of the account.
fn some_template(asked: &Asked) -> String {
    asked
        .twin
        .with_world(|world| world.cloud.templates.keys().next().unwrap().clone())
}

#[tokio::test(start_paused = true)]
async fn a_group_is_active_after_a_few_minutes_with_a_node_in_every_zone() {
    let asked = expense_dev();
    let green = asked.create_green().await;
    let took = asked.until(&green, "ACTIVE").await;
    assert!((60..=240).contains(&took), "{took} s");
    let asg = asked.asg_of(&green).await;
    let found = asked
        .asg
        .describe_auto_scaling_groups()
        .auto_scaling_group_names(asg)
        .send()
        .await
        .unwrap()
        .auto_scaling_groups
        .unwrap();
    let mut zones: Vec<&str> = found[0]
        .instances()
        .iter()
        .map(|i| i.availability_zone().unwrap())
        .collect();
    zones.sort();
    assert_eq!(zones, ["us-east-1a", "us-east-1b", "us-east-1c"]);
    assert!(
        found[0]
            .tags()
            .iter()
            .any(|t| t.key() == Some("eks:nodegroup-name") && t.value() == Some("green"))
    );
}

#[tokio::test(start_paused = true)]
async fn creating_a_group_obeys_eks() {
    let asked = expense_dev();
    let id = some_template(&asked);
    let refused = [
        (
            create(&asked, "x").version("1.26"),
            "InvalidParameterException",
            "must match the cluster version 1.27",
        ),
        (
            create(&asked, "x").release_version("1.28.1-20250103"),
            "InvalidParameterException",
            "is not valid for kubernetes version 1.27",
        ),
        (
            create(&asked, "-x"),
            "InvalidParameterException",
            "invalid characters",
        ),
        (
            create(&asked, BLUE),
            "ResourceInUseException",
            "NodeGroup already exists with name expense-blue and cluster name expense-dev",
        ),
        (
            create(&asked, "x").launch_template(template(Some(&id), Some("n"))),
            "InvalidParameterException",
            "Either provide launch template ID or launch template name",
        ),
        (
            create(&asked, "x")
                .launch_template(template(Some(&id), None))
                .disk_size(20),
            "InvalidParameterException",
            "Disk size must be specified within the launch template.",
        ),
        (
            create(&asked, "x").ami_type(AmiTypes::Al2Arm64),
            "InvalidParameterException",
            "is not a valid instance type",
        ),
        (
            create(&asked, "x").tags("aws:x", "y"),
            "InvalidParameterException",
            "aws: prefixed",
        ),
        (
            create(&asked, "x").labels("eks.amazonaws.com/x", "y"),
            "InvalidParameterException",
            "reserved prefixes",
        ),
        (
            create(&asked, "x").scaling_config(
                NodegroupScalingConfig::builder()
                    .min_size(2)
                    .max_size(3)
                    .desired_size(1)
                    .build(),
            ),
            "InvalidParameterException",
            "Minimum capacity 2 can't be greater than desired size 1",
        ),
        (
            create(&asked, "x").node_role("arn:aws:iam::123456789012:role/eks-cluster"),
            "InvalidParameterException",
            "cluster role",
        ),
    ];
    for (request, code, message) in refused {
        let (was, said) = said(request.send().await.unwrap_err());
        assert_eq!(was, code, "{said}");
        assert!(said.contains(message), "{said}");
    }
    asked
        .eks
        .update_cluster_version()
        .name(CLUSTER)
        .version("1.28")
        .send()
        .await
        .unwrap();
    let (code, message) = said(create(&asked, "x").send().await.unwrap_err());
    assert_eq!(
        (code.as_str(), message.as_str()),
        (
            "InvalidRequestException",
            "Cluster 'expense-dev' is not in ACTIVE status"
        )
    );
}

#[tokio::test(start_paused = true)]
async fn amazon_linux_2_ends_at_1_33() {
    let asked = expense_dev();
    asked
        .twin
        .with_world(|world| world.cloud.eks.as_mut().unwrap().version = "1.33".parse().unwrap());
    let (_, message) = said(
        create(&asked, "x")
            .ami_type(AmiTypes::Al2X8664)
            .send()
            .await
            .unwrap_err(),
    );
    assert_eq!(
        message,
        "AMI Type AL2_x86_64 is only supported for kubernetes versions 1.32 or earlier"
    );
}

#[tokio::test(start_paused = true)]
async fn a_custom_ami_takes_no_version_and_is_answered_as_custom() {
    let asked = expense_dev();
    let id = some_template(&asked);
    let custom = |name: &str| {
        let request = create(&asked, name)
            .launch_template(template(Some(&id), None))
            .set_ami_type(None);
        request.set_instance_types(None)
    };
    assert!(
        said(custom("x").version("1.27").send().await.unwrap_err())
            .1
            .contains("the field version")
    );
    assert!(
        said(
            create(&asked, "x")
                .launch_template(template(Some(&id), None))
                .send()
                .await
                .unwrap_err()
        )
        .1
        .contains("instance types")
    );
    let made = custom("x").send().await.unwrap().nodegroup.unwrap();
    assert_eq!(made.ami_type.unwrap().as_str(), "CUSTOM");
    assert!(made.release_version.unwrap().starts_with("ami-"));
    assert!(made.launch_template.unwrap().name.is_some());
    assert_eq!(made.instance_types, None);
}

#[tokio::test(start_paused = true)]
async fn nodes_that_never_join_fail_the_group_after_fifteen_minutes() {
    let asked = expense_dev();
    asked.fault("node-never-joins:1");
    let green = asked.create_green().await;
    let took = asked.until(&green, "CREATE_FAILED").await;
    assert!((900..=960).contains(&took), "{took} s");
    let group = asked
        .eks
        .describe_nodegroup()
        .cluster_name(CLUSTER)
        .nodegroup_name(&green)
        .send()
        .await
        .unwrap()
        .nodegroup
        .unwrap();
    let issues = group.health.unwrap().issues.unwrap();
    assert_eq!(
        issues[0].code.as_ref().unwrap().as_str(),
        "NodeCreationFailure"
    );
    assert_eq!(issues[0].resource_ids().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_zone_without_capacity_is_passed_over_and_all_of_them_fail_the_group() {
    let asked = expense_dev();
    asked.fault("insufficient-capacity:us-east-1b");
    let green = asked.create_green().await;
    asked.until(&green, "ACTIVE").await;
    let zones = asked.twin.with_world(|w| {
        w.cloud
            .instances
            .values()
            .filter(|i| {
                i.tags
                    .get("eks:nodegroup-name")
                    .is_some_and(|g| g == "green")
            })
            .map(|i| i.zone.clone())
            .collect::<Vec<_>>()
    });
    assert!(!zones.contains(&"us-east-1b".to_owned()), "{zones:?}");
    asked.fault("insufficient-capacity:us-east-1a");
    asked.fault("insufficient-capacity:us-east-1c");
    create(&asked, "other").send().await.unwrap();
    asked.until("other", "CREATE_FAILED").await;
    let group = asked
        .eks
        .describe_nodegroup()
        .cluster_name(CLUSTER)
        .nodegroup_name("other")
        .send()
        .await
        .unwrap()
        .nodegroup
        .unwrap();
    assert_eq!(
        group.health.unwrap().issues.unwrap()[0]
            .code
            .as_ref()
            .unwrap()
            .as_str(),
        "AsgInstanceLaunchFailures"
    );
}

#[tokio::test(start_paused = true)]
async fn full_subnets_fail_the_group() {
    let asked = expense_dev();
    for zone in ["a", "b", "c"] {
        asked.fault(&format!("no-free-addresses:us-east-1{zone}"));
    }
    let green = asked.create_green().await;
    asked.until(&green, "CREATE_FAILED").await;
    let group = asked
        .eks
        .describe_nodegroup()
        .cluster_name(CLUSTER)
        .nodegroup_name(&green)
        .send()
        .await
        .unwrap()
        .nodegroup
        .unwrap();
    assert_eq!(
        group.health.unwrap().issues.unwrap()[0]
            .code
            .as_ref()
            .unwrap()
            .as_str(),
        "InsufficientFreeAddresses"
    );
}

#[tokio::test(start_paused = true)]
async fn a_taint_on_a_group_is_an_update_that_ends_and_only_one_runs_at_a_time() {
    let asked = expense_dev();
    let taint = Taint::builder()
        .key("eksup.dev/blue")
        .value("r1")
        .effect(TaintEffect::NoSchedule)
        .build();
    let change = UpdateTaintsPayload::builder()
        .add_or_update_taints(taint.clone())
        .build();
    let update = |token: &str| {
        asked
            .eks
            .update_nodegroup_config()
            .cluster_name(CLUSTER)
            .nodegroup_name(BLUE)
            .taints(change.clone())
            .client_request_token(token)
    };
    let id = update("a")
        .send()
        .await
        .unwrap()
        .update
        .unwrap()
        .id
        .unwrap();
    assert_eq!(
        said(update("b").send().await.unwrap_err()).0,
        "ResourceInUseException"
    );
    assert!(
        asked
            .eks
            .describe_update()
            .name(CLUSTER)
            .update_id(&id)
            .send()
            .await
            .is_err()
    );
    seconds(25).await;
    let done = asked
        .eks
        .describe_update()
        .name(CLUSTER)
        .update_id(&id)
        .nodegroup_name(BLUE)
        .send()
        .await
        .unwrap()
        .update
        .unwrap();
    assert_eq!(done.status.unwrap().as_str(), "Successful");
    assert_eq!(
        done.params.unwrap()[0].r#type.as_ref().unwrap().as_str(),
        "TaintsToAdd"
    );
    let group = || async {
        asked
            .eks
            .describe_nodegroup()
            .cluster_name(CLUSTER)
            .nodegroup_name(BLUE)
            .send()
            .await
            .unwrap()
            .nodegroup
            .unwrap()
    };
    assert_eq!(group().await.taints.unwrap(), std::slice::from_ref(&taint));
    let away = UpdateTaintsPayload::builder().remove_taints(taint).build();
    asked
        .eks
        .update_nodegroup_config()
        .cluster_name(CLUSTER)
        .nodegroup_name(BLUE)
        .taints(away)
        .send()
        .await
        .unwrap();
    assert_eq!(group().await.taints, None);
}

#[tokio::test(start_paused = true)]
async fn a_smaller_desired_size_ends_instances_whatever_is_on_them() {
    let asked = expense_dev();
    let sizes = NodegroupScalingConfig::builder()
        .min_size(0)
        .desired_size(1)
        .build();
    asked
        .eks
        .update_nodegroup_config()
        .cluster_name(CLUSTER)
        .nodegroup_name(BLUE)
        .scaling_config(sizes)
        .send()
        .await
        .unwrap();
    // They were behind a load balancer: its deregistration delay comes first.
    seconds(400).await;
    let alive = asked.twin.with_world(|w| {
        w.cloud
            .instances
            .values()
            .filter(|i| i.state == "running")
            .count()
    });
    assert_eq!(alive, 1);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_group_drains_its_targets_and_is_gone_with_its_instances() {
    let asked = expense_dev();
    let asg = asked.asg_of(BLUE).await;
    asked
        .eks
        .delete_nodegroup()
        .cluster_name(CLUSTER)
        .nodegroup_name(BLUE)
        .send()
        .await
        .unwrap();
    assert_eq!(
        said(
            asked
                .eks
                .delete_nodegroup()
                .cluster_name(CLUSTER)
                .nodegroup_name(BLUE)
                .send()
                .await
                .unwrap_err()
        )
        .0,
        "ResourceInUseException"
    );
    asked.until(BLUE, "DELETING").await;
    let health = asked
        .elb
        .describe_target_health()
        .target_group_arn(asked.group("expense-blue-tg"))
        .send()
        .await
        .unwrap();
    let states: Vec<_> = health
        .target_health_descriptions()
        .iter()
        .map(|t| t.target_health().unwrap().state().unwrap().as_str())
        .collect();
    assert_eq!(states, ["draining"; 3]);
    let took = asked.until(BLUE, "GONE").await;
    assert!((300..=480).contains(&took), "{took} s");
    assert_eq!(
        asked
            .asg
            .describe_auto_scaling_groups()
            .auto_scaling_group_names(asg)
            .send()
            .await
            .unwrap()
            .auto_scaling_groups()
            .len(),
        0
    );
    assert!(
        asked
            .twin
            .with_world(|w| w.cloud.instances.values().all(|i| i.state == "terminated"))
    );
    let error = asked
        .eks
        .delete_nodegroup()
        .cluster_name(CLUSTER)
        .nodegroup_name(BLUE)
        .send()
        .await
        .unwrap_err();
    assert!(error.into_service_error().is_resource_not_found_exception());
}

#[tokio::test(start_paused = true)]
async fn a_version_update_replaces_every_node() {
    let asked = expense_dev();
    let before: Vec<String> = asked
        .twin
        .with_world(|w| w.cloud.instances.keys().cloned().collect());
    let id = asked
        .eks
        .update_nodegroup_version()
        .cluster_name(CLUSTER)
        .nodegroup_name(BLUE)
        .send()
        .await
        .unwrap()
        .update
        .unwrap()
        .id
        .unwrap();
    for _ in 0..900 {
        seconds(5).await;
        let update = asked
            .eks
            .describe_update()
            .name(CLUSTER)
            .update_id(&id)
            .nodegroup_name(BLUE)
            .send()
            .await
            .unwrap()
            .update
            .unwrap();
        if update.status.unwrap().as_str() == "Successful" {
            break;
        }
    }
    // The last old node drains, and then the zones are brought back into balance, which drains one more.
    seconds(1500).await;
    let running: Vec<(String, String)> = asked.twin.with_world(|w| {
        w.cloud
            .instances
            .values()
            .filter(|i| i.state == "running")
            .map(|i| (i.zone.clone(), i.id.clone()))
            .collect()
    });
    let zones: std::collections::BTreeSet<_> = running.iter().map(|(zone, _)| zone).collect();
    assert_eq!((running.len(), zones.len()), (3, 3));
    assert!(running.iter().all(|(_, id)| !before.contains(id)));
}
