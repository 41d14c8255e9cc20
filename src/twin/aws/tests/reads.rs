use super::sdk::{BLUE, CLUSTER, expense_dev, said};

#[tokio::test(start_paused = true)]
async fn the_account_is_as_the_snapshot_says() {
    let asked = expense_dev();
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
        (cluster.version(), cluster.platform_version()),
        (Some("1.27"), Some("eks.19"))
    );
    assert_eq!(
        cluster.resources_vpc_config().unwrap().subnet_ids().len(),
        3
    );
    assert_eq!(cluster.created_at().unwrap().secs(), 1_795_248_898);
    let group = asked
        .eks
        .describe_nodegroup()
        .cluster_name(CLUSTER)
        .nodegroup_name(BLUE)
        .send()
        .await
        .unwrap()
        .nodegroup
        .unwrap();
    assert_eq!(
        (
            group.disk_size(),
            group.scaling_config().unwrap().max_size()
        ),
        (Some(20), Some(6))
    );
    assert_eq!(group.update_config().unwrap().max_unavailable(), Some(1));
    let addons = asked
        .eks
        .list_addons()
        .cluster_name(CLUSTER)
        .send()
        .await
        .unwrap();
    assert_eq!(
        addons.addons(),
        ["aws-ebs-csi-driver", "coredns", "kube-proxy", "vpc-cni"]
    );
    let versions = asked.eks.describe_cluster_versions().send().await.unwrap();
    assert_eq!(versions.cluster_versions().len(), 9);
    assert!(versions.cluster_versions()[0].default_version());
    let one = asked
        .eks
        .describe_cluster_versions()
        .cluster_versions("1.29")
        .send()
        .await
        .unwrap();
    assert_eq!(
        one.cluster_versions()[0].kubernetes_patch_version(),
        Some("1.29.15")
    );
    assert!(
        asked
            .eks
            .list_fargate_profiles()
            .cluster_name(CLUSTER)
            .send()
            .await
            .unwrap()
            .fargate_profile_names()
            .is_empty()
    );
    let entries = asked.eks.list_access_entries().cluster_name(CLUSTER);
    assert_eq!(
        entries.send().await.unwrap().access_entries(),
        ["arn:aws:iam::123456789012:role/eks-node"],
        "EKS lets the role of its group in"
    );
    let who = asked.sts.get_caller_identity().send().await.unwrap();
    assert_eq!(who.account(), Some("123456789012"));
    asked
        .sns
        .publish()
        .topic_arn("arn:aws:sns:us-east-1:123456789012:ops")
        .message("hello")
        .send()
        .await
        .unwrap();
    asked
        .twin
        .with_world(|w| assert_eq!(w.cloud.published[0].1, "hello"));
}

#[tokio::test(start_paused = true)]
async fn every_list_comes_in_pages() {
    let asked = expense_dev();
    let first = asked
        .eks
        .list_addons()
        .cluster_name(CLUSTER)
        .max_results(3)
        .send()
        .await
        .unwrap();
    let second = asked
        .eks
        .list_addons()
        .cluster_name(CLUSTER)
        .max_results(3)
        .next_token(first.next_token().unwrap())
        .send()
        .await
        .unwrap();
    assert_eq!(
        (first.addons().len(), second.addons(), second.next_token()),
        (3, &["vpc-cni".to_owned()][..], None)
    );
    let versions = asked
        .eks
        .describe_addon_versions()
        .into_paginator()
        .page_size(2)
        .send()
        .try_collect()
        .await
        .unwrap();
    assert_eq!(versions.len(), 3);
    let groups = asked
        .elb
        .describe_target_groups()
        .page_size(1)
        .into_paginator()
        .send()
        .try_collect()
        .await
        .unwrap();
    assert_eq!(groups.len(), 2);
    let listener = asked
        .twin
        .with_world(|w| w.cloud.elb.listeners.keys().next().unwrap().clone());
    let rules = asked
        .elb
        .describe_rules()
        .listener_arn(listener)
        .page_size(1)
        .send()
        .await
        .unwrap();
    assert!(rules.next_marker().is_some() && rules.rules().len() == 1);
    let instances = asked
        .ec2
        .describe_instances()
        .into_paginator()
        .page_size(2)
        .send()
        .try_collect()
        .await
        .unwrap();
    assert_eq!(instances.len(), 2);
    let tags = asked
        .asg
        .describe_tags()
        .into_paginator()
        .page_size(2)
        .send()
        .try_collect()
        .await
        .unwrap();
    assert_eq!(tags.len(), 3);
    let bad = asked
        .eks
        .list_addons()
        .cluster_name(CLUSTER)
        .next_token("bogus")
        .send()
        .await
        .unwrap_err();
    assert!(said(bad).1.contains("token"));
}

#[tokio::test(start_paused = true)]
async fn tags_are_kept_on_eks_and_elb() {
    let asked = expense_dev();
    let group = asked
        .eks
        .describe_nodegroup()
        .cluster_name(CLUSTER)
        .nodegroup_name(BLUE)
        .send()
        .await
        .unwrap()
        .nodegroup
        .unwrap();
    let arn = group.nodegroup_arn.unwrap();
    asked
        .eks
        .tag_resource()
        .resource_arn(&arn)
        .tags("eksup.dev/run", "r1")
        .send()
        .await
        .unwrap();
    assert_eq!(
        asked
            .eks
            .list_tags_for_resource()
            .resource_arn(&arn)
            .send()
            .await
            .unwrap()
            .tags()
            .unwrap()["eksup.dev/run"],
        "r1"
    );
    asked
        .eks
        .untag_resource()
        .resource_arn(&arn)
        .tag_keys("eksup.dev/run")
        .send()
        .await
        .unwrap();
    assert!(
        asked
            .eks
            .list_tags_for_resource()
            .resource_arn(&arn)
            .send()
            .await
            .unwrap()
            .tags()
            .unwrap()
            .is_empty()
    );
    let blue = asked.group("expense-blue-tg");
    let tag = aws_sdk_elasticloadbalancingv2::types::Tag::builder()
        .key("a")
        .value("b")
        .build();
    asked
        .elb
        .add_tags()
        .resource_arns(&blue)
        .tags(tag)
        .send()
        .await
        .unwrap();
    let tags = asked
        .elb
        .describe_tags()
        .resource_arns(&blue)
        .send()
        .await
        .unwrap();
    assert_eq!(tags.tag_descriptions()[0].tags()[0].value(), Some("b"));
    let many = asked
        .elb
        .describe_tags()
        .set_resource_arns(Some(vec![blue; 21]))
        .send()
        .await
        .unwrap_err();
    assert_eq!(said(many).0, "ValidationError");
}
