use aws_sdk_eks::types::{LaunchTemplateSpecification, NodegroupScalingConfig};
use serde_json::json;

use super::sdk::{Asked, CLUSTER, expense_dev, said};
use crate::twin::aws::IamAuthorizer;

const ME: &str = "User: arn:aws:iam::123456789012:user/twin is not authorized to perform: ";

/// The bundled cluster, with a caller who may do `actions` and nothing else.
fn allowed(actions: &[&str]) -> Asked {
    let asked = expense_dev();
    let statement = json!({"Effect": "Allow", "Action": actions, "Resource": "*"});
    let policy = json!({"Version": "2012-10-17", "Statement": [statement]});
    let policy = policy.to_string().parse().unwrap();
    asked.twin.with_world(|world| {
        assert_eq!(world.cloud.account, "123456789012");
        world.cloud.iam = Some(IamAuthorizer::new(policy));
    });
    asked
}

#[tokio::test(start_paused = true)]
async fn each_service_refuses_in_its_own_words_and_names_action_and_resource() {
    let asked = allowed(&["iam:Nothing"]);
    let (code, message) = said(
        asked
            .eks
            .describe_cluster()
            .name(CLUSTER)
            .send()
            .await
            .unwrap_err(),
    );
    assert_eq!(code, "AccessDeniedException");
    assert_eq!(
        message,
        format!(
            "{ME}eks:DescribeCluster on resource: arn:aws:eks:us-east-1:123456789012:cluster/expense-dev because no identity-based policy allows the eks:DescribeCluster action"
        )
    );
    let (code, message) = said(asked.ec2.describe_subnets().send().await.unwrap_err());
    assert_eq!(code, "UnauthorizedOperation");
    assert_eq!(
        message,
        format!(
            "You are not authorized to perform this operation. {ME}ec2:DescribeSubnets because no identity-based policy allows the ec2:DescribeSubnets action"
        )
    );
    let (code, message) = said(
        asked
            .elb
            .modify_rule()
            .rule_arn("arn:r")
            .send()
            .await
            .unwrap_err(),
    );
    assert_eq!(code, "AccessDenied");
    assert!(
        message.contains("elasticloadbalancing:ModifyRule on resource: arn:r because"),
        "{message}"
    );
    let detach = asked
        .asg
        .resume_processes()
        .auto_scaling_group_name("g")
        .send();
    let (code, message) = said(detach.await.unwrap_err());
    assert_eq!(code, "AccessDenied");
    assert!(message.contains("autoscaling:ResumeProcesses on resource: arn:aws:autoscaling:us-east-1:123456789012:autoScalingGroup:-:autoScalingGroupName/g because"), "{message}");
    let (code, message) = said(
        asked
            .ssm
            .get_parameter()
            .name("/aws/x")
            .send()
            .await
            .unwrap_err(),
    );
    assert_eq!(code, "AccessDeniedException");
    assert!(
        message.contains(
            "ssm:GetParameter on resource: arn:aws:ssm:us-east-1::parameter/aws/x because"
        ),
        "{message}"
    );
    let publish = asked
        .sns
        .publish()
        .topic_arn("arn:aws:sns:us-east-1:1:t")
        .message("m")
        .send();
    let (code, message) = said(publish.await.unwrap_err());
    assert_eq!(code, "AuthorizationError");
    assert!(
        message.contains("SNS:Publish on resource: arn:aws:sns:us-east-1:1:t because"),
        "{message}"
    );
    assert!(asked.sts.get_caller_identity().send().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_node_group_needs_more_than_its_own_action() {
    let mut actions = vec!["eks:CreateNodegroup"];
    for (next, code, says) in [
        (
            "eks:TagResource",
            "AccessDeniedException",
            "eks:TagResource on resource: arn:aws:eks:us-east-1:123456789012:nodegroup/expense-dev/green/",
        ),
        (
            "iam:PassRole",
            "AccessDeniedException",
            "iam:PassRole on resource: arn:aws:iam::123456789012:role/eks-node",
        ),
        (
            "iam:GetRole",
            "AccessDeniedException",
            "iam:GetRole on resource: arn:aws:iam::123456789012:role/eks-node",
        ),
        (
            "iam:ListAttachedRolePolicies",
            "AccessDeniedException",
            "iam:ListAttachedRolePolicies on resource: arn:aws:iam::123456789012:role/eks-node",
        ),
        (
            "ec2:RunInstances",
            "InvalidRequestException",
            "You are not authorized to launch instances with this launch template. Encoded authorization failure message: ",
        ),
        (
            "ec2:CreateTags",
            "InvalidRequestException",
            "You are not authorized to launch instances with this launch template. Encoded authorization failure message: ",
        ),
    ] {
        let refused = said(create(&allowed(&actions)).await.unwrap_err());
        assert_eq!(refused.0, code, "without {next}: {}", refused.1);
        assert!(refused.1.contains(says), "without {next}: {}", refused.1);
        actions.push(next);
    }
    // With all of them it is EKS's own turn to look at the request.
    let asked = allowed(&actions);
    let ended = create(&asked).await.map_err(said);
    assert!(
        ended
            .as_ref()
            .err()
            .is_none_or(|(code, _)| code == "InvalidParameterException"),
        "{ended:?}"
    );
    let used = asked
        .twin
        .with_world(|world| world.cloud.iam.as_ref().unwrap().used_actions().clone());
    assert_eq!(used.len(), actions.len(), "{used:?}");
}

#[tokio::test(start_paused = true)]
async fn eks_looks_for_its_linked_role_and_says_so_in_words_of_its_own() {
    let asked = expense_dev();
    let policy = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "*", "Resource": "*"},
        {"Effect": "Deny", "Action": "iam:GetRole", "Resource": "arn:aws:iam::*:role/aws-service-role/*"},
    ]});
    let policy = policy.to_string().parse().unwrap();
    asked
        .twin
        .with_world(|world| world.cloud.iam = Some(IamAuthorizer::new(policy)));
    let (code, message) = said(create(&asked).await.unwrap_err());
    assert_eq!(code, "InvalidRequestException");
    assert_eq!(
        message,
        "Failed to validate if SLR: AWSServiceRoleForAmazonEKSNodegroup already exists due to missing permissions for 'iam:GetRole'"
    );
}

async fn create(
    asked: &Asked,
) -> Result<
    aws_sdk_eks::operation::create_nodegroup::CreateNodegroupOutput,
    aws_sdk_eks::error::SdkError<aws_sdk_eks::operation::create_nodegroup::CreateNodegroupError>,
> {
    let template = LaunchTemplateSpecification::builder()
        .id("lt-1")
        .version("1")
        .build();
    let sizes = NodegroupScalingConfig::builder()
        .min_size(0)
        .max_size(1)
        .desired_size(1)
        .build();
    asked
        .eks
        .create_nodegroup()
        .cluster_name(CLUSTER)
        .nodegroup_name("green")
        .subnets("subnet-1")
        .node_role("arn:aws:iam::123456789012:role/eks-node")
        .tags("eksup.dev/run", "r")
        .launch_template(template)
        .scaling_config(sizes)
        .send()
        .await
}
