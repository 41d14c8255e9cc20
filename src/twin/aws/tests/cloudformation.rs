//! Stacks as CloudFormation shows them, and what the other tests of it begin with.

use aws_sdk_cloudformation::types::{Stack, TemplateStage};
use serde_json::Value;

use super::sdk::{Asked, asked, said, seconds};
use crate::model::snapshot::Snapshot;
use crate::twin::aws::CloudFormationStack;
use crate::twin::{Twin, scenario};

/// The stacks of the bundled cluster that eksctl made.
pub const APPS: &str = "eksctl-eksctl-nodegroup-apps";
pub const JOBS: &str = "eksctl-eksctl-nodegroup-jobs";
pub const CLUSTER_STACK: &str = "eksctl-eksctl-cluster";
/// The stack of the self-managed group of [`self_managed`].
pub const WEB: &str = "eksctl-self-managed-nodegroup-web";

/// The bundled cluster that eksctl made.
pub fn eksctl() -> Asked {
    let snapshot = scenario::find_scenario("eksctl").unwrap();
    asked(Twin::start(scenario::load_world(&snapshot, 7)), "us-east-1")
}

/// The bundled self-managed groups; those of `named` are of stacks of eksctl's: group and stack.
pub fn self_managed(named: &[(&str, &str)]) -> Asked {
    let mut snapshot = scenario::find_scenario("self-managed").unwrap();
    for (group, stack) in named {
        tag_group(&mut snapshot, group, "aws:cloudformation:stack-name", stack);
        tag_group(
            &mut snapshot,
            group,
            "aws:cloudformation:logical-id",
            "NodeGroup",
        );
    }
    asked(Twin::start(scenario::load_world(&snapshot, 7)), "us-east-1")
}

fn tag_group(snapshot: &mut Snapshot, group: &str, key: &str, value: &str) {
    let groups = snapshot
        .aws
        .get_mut("autoscaling:DescribeAutoScalingGroups");
    let mut groups = groups.unwrap().iter_mut();
    let group = groups.find(|g| g["AutoScalingGroupName"] == group).unwrap();
    let tag = serde_json::json!({"ResourceId": group["AutoScalingGroupName"], "ResourceType": "auto-scaling-group", "Key": key, "Value": value, "PropagateAtLaunch": true});
    group["Tags"].as_array_mut().unwrap().push(tag);
}

impl Asked {
    /// Changes what is there of a stack.
    pub fn change_stack(&self, name: &str, change: impl FnOnce(&mut CloudFormationStack)) {
        self.twin
            .with_world(|w| change(w.cloud.cloudformation.find_stack_mut(name).unwrap()));
    }

    pub async fn stack(&self, name: &str) -> Stack {
        let found = self
            .cloudformation
            .describe_stacks()
            .stack_name(name)
            .send();
        found.await.unwrap().stacks.unwrap().pop().unwrap()
    }

    pub async fn stack_status(&self, name: &str) -> String {
        self.stack(name)
            .await
            .stack_status
            .unwrap()
            .as_str()
            .to_owned()
    }

    /// Waits until a stack, by its id, has a status that is no `_IN_PROGRESS`; returns that.
    pub async fn settled_stack(&self, id: &str) -> String {
        for _ in 0..5000 {
            let status = self.stack_status(id).await;
            if !status.ends_with("_IN_PROGRESS") {
                return status;
            }
            seconds(1).await;
        }
        panic!("{id} never settled");
    }

    /// Logical id, physical id and status of a stack's resources.
    pub async fn resources(&self, name: &str) -> Vec<(String, String, String)> {
        let found = self
            .cloudformation
            .describe_stack_resources()
            .stack_name(name);
        let found = found.send().await.unwrap().stack_resources.unwrap();
        let shown = found.into_iter().map(|r| {
            let status = r.resource_status.unwrap().as_str().to_owned();
            (
                r.logical_resource_id.unwrap(),
                r.physical_resource_id.unwrap(),
                status,
            )
        });
        shown.collect()
    }

    pub async fn template_text(&self, name: &str) -> String {
        let found = self.cloudformation.get_template().stack_name(name);
        found.send().await.unwrap().template_body.unwrap()
    }

    pub async fn template_json(&self, name: &str) -> Value {
        serde_json::from_str(&self.template_text(name).await).unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_managed_group_of_eksctl_has_a_stack_whose_physical_ids_are_what_is_there() {
    let asked = eksctl();
    let stack = asked.stack(APPS).await;
    let group = asked
        .eks
        .describe_nodegroup()
        .cluster_name("eksctl")
        .nodegroup_name("apps");
    let group = group.send().await.unwrap().nodegroup.unwrap();
    let tags = group.tags.unwrap();
    assert_eq!(
        stack.stack_id.as_ref(),
        tags.get("aws:cloudformation:stack-id")
    );
    assert_eq!(tags["aws:cloudformation:logical-id"], "ManagedNodeGroup");
    let role = group
        .node_role
        .unwrap()
        .rsplit('/')
        .next()
        .unwrap()
        .to_owned();
    let template = group.launch_template.unwrap().id.unwrap();
    let made = |logical: &str, physical: &str| {
        (
            logical.to_owned(),
            physical.to_owned(),
            "CREATE_COMPLETE".to_owned(),
        )
    };
    assert_eq!(
        asked.resources(APPS).await,
        [
            made("LaunchTemplate", &template),
            made("ManagedNodeGroup", "eksctl/apps"),
            made("NodeInstanceRole", &role),
        ]
    );
    let template = asked.template_json(APPS).await;
    let of_group = &template["Resources"]["ManagedNodeGroup"]["Properties"];
    assert_eq!(of_group["LaunchTemplate"]["Id"]["Ref"], "LaunchTemplate");
    assert_eq!(of_group["NodeRole"]["Fn::GetAtt"][0], "NodeInstanceRole");
}

#[tokio::test(start_paused = true)]
async fn a_self_managed_group_of_eksctl_has_a_stack_with_profile_role_and_security_group() {
    let asked = self_managed(&[("web-blue", WEB)]);
    let resources = asked.resources(WEB).await;
    let physical = |logical: &str| {
        let mut all = resources.iter();
        all.find(|(l, _, _)| l == logical)
            .map(|(_, p, _)| p.as_str())
    };
    assert_eq!(physical("NodeGroup"), Some("web-blue"));
    assert_eq!(
        physical("NodeGroupLaunchTemplate"),
        Some("lt-0a1b2c3d4e5f60718")
    );
    assert_eq!(physical("NodeInstanceProfile"), Some("self-managed-nodes"));
    assert_eq!(physical("NodeInstanceRole"), Some("self-managed-node"));
    assert!(physical("SG").unwrap().starts_with("sg-"));
    assert!(physical("IngressInterClusterCP").is_some());
    let outputs = asked.stack(WEB).await.outputs.unwrap();
    let mut role = outputs
        .iter()
        .filter(|o| o.output_key() == Some("InstanceRoleARN"));
    let role = role.next().unwrap();
    assert_eq!(
        role.output_value(),
        Some("arn:aws:iam::123456789012:role/self-managed-node")
    );
    assert_eq!(
        role.export_name(),
        Some("eksctl-self-managed-nodegroup-web::InstanceRoleARN")
    );
    // The group's tags name the stack by its id too.
    let found = asked
        .asg
        .describe_auto_scaling_groups()
        .auto_scaling_group_names("web-blue");
    let found = found
        .send()
        .await
        .unwrap()
        .auto_scaling_groups
        .unwrap()
        .pop()
        .unwrap();
    let mut tags = found.tags.unwrap().into_iter();
    let id = tags.find(|t| t.key.as_deref() == Some("aws:cloudformation:stack-id"));
    assert_eq!(id.unwrap().value, asked.stack(WEB).await.stack_id);
}

#[tokio::test(start_paused = true)]
async fn a_template_comes_back_as_the_text_that_was_given() {
    let asked = eksctl();
    let yaml = "# nodes & roles\r\nResources:\r\n  A:\r\n    Type: AWS::SNS::Topic # <one>\r\n";
    asked.change_stack(JOBS, |stack| stack.template = yaml.to_owned());
    for stage in [TemplateStage::Original, TemplateStage::Processed] {
        let found = asked
            .cloudformation
            .get_template()
            .stack_name(JOBS)
            .template_stage(stage);
        let found = found.send().await.unwrap();
        assert_eq!(found.template_body.as_deref(), Some(yaml));
        assert_eq!(found.stages_available.unwrap().len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stack_that_is_not_there_is_a_validation_error_in_every_read() {
    let asked = eksctl();
    let cloudformation = &asked.cloudformation;
    let expected = (
        "ValidationError".to_owned(),
        "Stack with id none does not exist".to_owned(),
    );
    let error = cloudformation
        .describe_stacks()
        .stack_name("none")
        .send()
        .await;
    assert_eq!(said(error.unwrap_err()), expected);
    let error = cloudformation
        .describe_stack_resources()
        .stack_name("none")
        .send()
        .await;
    assert_eq!(said(error.unwrap_err()), expected);
    let error = cloudformation
        .list_stack_resources()
        .stack_name("none")
        .send()
        .await;
    assert_eq!(said(error.unwrap_err()), expected);
    let error = cloudformation
        .get_template()
        .stack_name("none")
        .send()
        .await;
    assert_eq!(said(error.unwrap_err()), expected);
    let unknown = cloudformation
        .describe_stack_events()
        .stack_name(APPS)
        .send()
        .await;
    assert_eq!(said(unknown.unwrap_err()).0, "InvalidAction");
}

#[tokio::test(start_paused = true)]
async fn resources_and_exports_come_in_pages_that_join_to_the_whole() {
    let asked = eksctl();
    asked
        .twin
        .with_world(|w| w.cloud.cloudformation.page_size = Some(2));
    let mut pages = asked
        .cloudformation
        .list_stack_resources()
        .stack_name(APPS)
        .into_paginator()
        .send();
    let (mut sizes, mut names) = (Vec::new(), Vec::new());
    while let Some(page) = pages.next().await {
        let found = page.unwrap().stack_resource_summaries.unwrap();
        sizes.push(found.len());
        names.extend(found.into_iter().map(|r| r.logical_resource_id.unwrap()));
    }
    assert_eq!(sizes, [2, 1]);
    assert_eq!(
        names,
        ["LaunchTemplate", "ManagedNodeGroup", "NodeInstanceRole"]
    );
    let exports = asked
        .cloudformation
        .list_exports()
        .into_paginator()
        .items()
        .send();
    let exports: Result<Vec<_>, _> = exports.collect().await;
    let names: Vec<String> = exports
        .unwrap()
        .into_iter()
        .map(|e| e.name.unwrap())
        .collect();
    assert!(
        names.contains(&format!("{CLUSTER_STACK}::ClusterSecurityGroupId")),
        "{names:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn imports_are_told_by_export_and_none_is_an_error() {
    let asked = eksctl();
    let export = format!("{CLUSTER_STACK}::ClusterSecurityGroupId");
    let found = asked
        .cloudformation
        .list_imports()
        .export_name(export)
        .send();
    let mut importers = found.await.unwrap().imports.unwrap();
    importers.sort();
    assert_eq!(importers, [APPS, JOBS]);
    let error = asked
        .cloudformation
        .list_imports()
        .export_name("none")
        .send()
        .await;
    assert_eq!(
        said(error.unwrap_err()),
        (
            "ValidationError".to_owned(),
            "Export 'none' is not imported by any stack.".to_owned()
        )
    );
}

#[tokio::test(start_paused = true)]
async fn faults_happen_to_cloudformation_in_its_own_words() {
    let asked = eksctl();
    asked.fault("throttle:cloudformation:DescribeStacks:1");
    asked.fault("denied:cloudformation:DescribeStacks:1");
    asked.fault("drop-after:cloudformation:DeleteStack:1");
    let describe = || {
        asked
            .cloudformation
            .describe_stacks()
            .stack_name(APPS)
            .send()
    };
    assert_eq!(said(describe().await.unwrap_err()).0, "Throttling");
    assert_eq!(said(describe().await.unwrap_err()).0, "AccessDenied");
    assert!(describe().await.is_ok());
    let lost = asked
        .cloudformation
        .delete_stack()
        .stack_name(APPS)
        .send()
        .await;
    assert!(lost.is_err());
    assert_eq!(asked.stack_status(APPS).await, "DELETE_IN_PROGRESS");
}
