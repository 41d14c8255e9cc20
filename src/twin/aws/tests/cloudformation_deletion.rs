//! DeleteStack: what goes, what stays, what it harms, and in whose permissions.

use serde_json::json;

use super::cloudformation::{APPS, CLUSTER_STACK, WEB, eksctl, self_managed};
use super::sdk::{Asked, said, seconds};
use crate::twin::aws::{IamAuthorizer, kube};
use crate::twin::k8s::cloud_hooks;

const CLUSTER: &str = "eksctl";

impl Asked {
    pub async fn delete_stack(&self, name: &str) -> String {
        let id = self.stack(name).await.stack_id.unwrap();
        self.cloudformation
            .delete_stack()
            .stack_name(name)
            .send()
            .await
            .unwrap();
        self.settled_stack(&id).await
    }

    async fn has_group(&self, name: &str) -> bool {
        let found = self.eks.list_nodegroups().cluster_name(CLUSTER).send();
        let all = found.await.unwrap().nodegroups.unwrap();
        all.iter().any(|group| group == name)
    }

    /// Makes a managed group like blue, with blue's role and launch template, and waits for its nodes.
    async fn green_of(&self, blue: &str) {
        let blue = self
            .eks
            .describe_nodegroup()
            .cluster_name(CLUSTER)
            .nodegroup_name(blue);
        let blue = blue.send().await.unwrap().nodegroup.unwrap();
        let sizes = aws_sdk_eks::types::NodegroupScalingConfig::builder();
        let template = blue.launch_template.unwrap();
        // A request may name a template by one of its id and its name.
        let template = aws_sdk_eks::types::LaunchTemplateSpecification::builder()
            .set_id(template.id)
            .set_version(template.version)
            .build();
        self.eks
            .create_nodegroup()
            .cluster_name(CLUSTER)
            .nodegroup_name("green")
            .set_subnets(blue.subnets)
            .set_node_role(blue.node_role)
            .set_ami_type(blue.ami_type)
            .set_instance_types(blue.instance_types)
            .launch_template(template)
            .scaling_config(sizes.min_size(2).max_size(6).desired_size(2).build())
            .send()
            .await
            .unwrap();
        seconds(600).await;
    }

    fn nodes_with(&self, group: &str) -> Vec<String> {
        self.twin
            .with_world(|w| cloud_hooks::nodes_of_group(w, group))
    }

    /// Members of an Auto Scaling group whose nodes are Ready.
    fn ready_members(&self, asg: &str) -> usize {
        self.twin.with_world(|w| {
            let members: Vec<String> = w.cloud.asgs[asg].members.keys().cloned().collect();
            let ready = members.iter().filter(|id| kube::is_ready(w, id));
            ready.count()
        })
    }

    pub fn allow(&self, actions: &[&str]) {
        let statement = json!({"Effect": "Allow", "Action": actions, "Resource": "*"});
        let policy = json!({"Version": "2012-10-17", "Statement": [statement]});
        let policy = policy.to_string().parse().unwrap();
        self.twin
            .with_world(|w| w.cloud.iam = Some(IamAuthorizer::new(policy)));
    }

    pub async fn status_of(&self, stack: &str, logical: &str) -> (String, String) {
        let found = self
            .cloudformation
            .describe_stack_resources()
            .stack_name(stack);
        let found = found.logical_resource_id(logical).send().await.unwrap();
        let found = found.stack_resources.unwrap().pop().unwrap();
        (
            found.resource_status.unwrap().as_str().to_owned(),
            found.resource_status_reason.unwrap_or_default(),
        )
    }
}

#[tokio::test(start_paused = true)]
async fn a_deleted_stack_takes_its_group_and_is_found_by_its_id_only() {
    let asked = eksctl();
    let id = asked.stack(APPS).await.stack_id.unwrap();
    assert_eq!(asked.delete_stack(APPS).await, "DELETE_COMPLETE");
    assert!(!asked.has_group("apps").await);
    let stack = asked.stack(&id).await;
    assert!(stack.deletion_time().is_some());
    let error = asked
        .cloudformation
        .describe_stacks()
        .stack_name(APPS)
        .send()
        .await;
    assert_eq!(
        said(error.unwrap_err()).1,
        format!("Stack with id {APPS} does not exist")
    );
    let all = asked.cloudformation.describe_stacks().send().await.unwrap();
    assert!(
        all.stacks()
            .iter()
            .all(|s| s.stack_id() != Some(id.as_str()))
    );
    let resources = asked.resources(&id).await;
    assert!(
        resources.iter().all(|(_, _, s)| s == "DELETE_COMPLETE"),
        "{resources:?}"
    );
    // Deleting it again is no error, by name or by id.
    for key in [APPS, id.as_str()] {
        asked
            .cloudformation
            .delete_stack()
            .stack_name(key)
            .send()
            .await
            .unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_group_goes_before_the_role_and_the_template_that_it_depends_on() {
    let asked = eksctl();
    asked
        .cloudformation
        .delete_stack()
        .stack_name(APPS)
        .send()
        .await
        .unwrap();
    seconds(20).await;
    assert_eq!(
        asked.status_of(APPS, "ManagedNodeGroup").await.0,
        "DELETE_IN_PROGRESS"
    );
    assert_eq!(
        asked.status_of(APPS, "NodeInstanceRole").await.0,
        "CREATE_COMPLETE"
    );
    let group = asked
        .eks
        .describe_nodegroup()
        .cluster_name(CLUSTER)
        .nodegroup_name("apps");
    let group = group.send().await.unwrap().nodegroup.unwrap();
    assert_eq!(group.status.unwrap().as_str(), "DELETING");
}

#[tokio::test(start_paused = true)]
async fn retained_resources_stay_when_their_stack_goes() {
    let asked = eksctl();
    let id = asked.stack(APPS).await.stack_id.unwrap();
    let template = asked.retaining(APPS).await;
    let set = asked.made(&template).await;
    let set = set.change_set_id().unwrap();
    asked
        .cloudformation
        .execute_change_set()
        .change_set_name(set)
        .send()
        .await
        .unwrap();
    asked.settled_stack(APPS).await;
    let templates = asked.twin.with_world(|w| w.cloud.templates.len());
    assert_eq!(asked.delete_stack(APPS).await, "DELETE_COMPLETE");
    assert!(asked.has_group("apps").await);
    assert_eq!(
        asked.twin.with_world(|w| w.cloud.templates.len()),
        templates
    );
    let resources = asked.resources(&id).await;
    assert!(
        resources.iter().all(|(_, _, s)| s == "DELETE_SKIPPED"),
        "{resources:?}"
    );
    assert_eq!(asked.nodes_with("apps").len(), 3);
}

#[tokio::test(start_paused = true)]
async fn retention_that_a_template_in_yaml_says_is_heeded_too() {
    let asked = eksctl();
    asked.change_stack(APPS, |stack| {
        stack.template = "Resources:\n  ManagedNodeGroup:\n    Type: AWS::EKS::Nodegroup\n    DeletionPolicy: Retain\n    Properties:\n      NodeRole: !GetAtt NodeInstanceRole.Arn\n  NodeInstanceRole:\n    Type: AWS::IAM::Role\n    DeletionPolicy: Retain\n".to_owned();
    });
    asked.delete_stack(APPS).await;
    assert!(asked.has_group("apps").await);
}

#[tokio::test(start_paused = true)]
async fn a_role_that_another_managed_group_uses_fails_the_deletion_and_that_groups_new_nodes_never_join()
 {
    let asked = eksctl();
    asked.green_of("apps").await;
    assert_eq!(asked.nodes_with("green").len(), 2);
    assert_eq!(asked.delete_stack(APPS).await, "DELETE_FAILED");
    let stack = asked.stack(APPS).await;
    assert_eq!(
        stack.stack_status_reason(),
        Some("The following resource(s) failed to delete: [NodeInstanceRole]. ")
    );
    let (status, why) = asked.status_of(APPS, "NodeInstanceRole").await;
    assert_eq!(status, "DELETE_FAILED");
    assert!(
        why.starts_with("Cannot delete entity, must remove roles from instance profile first."),
        "{why}"
    );
    assert!(!asked.has_group("apps").await);
    // Green's nodes stay, and no new one joins: the role has no policies any more.
    let sizes = aws_sdk_eks::types::NodegroupScalingConfig::builder();
    let sizes = sizes.min_size(2).max_size(6).desired_size(4).build();
    let update = asked.eks.update_nodegroup_config().cluster_name(CLUSTER);
    update
        .nodegroup_name("green")
        .scaling_config(sizes)
        .send()
        .await
        .unwrap();
    seconds(900).await;
    assert_eq!(asked.nodes_with("green").len(), 2);
    // The rest of the stack goes where the request keeps the role.
    let id = asked.stack(APPS).await.stack_id.unwrap();
    let retry = asked.cloudformation.delete_stack().stack_name(APPS);
    retry
        .retain_resources("NodeInstanceRole")
        .send()
        .await
        .unwrap();
    assert_eq!(asked.settled_stack(&id).await, "DELETE_COMPLETE");
}

#[tokio::test(start_paused = true)]
async fn a_launch_template_of_the_stack_is_gone_for_every_other_group() {
    let asked = eksctl();
    asked.green_of("apps").await;
    let template = asked.resources(APPS).await[0].1.clone();
    asked.delete_stack(APPS).await;
    let found = asked
        .ec2
        .describe_launch_templates()
        .launch_template_ids(&template)
        .send()
        .await;
    assert_eq!(
        said(found.unwrap_err()).0,
        "InvalidLaunchTemplateId.NotFound"
    );
}

#[tokio::test(start_paused = true)]
async fn a_self_managed_group_loses_its_nodes_with_the_role_that_another_stack_had() {
    let asked = self_managed(&[("web-blue", WEB)]);
    assert_eq!(asked.ready_members("data-blue"), 3);
    assert_eq!(asked.delete_stack(WEB).await, "DELETE_COMPLETE");
    assert!(
        asked
            .twin
            .with_world(|w| !w.cloud.asgs.contains_key("web-blue"))
    );
    // The other group has the same instance profile and role: its kubelets fall silent, and it cannot launch.
    seconds(120).await;
    assert_eq!(asked.ready_members("data-blue"), 0);
    let grow = asked
        .asg
        .set_desired_capacity()
        .auto_scaling_group_name("data-blue");
    grow.desired_capacity(4).send().await.unwrap();
    seconds(120).await;
    let told = asked
        .asg
        .describe_scaling_activities()
        .auto_scaling_group_name("data-blue");
    let told = told.send().await.unwrap().activities.unwrap();
    let mut words = told.iter().filter_map(|a| a.status_message());
    assert!(
        words.any(|w| w.contains("Invalid IAM Instance Profile name")),
        "{told:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn instances_that_are_protected_from_scale_in_fail_the_deletion_of_their_group() {
    let stack = "eksctl-self-managed-nodegroup-data";
    let asked = self_managed(&[("data-blue", stack)]);
    assert_eq!(asked.delete_stack(stack).await, "DELETE_FAILED");
    let (status, why) = asked.status_of(stack, "NodeGroup").await;
    assert_eq!(status, "DELETE_FAILED");
    assert!(
        why.contains("{current/minSize/maxSize group size: 3/0/0}"),
        "{why}"
    );
    // What the group depends on was not touched.
    assert_eq!(
        asked.status_of(stack, "NodeGroupLaunchTemplate").await.0,
        "CREATE_COMPLETE"
    );
}

#[tokio::test(start_paused = true)]
async fn termination_protection_refuses_a_deletion_and_changes_nothing() {
    let asked = eksctl();
    asked.fault(&format!("stack-protected:{APPS}"));
    let error = asked
        .cloudformation
        .delete_stack()
        .stack_name(APPS)
        .send()
        .await;
    assert_eq!(
        said(error.unwrap_err()),
        (
            "ValidationError".to_owned(),
            format!("Stack [{APPS}] cannot be deleted while TerminationProtection is enabled")
        )
    );
    let stack = asked.stack(APPS).await;
    assert_eq!(stack.stack_status().unwrap().as_str(), "CREATE_COMPLETE");
    assert_eq!(stack.enable_termination_protection(), Some(true));
}

#[tokio::test(start_paused = true)]
async fn an_export_that_another_stack_imports_keeps_the_stack_as_it_is() {
    let asked = eksctl();
    asked.change_stack(APPS, |stack| {
        stack.add_export("Role", "apps-role", "arn:role");
    });
    asked
        .twin
        .with_world(|w| w.cloud.cloudformation.add_importer("other", "apps-role"));
    assert_eq!(asked.delete_stack(APPS).await, "CREATE_COMPLETE");
    assert_eq!(
        asked.stack(APPS).await.stack_status_reason(),
        Some("Cannot delete export apps-role as it is in use by other.")
    );
    assert!(asked.has_group("apps").await);
    // The cluster's own stack is kept by those of its groups.
    assert_eq!(asked.delete_stack(CLUSTER_STACK).await, "CREATE_COMPLETE");
}

#[tokio::test(start_paused = true)]
async fn a_deletion_needs_the_callers_permissions_for_what_it_deletes() {
    let asked = eksctl();
    asked.allow(&["cloudformation:*", "ec2:DeleteLaunchTemplate", "iam:*"]);
    assert_eq!(asked.delete_stack(APPS).await, "DELETE_FAILED");
    let (_, why) = asked.status_of(APPS, "ManagedNodeGroup").await;
    assert!(
        why.contains(
            "is not authorized to perform: eks:DescribeNodegroup on resource: arn:aws:eks:"
        ),
        "{why}"
    );
    let records = asked
        .twin
        .with_world(|w| w.cloud.iam.as_ref().unwrap().permission_records().clone());
    let of_deletion = |action: &str| {
        let mut all = records.iter();
        all.any(|(op, a, _)| op == "cloudformation:DeleteStack" && a == action)
    };
    assert!(of_deletion("cloudformation:DeleteStack") && of_deletion("eks:DescribeNodegroup"));
    // With a role of its own the stack needs no more of the caller than the call.
    asked.change_stack(APPS, |stack| {
        stack.role = Some("arn:aws:iam::123456789012:role/cfn".to_owned());
    });
    assert_eq!(asked.delete_stack(APPS).await, "DELETE_COMPLETE");
}

#[tokio::test(start_paused = true)]
async fn a_resource_that_cannot_be_deleted_fails_the_stack_with_its_name() {
    let asked = eksctl();
    asked.fault(&format!("stack-delete-fails:{APPS}/NodeInstanceRole"));
    assert_eq!(asked.delete_stack(APPS).await, "DELETE_FAILED");
    assert_eq!(
        asked.stack(APPS).await.stack_status_reason(),
        Some("The following resource(s) failed to delete: [NodeInstanceRole]. ")
    );
    // The next attempt succeeds.
    assert_eq!(asked.delete_stack(APPS).await, "DELETE_COMPLETE");
}
