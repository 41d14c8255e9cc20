use aws_sdk_eks::types::{ClusterStatus, InsightStatusValue, UpdateStatus, UpdateType};

use super::sdk::{Asked, CLUSTER, asked, expense_dev, said, seconds};

async fn upgrade(asked: &Asked, to: &str) -> String {
    let answer = asked
        .eks
        .update_cluster_version()
        .name(CLUSTER)
        .version(to)
        .client_request_token(format!("to-{to}"))
        .send()
        .await
        .unwrap();
    answer.update.unwrap().id.unwrap()
}

/// Waits for an update of the control plane, and says how many seconds it took.
async fn finished(asked: &Asked, id: &str) -> (UpdateStatus, u64) {
    for waited in 0..2000 {
        let update = asked
            .eks
            .describe_update()
            .name(CLUSTER)
            .update_id(id)
            .send()
            .await
            .unwrap()
            .update
            .unwrap();
        if update.status != Some(UpdateStatus::InProgress) {
            return (update.status.unwrap(), waited);
        }
        seconds(1).await;
    }
    panic!("update {id} never ended");
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_goes_up_one_minor_in_eight_to_twelve_minutes_and_shows_it_a_little_later()
{
    let asked = expense_dev();
    let id = upgrade(&asked, "1.28").await;
    seconds(10).await;
    let cluster = asked
        .eks
        .describe_cluster()
        .name(CLUSTER)
        .send()
        .await
        .unwrap()
        .cluster
        .unwrap();
    assert_eq!(
        (cluster.status, cluster.version.as_deref()),
        (Some(ClusterStatus::Updating), Some("1.27"))
    );
    let (status, took) = finished(&asked, &id).await;
    assert_eq!(status, UpdateStatus::Successful);
    assert!((460..=720).contains(&took), "{took} s");
    seconds(10).await;
    let cluster = asked
        .eks
        .describe_cluster()
        .name(CLUSTER)
        .send()
        .await
        .unwrap()
        .cluster
        .unwrap();
    assert_eq!(
        (cluster.status, cluster.version.as_deref()),
        (Some(ClusterStatus::Active), Some("1.28"))
    );
    let update = asked
        .eks
        .describe_update()
        .name(CLUSTER)
        .update_id(&id)
        .send()
        .await
        .unwrap()
        .update
        .unwrap();
    assert_eq!(update.r#type, Some(UpdateType::VersionUpdate));
    assert_eq!(
        asked
            .eks
            .list_updates()
            .name(CLUSTER)
            .send()
            .await
            .unwrap()
            .update_ids
            .unwrap(),
        [id]
    );
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_refuses_a_skip_the_same_version_and_a_second_update() {
    let asked = expense_dev();
    for to in ["1.29", "1.27", "1.26"] {
        let error = asked
            .eks
            .update_cluster_version()
            .name(CLUSTER)
            .version(to)
            .send()
            .await
            .unwrap_err();
        let expected = format!("Unsupported Kubernetes minor version update from 1.27 to {to}");
        assert_eq!(said(error), ("InvalidParameterException".into(), expected));
    }
    let id = upgrade(&asked, "1.28").await;
    let error = asked
        .eks
        .update_cluster_version()
        .name(CLUSTER)
        .version("1.28")
        .send()
        .await
        .unwrap_err();
    let (code, message) = said(error);
    assert_eq!(code, "ResourceInUseException");
    assert!(
        message.contains(&format!("currently has update {id} in progress")),
        "{message}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_makes_a_call_once_only_and_other_parameters_are_refused() {
    let asked = expense_dev();
    let first = upgrade(&asked, "1.28").await;
    assert_eq!(upgrade(&asked, "1.28").await, first);
    let other = asked
        .eks
        .update_cluster_version()
        .name(CLUSTER)
        .version("1.29")
        .client_request_token("to-1.28")
        .send()
        .await;
    assert_eq!(said(other.unwrap_err()).0, "InvalidParameterException");
}

#[tokio::test(start_paused = true)]
async fn a_rollback_is_possible_for_one_hop_and_seven_days() {
    let asked = expense_dev();
    let id = upgrade(&asked, "1.28").await;
    finished(&asked, &id).await;
    seconds(30).await;
    let back = asked
        .eks
        .update_cluster_version()
        .name(CLUSTER)
        .version("1.27")
        .send()
        .await
        .unwrap()
        .update
        .unwrap();
    assert_eq!(back.r#type, Some(UpdateType::VersionRollback));
    finished(&asked, back.id().unwrap()).await;
    seconds(30).await;
    let again = asked
        .eks
        .update_cluster_version()
        .name(CLUSTER)
        .version("1.28")
        .send()
        .await
        .unwrap()
        .update
        .unwrap();
    finished(&asked, again.id().unwrap()).await;
    // Eight days of health checks would take the test a while and prove nothing.
    asked.twin.with_world(|world| world.cloud.elb.rules.clear());
    seconds(8 * 24 * 3600).await;
    let late = asked
        .eks
        .update_cluster_version()
        .name(CLUSTER)
        .version("1.27")
        .send()
        .await
        .unwrap_err();
    assert_eq!(
        said(late).1,
        "Unsupported Kubernetes minor version update from 1.28 to 1.27"
    );
}

#[tokio::test(start_paused = true)]
async fn a_failed_update_leaves_the_version_and_names_the_error() {
    let asked = expense_dev();
    asked.fault("control-plane-fails:IpNotAvailable");
    let id = upgrade(&asked, "1.28").await;
    assert_eq!(finished(&asked, &id).await.0, UpdateStatus::Failed);
    seconds(30).await;
    let update = asked
        .eks
        .describe_update()
        .name(CLUSTER)
        .update_id(&id)
        .send()
        .await
        .unwrap()
        .update
        .unwrap();
    assert_eq!(
        update.errors.unwrap()[0]
            .error_code
            .as_ref()
            .unwrap()
            .as_str(),
        "IpNotAvailable"
    );
    let cluster = asked
        .eks
        .describe_cluster()
        .name(CLUSTER)
        .send()
        .await
        .unwrap()
        .cluster
        .unwrap();
    assert_eq!(
        (cluster.status, cluster.version.as_deref()),
        (Some(ClusterStatus::Active), Some("1.27"))
    );
}

#[tokio::test(start_paused = true)]
async fn an_insight_in_error_blocks_unless_forced() {
    let asked = expense_dev();
    asked.twin.with_world(|world| {
        let eks = world.cloud.eks.as_mut().unwrap();
        let insight = eks
            .insights
            .iter_mut()
            .find(|i| i.name.starts_with("Deprecated APIs"))
            .unwrap();
        insight.status = "ERROR".into();
        insight.resources = vec!["/apis/policy/v1beta1/podsecuritypolicies".into()];
    });
    let error = asked
        .eks
        .update_cluster_version()
        .name(CLUSTER)
        .version("1.28")
        .send()
        .await
        .unwrap_err();
    assert_eq!(said(error).0, "InvalidStateException");
    let found = asked
        .eks
        .list_insights()
        .cluster_name(CLUSTER)
        .send()
        .await
        .unwrap()
        .insights
        .unwrap();
    let blocking = found
        .iter()
        .find(|i| i.insight_status.as_ref().unwrap().status == Some(InsightStatusValue::Error))
        .unwrap();
    let insight = asked
        .eks
        .describe_insight()
        .cluster_name(CLUSTER)
        .id(blocking.id().unwrap())
        .send()
        .await
        .unwrap()
        .insight
        .unwrap();
    assert_eq!(
        insight.resources.unwrap()[0]
            .kubernetes_resource_uri
            .as_deref(),
        Some("/apis/policy/v1beta1/podsecuritypolicies")
    );
    assert!(
        asked
            .eks
            .update_cluster_version()
            .name(CLUSTER)
            .version("1.28")
            .force(true)
            .send()
            .await
            .is_ok()
    );
}

#[tokio::test(start_paused = true)]
async fn insights_are_refreshed_one_at_a_time_and_see_old_node_groups() {
    let asked = expense_dev();
    for (from, to) in [(27, "1.28"), (28, "1.29"), (29, "1.30")] {
        // The catalogue ends at 1.29, so nothing is known against the add-ons beyond it.
        let id = upgrade(&asked, to).await;
        assert_eq!(
            finished(&asked, &id).await.0,
            UpdateStatus::Successful,
            "{from} to {to}"
        );
        seconds(30).await;
    }
    asked
        .eks
        .start_insights_refresh()
        .cluster_name(CLUSTER)
        .send()
        .await
        .unwrap();
    assert!(
        asked
            .eks
            .start_insights_refresh()
            .cluster_name(CLUSTER)
            .send()
            .await
            .is_err()
    );
    seconds(70).await;
    let refresh = asked
        .eks
        .describe_insights_refresh()
        .cluster_name(CLUSTER)
        .send()
        .await
        .unwrap();
    assert_eq!(refresh.status.unwrap().as_str(), "COMPLETED");
    let error = asked
        .eks
        .update_cluster_version()
        .name(CLUSTER)
        .version("1.31")
        .send()
        .await
        .unwrap_err();
    assert_eq!(said(error).0, "InvalidStateException");
}

#[tokio::test(start_paused = true)]
async fn another_region_is_an_account_with_nothing_in_it() {
    let here = expense_dev();
    let there = asked(here.twin.clone(), "eu-west-1");
    assert_eq!(
        there
            .eks
            .list_clusters()
            .send()
            .await
            .unwrap()
            .clusters
            .unwrap()
            .len(),
        0
    );
    let error = there
        .eks
        .describe_cluster()
        .name(CLUSTER)
        .send()
        .await
        .unwrap_err();
    assert!(error.into_service_error().is_resource_not_found_exception());
    assert_eq!(
        here.eks
            .list_clusters()
            .send()
            .await
            .unwrap()
            .clusters
            .unwrap(),
        [CLUSTER]
    );
}

/// The status of the insight on rollback whose name begins so; none when there is none.
async fn rollback_insight(asked: &Asked, name: &str) -> Option<String> {
    let found = asked
        .eks
        .list_insights()
        .cluster_name(CLUSTER)
        .send()
        .await
        .unwrap();
    let one = found.insights().iter().find(|i| {
        i.category
            .as_ref()
            .is_some_and(|c| c.as_str() == "ROLLBACK_READINESS")
            && i.name().is_some_and(|n| n.starts_with(name))
    })?;
    Some(one.insight_status()?.status()?.as_str().to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_rollback_waits_for_add_ons_that_the_minor_below_does_not_run() {
    let asked = expense_dev();
    assert_eq!(rollback_insight(&asked, "kube-proxy").await, None);
    let id = upgrade(&asked, "1.28").await;
    finished(&asked, &id).await;
    seconds(30).await;
    for name in ["Kubelet", "EKS add-on", "kube-proxy", "Incompatible API"] {
        let status = rollback_insight(&asked, name).await;
        assert_eq!(status.as_deref(), Some("PASSING"), "{name}");
    }
    asked.twin.with_world(|world| {
        let eks = world.cloud.eks.as_mut().unwrap();
        let proxy = eks.addons.get_mut("kube-proxy").unwrap();
        proxy.version = crate::model::AddonVersion::new("v1.28.15-eksbuild.2");
    });
    let refused = asked
        .eks
        .update_cluster_version()
        .name(CLUSTER)
        .version("1.27")
        .send()
        .await
        .unwrap_err();
    assert_eq!(said(refused).0, "InvalidStateException");
    assert_eq!(
        rollback_insight(&asked, "kube-proxy").await.as_deref(),
        Some("ERROR")
    );
    asked.twin.with_world(|world| {
        let eks = world.cloud.eks.as_mut().unwrap();
        let (from, at) = eks.upgraded.unwrap();
        eks.upgraded = Some((from, at - jiff::SignedDuration::from_hours(7 * 24)));
    });
    assert_eq!(rollback_insight(&asked, "kube-proxy").await, None);
}
