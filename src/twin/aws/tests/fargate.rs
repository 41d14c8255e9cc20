use serde_json::json;

use super::sdk::{asked, said};
use crate::twin::aws::IamAuthorizer;
use crate::twin::{Twin, scenario};

#[tokio::test(start_paused = true)]
async fn a_profile_is_listed_and_described_as_the_snapshot_has_it() {
    let snapshot = scenario::find_scenario("fargate").unwrap();
    let asked = asked(Twin::start(scenario::load_world(&snapshot, 7)), "us-east-1");
    let list = asked.eks.list_fargate_profiles().cluster_name("fargate");
    let names = list.send().await.unwrap();
    assert_eq!(names.fargate_profile_names(), ["apps"]);
    let describe = |name: &str| {
        let call = asked.eks.describe_fargate_profile();
        call.cluster_name("fargate").fargate_profile_name(name)
    };
    let apps = describe("apps").send().await.unwrap();
    let apps = apps.fargate_profile.unwrap();
    assert_eq!(apps.status().unwrap().as_str(), "ACTIVE");
    assert_eq!(apps.subnets().len(), 3);
    let selector = &apps.selectors()[0];
    assert_eq!(selector.namespace(), Some("shop"));
    assert!(selector.labels().is_none_or(|l| l.is_empty()));
    assert_eq!(
        apps.pod_execution_role_arn(),
        Some("arn:aws:iam::123456789012:role/fargate-pods")
    );
    let (code, message) = said(describe("else").send().await.unwrap_err());
    assert_eq!(code, "ResourceNotFoundException");
    assert!(message.contains("else"), "{message}");
    // Each call needs its own action, on the cluster or on the profile.
    let statement = json!({"Effect": "Allow", "Action": "sts:*", "Resource": "*"});
    let policy = json!({"Version": "2012-10-17", "Statement": [statement]});
    let policy = policy.to_string().parse().unwrap();
    asked
        .twin
        .with_world(|world| world.cloud.iam = Some(IamAuthorizer::new(policy)));
    let list = asked.eks.list_fargate_profiles().cluster_name("fargate");
    let (_, message) = said(list.send().await.unwrap_err());
    let resource =
        "eks:ListFargateProfiles on resource: arn:aws:eks:us-east-1:123456789012:cluster/fargate ";
    assert!(message.contains(resource), "{message}");
    let (_, message) = said(describe("apps").send().await.unwrap_err());
    let resource = "eks:DescribeFargateProfile on resource: arn:aws:eks:us-east-1:123456789012:fargateprofile/fargate/apps/";
    assert!(message.contains(resource), "{message}");
}
