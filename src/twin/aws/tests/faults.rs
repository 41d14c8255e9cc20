use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::sdk::{CLUSTER, expense_dev, said};
use crate::twin::{Twin, scenario};

#[tokio::test(start_paused = true)]
async fn a_refusal_has_each_services_own_words() {
    let asked = expense_dev();
    asked.fault("throttle:*:1");
    asked.fault("expired:eks:*:1");
    asked.fault("denied:elb:DescribeRules:1");
    asked.fault("expired:ec2:*:1");
    asked.fault("fail:asg:*:1");
    asked.fault("throttle:ec2:*:1");
    asked.fault("throttle:ssm:*:1");
    let describe = || asked.eks.describe_cluster().name(CLUSTER).send();
    assert_eq!(said(describe().await.unwrap_err()).0, "ThrottlingException");
    assert_eq!(
        said(describe().await.unwrap_err()).0,
        "ExpiredTokenException"
    );
    assert!(describe().await.is_ok());
    assert_eq!(
        said(
            asked
                .elb
                .describe_rules()
                .rule_arns("x")
                .send()
                .await
                .unwrap_err()
        )
        .0,
        "AccessDenied"
    );
    assert_eq!(
        said(asked.ec2.describe_subnets().send().await.unwrap_err()).0,
        "RequestExpired"
    );
    assert_eq!(
        said(asked.ec2.describe_subnets().send().await.unwrap_err()).0,
        "RequestLimitExceeded"
    );
    assert_eq!(
        said(asked.asg.describe_tags().send().await.unwrap_err()).0,
        "InternalFailure"
    );
    assert_eq!(
        said(
            asked
                .ssm
                .get_parameter()
                .name("x")
                .send()
                .await
                .unwrap_err()
        )
        .0,
        "ThrottlingException"
    );
    asked.twin.with_world(|world| {
        assert!(
            world
                .faults
                .fired_counts()
                .iter()
                .all(|(_, fired)| *fired == 1)
        );
    });
}

#[tokio::test(start_paused = true)]
async fn an_answer_dropped_after_took_effect_and_one_dropped_before_did_not() {
    let asked = expense_dev();
    asked.fault("drop-before:eks:UpdateClusterVersion:1");
    asked.fault("drop-after:eks:UpdateClusterVersion:1");
    let update = || {
        asked
            .eks
            .update_cluster_version()
            .name(CLUSTER)
            .version("1.28")
            .client_request_token("t")
            .send()
    };
    assert!(update().await.unwrap_err().code().is_none());
    assert!(
        asked
            .eks
            .list_updates()
            .name(CLUSTER)
            .send()
            .await
            .unwrap()
            .update_ids()
            .is_empty()
    );
    assert!(update().await.unwrap_err().code().is_none());
    let made = asked
        .eks
        .list_updates()
        .name(CLUSTER)
        .send()
        .await
        .unwrap()
        .update_ids
        .unwrap();
    assert_eq!(update().await.unwrap().update.unwrap().id.unwrap(), made[0]);
}

#[tokio::test(start_paused = true)]
async fn a_delayed_answer_comes_later() {
    let asked = expense_dev();
    asked.fault("delay:eks:DescribeCluster:10s:1");
    let before = tokio::time::Instant::now();
    asked
        .eks
        .describe_cluster()
        .name(CLUSTER)
        .send()
        .await
        .unwrap();
    assert!(before.elapsed().as_secs() >= 10);
}

#[tokio::test(start_paused = true)]
async fn an_expired_key_is_told_so() {
    let asked = expense_dev();
    asked
        .twin
        .with_world(|world| world.cloud.expired_keys.insert("AKIATEST".into()));
    assert_eq!(
        said(asked.sts.get_caller_identity().send().await.unwrap_err()).0,
        "ExpiredToken"
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_signature_is_refused() {
    use http_body_util::BodyExt;
    use tower::ServiceExt;
    let twin = Twin::start(scenario::load_world(&scenario::expense_dev(), 1));
    let request = http::Request::builder()
        .uri("https://eks.us-east-1.amazonaws.com/clusters")
        .body(bytes::Bytes::new())
        .unwrap();
    let answer = twin.wire().oneshot(request).await.unwrap();
    assert_eq!(answer.status(), 403);
    assert!(
        String::from_utf8_lossy(&answer.into_body().collect().await.unwrap().to_bytes())
            .contains("Missing Authentication Token")
    );
}
