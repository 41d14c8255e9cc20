use aws_sdk_eks::types::ResolveConflicts;

use super::sdk::{Asked, CLUSTER, expense_dev, said, seconds};

async fn update(asked: &Asked, name: &str, version: &str) -> Result<String, (String, String)> {
    let request = asked
        .eks
        .update_addon()
        .cluster_name(CLUSTER)
        .addon_name(name)
        .addon_version(version)
        .resolve_conflicts(ResolveConflicts::Preserve);
    request
        .send()
        .await
        .map(|a| a.update.unwrap().id.unwrap())
        .map_err(said)
}

async fn status(asked: &Asked, name: &str, id: &str) -> String {
    let update = asked
        .eks
        .describe_update()
        .name(CLUSTER)
        .addon_name(name)
        .update_id(id)
        .send()
        .await
        .unwrap()
        .update
        .unwrap();
    update.status.unwrap().as_str().to_owned()
}

#[tokio::test(start_paused = true)]
async fn an_add_on_rolls_its_workload_out_and_then_is_done() {
    let asked = expense_dev();
    let id = update(&asked, "coredns", "v1.11.1-eksbuild.9")
        .await
        .unwrap();
    assert_eq!(status(&asked, "coredns", &id).await, "InProgress");
    let addon = || async {
        asked
            .eks
            .describe_addon()
            .cluster_name(CLUSTER)
            .addon_name("coredns")
            .send()
            .await
            .unwrap()
            .addon
            .unwrap()
    };
    assert_eq!(addon().await.status.unwrap().as_str(), "UPDATING");
    for _ in 0..120 {
        if status(&asked, "coredns", &id).await != "InProgress" {
            break;
        }
        seconds(1).await;
    }
    assert_eq!(status(&asked, "coredns", &id).await, "Successful");
    let done = addon().await;
    assert_eq!(
        (done.status.unwrap().as_str(), done.addon_version.as_deref()),
        ("ACTIVE", Some("v1.11.1-eksbuild.9"))
    );
}

#[tokio::test(start_paused = true)]
async fn an_add_on_goes_only_where_its_version_fits_and_the_cni_one_minor_at_a_time() {
    let asked = expense_dev();
    let (code, message) = update(&asked, "kube-proxy", "v1.28.15-eksbuild.2")
        .await
        .unwrap_err();
    assert_eq!(
        (code.as_str(), message.as_str()),
        (
            "InvalidParameterException",
            "Addon version specified is not supported"
        )
    );
    asked.twin.with_world(|world| {
        world
            .cloud
            .eks
            .as_mut()
            .unwrap()
            .addons
            .get_mut("vpc-cni")
            .unwrap()
            .version = crate::model::AddonVersion::new("v1.15.1-eksbuild.1");
    });
    assert!(
        update(&asked, "vpc-cni", "v1.19.2-eksbuild.1")
            .await
            .unwrap_err()
            .1
            .contains("1 minor version at a time")
    );
    assert_eq!(
        update(&asked, "metrics-server", "v1").await.unwrap_err().0,
        "ResourceNotFoundException"
    );
    let first = update(&asked, "coredns", "v1.11.1-eksbuild.9")
        .await
        .unwrap();
    let second = update(&asked, "coredns", "v1.10.1-eksbuild.18")
        .await
        .unwrap_err();
    assert!(second.1.contains(&first), "{second:?}");
}

#[tokio::test(start_paused = true)]
async fn an_add_on_whose_pods_do_not_come_up_is_degraded_and_then_failed() {
    let asked = expense_dev();
    // The tag coredns is taken to is one nobody can pull.
    asked.twin.with_world(|world| {
        let image = crate::twin::k8s::cloud_hooks::container_image(
            world,
            crate::twin::k8s::cloud_hooks::AddonWorkload::Deployment,
            "kube-system",
            "coredns",
            "coredns",
        )
        .unwrap();
        let to = image.replace("v1.10.1-eksbuild.18", "v1.11.1-eksbuild.9");
        crate::twin::k8s::cloud_hooks::make_image_unpullable(world, &to);
    });
    let id = update(&asked, "coredns", "v1.11.1-eksbuild.9")
        .await
        .unwrap();
    seconds(300).await;
    let addon = asked
        .eks
        .describe_addon()
        .cluster_name(CLUSTER)
        .addon_name("coredns")
        .send()
        .await
        .unwrap()
        .addon
        .unwrap();
    assert_eq!(addon.status.unwrap().as_str(), "DEGRADED");
    assert_eq!(
        addon.health.unwrap().issues.unwrap()[0]
            .code
            .as_ref()
            .unwrap()
            .as_str(),
        "InsufficientNumberOfReplicas"
    );
    assert_eq!(status(&asked, "coredns", &id).await, "InProgress");
    seconds(1000).await;
    assert_eq!(status(&asked, "coredns", &id).await, "Failed");
}

#[tokio::test(start_paused = true)]
async fn the_catalogue_says_what_fits_and_what_is_the_default() {
    let asked = expense_dev();
    let answer = asked
        .eks
        .describe_addon_versions()
        .kubernetes_version("1.28")
        .addon_name("kube-proxy")
        .send()
        .await
        .unwrap();
    let versions = answer.addons()[0].addon_versions();
    assert_eq!(versions[0].addon_version(), Some("v1.28.15-eksbuild.2"));
    assert!(versions[0].compatibilities()[0].default_version());
    assert!(versions.iter().all(|v| v.compatibilities().len() == 1));
    let all = asked.eks.describe_addon_versions().send().await.unwrap();
    assert_eq!(all.addons().len(), 5);
    let schema = asked
        .eks
        .describe_addon_configuration()
        .addon_name("coredns")
        .addon_version("v1.11.1-eksbuild.9")
        .send()
        .await
        .unwrap();
    assert!(
        schema
            .configuration_schema()
            .unwrap()
            .contains("replicaCount")
    );
    let refused = asked
        .eks
        .update_addon()
        .cluster_name(CLUSTER)
        .addon_name("coredns")
        .addon_version("v1.11.1-eksbuild.9")
        .configuration_values(r#"{"nope": 1}"#)
        .send()
        .await
        .unwrap_err();
    assert!(
        said(refused)
            .1
            .contains("ConfigurationValue provided in request is not supported")
    );
}
