//! What EKS and EC2 refuse: labels, user data, quotas, zones (EKS-NG-28 to EKS-NG-32).

use aws_sdk_eks::types::{AmiTypes, LaunchTemplateSpecification, NodegroupScalingConfig};
use base64::Engine;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::sdk::{Asked, CLUSTER, expense_dev, said, seconds};
use crate::twin::k8s::cloud_hooks;

fn create(
    asked: &Asked,
    name: &str,
) -> aws_sdk_eks::operation::create_nodegroup::builders::CreateNodegroupFluentBuilder {
    let subnets = asked
        .twin
        .with_world(|world| world.cloud.subnets.keys().cloned().collect());
    let sizes = NodegroupScalingConfig::builder()
        .min_size(0)
        .max_size(6)
        .desired_size(3)
        .build();
    asked
        .eks
        .create_nodegroup()
        .cluster_name(CLUSTER)
        .nodegroup_name(name)
        .set_subnets(Some(subnets))
        .node_role("arn:aws:iam::123456789012:role/eks-node")
        .scaling_config(sizes)
}

/// A template of the user's with these data, in EC2's spelling.
fn template(asked: &Asked, data: Value) -> LaunchTemplateSpecification {
    let id = asked.twin.with_world(|world| {
        let some = world.cloud.templates.values().next().unwrap().clone();
        let id = world.new_ec2_id("lt-");
        let mut made = some;
        made.id.clone_from(&id);
        made.name = format!("own-{id}");
        made.versions.truncate(1);
        made.versions[0].data = data.as_object().unwrap().clone();
        made.versions[0].number = 1;
        made.default = 1;
        world.cloud.templates.insert(id.clone(), made);
        id
    });
    LaunchTemplateSpecification::builder()
        .id(id)
        .version("1")
        .build()
}

fn encoded(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

async fn issue(asked: &Asked, group: &str) -> (String, String) {
    let found = asked
        .eks
        .describe_nodegroup()
        .cluster_name(CLUSTER)
        .nodegroup_name(group)
        .send()
        .await
        .unwrap();
    let health = found.nodegroup.unwrap().health.unwrap();
    let issue = &health.issues.unwrap()[0];
    let code = issue.code.as_ref().unwrap().as_str().to_owned();
    (code, issue.message.clone().unwrap_or_default())
}

#[tokio::test(start_paused = true)]
async fn labels_of_reserved_domains_are_refused_but_those_a_kubelet_may_have() {
    let asked = expense_dev();
    for key in [
        "kubernetes.io/x",
        "node-role.kubernetes.io/db",
        "k8s.io/x",
        "feature.k8s.io/x",
        "eks.amazonaws.com/x",
        "team.eks.amazonaws.com/x",
    ] {
        let (code, message) = said(
            create(&asked, "x")
                .labels(key, "y")
                .send()
                .await
                .unwrap_err(),
        );
        assert_eq!(code, "InvalidParameterException", "{key}");
        assert_eq!(
            message,
            "Label cannot contain reserved prefixes [kubernetes.io/, k8s.io/, eks.amazonaws.com/]"
        );
    }
    let (_, message) = said(
        create(&asked, "x")
            .labels("a", "")
            .send()
            .await
            .unwrap_err(),
    );
    assert!(
        message.contains("must consist of alphanumeric"),
        "{message}"
    );
    for (n, key) in ["node.kubernetes.io/x", "example.com/x", "mykubernetes.io/x"]
        .into_iter()
        .enumerate()
    {
        let made = create(&asked, &format!("g{n}"))
            .labels(key, "y")
            .send()
            .await;
        assert!(made.is_ok(), "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_ami_type_takes_only_instances_it_is_made_for() {
    let asked = expense_dev();
    let refused = [
        (AmiTypes::Al2023X8664Standard, "m6g.large"),
        (AmiTypes::Al2023X8664Nvidia, "inf2.xlarge"),
        (AmiTypes::Al2023X8664Neuron, "g5.xlarge"),
        (AmiTypes::BottlerocketX8664Nvidia, "m5.large"),
    ];
    for (ami_type, instance_type) in refused {
        let request = create(&asked, "x").ami_type(ami_type.clone());
        // The second type counts as well as the first.
        let first = if ami_type == AmiTypes::Al2023X8664Standard {
            "m5.large"
        } else {
            instance_type
        };
        let request = request.instance_types(first).instance_types(instance_type);
        let (code, message) = said(request.send().await.unwrap_err());
        assert_eq!(code, "InvalidParameterException");
        let why = format!(
            "is not a valid instance type for requested amiType {}",
            ami_type.as_str()
        );
        assert!(message.contains(&why), "{message}");
    }
    let fits = create(&asked, "y")
        .ami_type(AmiTypes::Al2023X8664Neuron)
        .instance_types("inf2.xlarge");
    assert!(fits.send().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn user_data_of_another_form_than_the_image_s_fails_the_group() {
    let asked = expense_dev();
    let toml = encoded("[settings.kubernetes]\nmax-pods = 50\n");
    let spec = template(
        &asked,
        json!({"InstanceType": "t3.large", "UserData": toml}),
    );
    let request = create(&asked, "linux").ami_type(AmiTypes::Al2023X8664Standard);
    request.launch_template(spec.clone()).send().await.unwrap();
    asked.until("linux", "CREATE_FAILED").await;
    let (code, message) = issue(&asked, "linux").await;
    assert_eq!(code, "Ec2LaunchTemplateInvalidConfiguration");
    assert_eq!(message, "User data was not in the MIME multipart format.");
    let request = create(&asked, "bottle").ami_type(AmiTypes::BottlerocketX8664);
    request.launch_template(spec).send().await.unwrap();
    asked.until("bottle", "ACTIVE").await;
}

#[tokio::test(start_paused = true)]
async fn an_image_of_one_s_own_has_the_kubelet_of_the_version_it_is_first_used_at() {
    let asked = expense_dev();
    let image = "ami-0123456789abcdef0";
    let shown = asked
        .ec2
        .describe_images()
        .image_ids(image)
        .send()
        .await
        .unwrap();
    assert_eq!(shown.images()[0].image_id(), Some(image));
    let spec = template(
        &asked,
        json!({"InstanceType": "t3.large", "ImageId": image}),
    );
    create(&asked, "own")
        .launch_template(spec)
        .send()
        .await
        .unwrap();
    asked.until("own", "ACTIVE").await;
    let kubelets = asked.twin.with_world(|world| {
        let names = cloud_hooks::nodes_of_group(world, "own");
        let all = cloud_hooks::kubelet_versions(world);
        let own = all.into_iter().filter(|(n, _)| names.contains(n));
        own.map(|(_, version)| version).collect::<Vec<_>>()
    });
    assert_eq!(kubelets.len(), 3);
    assert!(
        kubelets.iter().all(|k| k.starts_with("v1.27.")),
        "{kubelets:?}"
    );
    let shown = asked.ec2.describe_images().image_ids("ami-1").send().await;
    assert_eq!(said(shown.unwrap_err()).0, "InvalidAMIID.Malformed");
}

#[tokio::test(start_paused = true)]
async fn an_image_that_eks_publishes_needs_its_own_bootstrap_from_the_user() {
    let asked = expense_dev();
    let image = asked.twin.with_world(|world| {
        let mut images = world.cloud.images.values();
        let image = images.find(|i| i.kind == "AL2023_x86_64_STANDARD");
        image.unwrap().id.clone()
    });
    let script = encoded("#!/bin/bash\n/etc/eks/bootstrap.sh expense-dev\n");
    let data = json!({"InstanceType": "t3.large", "ImageId": image, "UserData": script});
    let spec = template(&asked, data);
    create(&asked, "own")
        .launch_template(spec)
        .send()
        .await
        .unwrap();
    asked.until("own", "CREATE_FAILED").await;
    assert_eq!(issue(&asked, "own").await.0, "NodeCreationFailure");
}

/// A call of Service Quotas over the wire.
async fn quota(asked: &Asked, op: &str, body: Value) -> (u16, Value) {
    let request = http::Request::post("https://servicequotas.us-east-1.amazonaws.com/")
        .header("x-amz-target", format!("ServiceQuotasV20190624.{op}"))
        .header("content-type", "application/x-amz-json-1.1")
        .header("authorization", "AWS4-HMAC-SHA256 Credential=AKIATEST/20261121/us-east-1/servicequotas/aws4_request, SignedHeaders=host, Signature=00")
        .body(bytes::Bytes::from(body.to_string()))
        .unwrap();
    let response = asked.twin.wire().oneshot(request).await.unwrap();
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap())
}

#[tokio::test(start_paused = true)]
async fn service_quotas_tell_what_create_nodegroup_and_launches_obey() {
    let asked = expense_dev();
    let named = json!({"ServiceCode": "eks", "QuotaCode": "L-6D54EA21"});
    let (code, told) = quota(&asked, "GetServiceQuota", named.clone()).await;
    assert_eq!((code, &told["Quota"]["Value"]), (200, &json!(30.0)));
    asked.twin.with_world(|world| {
        let quotas = &mut world.cloud.quotas;
        quotas.insert("eks/L-6D54EA21".to_owned(), 2.0);
        // Blue's three nodes of two vCPUs, and one more.
        quotas.insert("ec2/L-1216C47A".to_owned(), 8.0);
    });
    let (_, told) = quota(&asked, "GetServiceQuota", named.clone()).await;
    assert_eq!(told["Quota"]["Value"], 2.0);
    let (_, told) = quota(&asked, "GetAWSDefaultServiceQuota", named).await;
    assert_eq!(told["Quota"]["Value"], 30.0);
    let (_, told) = quota(&asked, "ListServiceQuotas", json!({"ServiceCode": "ec2"})).await;
    assert!(told["Quotas"].as_array().unwrap().len() > 3);
    let unknown = json!({"ServiceCode": "eks", "QuotaCode": "L-0"});
    let (code, told) = quota(&asked, "GetServiceQuota", unknown).await;
    assert_eq!(
        (code, &told["__type"]),
        (400, &json!("NoSuchResourceException"))
    );

    let large = |name: &str| create(&asked, name).instance_types("t3.large");
    large("one").send().await.unwrap();
    let (code, _) = said(large("two").send().await.unwrap_err());
    assert_eq!(code, "ResourceLimitExceededException");
    asked.until("one", "CREATE_FAILED").await;
    let (code, message) = issue(&asked, "one").await;
    assert_eq!(code, "AsgInstanceLaunchFailures");
    assert!(message.contains("VcpuLimitExceeded"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_full_zone_shows_as_a_failed_activity_and_the_others_take_its_instances_for_good() {
    let asked = expense_dev();
    asked.fault("no-free-addresses:us-east-1a");
    create(&asked, "green")
        .instance_types("t3.large")
        .send()
        .await
        .unwrap();
    asked.until("green", "ACTIVE").await;
    let members = || {
        asked.twin.with_world(|world| {
            let mut asgs = world.cloud.asgs.values();
            let asg = asgs
                .find(|a| a.nodegroup.as_deref() == Some("green"))
                .unwrap();
            asg.members.keys().cloned().collect::<Vec<_>>()
        })
    };
    let before = members();
    let asg = asked.asg_of("green").await;
    let told = asked
        .asg
        .describe_scaling_activities()
        .auto_scaling_group_name(&asg)
        .send()
        .await
        .unwrap();
    let failed: Vec<&str> = told
        .activities()
        .iter()
        .filter(|a| a.status_code().is_some_and(|c| c.as_str() == "Failed"))
        .filter_map(|a| a.status_message())
        .collect();
    assert!(!failed.is_empty());
    assert!(
        failed[0].contains("There are not enough free addresses in subnet"),
        "{failed:?}"
    );
    seconds(3600).await;
    assert_eq!(
        members(),
        before,
        "balancing zones ends nothing it cannot replace"
    );
}

#[tokio::test(start_paused = true)]
async fn an_instance_type_that_a_zone_does_not_offer_is_not_launched_there() {
    let asked = expense_dev();
    let pair = ("t3.large".to_owned(), "us-east-1b".to_owned());
    asked
        .twin
        .with_world(|world| world.cloud.not_offered.insert(pair));
    let offered = asked
        .ec2
        .describe_instance_type_offerings()
        .location_type("availability-zone".into())
        .filters(
            aws_sdk_ec2::types::Filter::builder()
                .name("instance-type")
                .values("t3.large")
                .build(),
        )
        .send()
        .await
        .unwrap();
    let zones: Vec<&str> = offered
        .instance_type_offerings()
        .iter()
        .filter_map(|o| o.location())
        .collect();
    assert_eq!(zones, ["us-east-1a", "us-east-1c"]);
    create(&asked, "green")
        .instance_types("t3.large")
        .send()
        .await
        .unwrap();
    asked.until("green", "ACTIVE").await;
    let reasons = asked.twin.with_world(|world| {
        let mut asgs = world.cloud.asgs.values();
        let asg = asgs
            .find(|a| a.nodegroup.as_deref() == Some("green"))
            .unwrap();
        let failed = asg.activities.iter().filter(|a| a.instance.is_none());
        failed.map(|a| a.message.clone()).collect::<Vec<_>>()
    });
    assert!(
        reasons.iter().any(|r| r.contains("Unsupported")),
        "{reasons:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_version_s_schema_knows_what_the_running_one_is_configured_with_but_the_next_does_not() {
    let asked = expense_dev();
    let configuration = r#"{"env": {"A": "b"}, "oldKnob": {"x": 1}}"#;
    let (running, next) = asked.twin.with_world(|world| {
        let eks = world.cloud.eks.as_mut().unwrap();
        let addon = eks.addons.get_mut("coredns").unwrap();
        addon.configuration = Some(configuration.to_owned());
        let running = addon.version.as_str().to_owned();
        let versions = &eks.catalog["coredns"].versions;
        let next = versions
            .iter()
            .find(|v| v.version != addon.version)
            .unwrap();
        (running, next.version.as_str().to_owned())
    });
    for (version, knows) in [(&running, true), (&next, false)] {
        let told = asked
            .eks
            .describe_addon_configuration()
            .addon_name("coredns")
            .addon_version(version)
            .send()
            .await
            .unwrap();
        let schema: Value = serde_json::from_str(&told.configuration_schema.unwrap()).unwrap();
        assert_eq!(schema["properties"].get("oldKnob").is_some(), knows);
        assert_eq!(schema["additionalProperties"], false);
    }
}

#[tokio::test(start_paused = true)]
async fn a_degraded_group_stays_so_at_any_size_until_a_node_joins() {
    let asked = expense_dev();
    create(&asked, "sick")
        .instance_types("t3.large")
        .send()
        .await
        .unwrap();
    asked.until("sick", "ACTIVE").await;
    asked.twin.with_world(|world| {
        let groups = &mut world.cloud.eks.as_mut().unwrap().nodegroups;
        let group = groups.get_mut("sick").unwrap();
        group.status = "DEGRADED".into();
        group.degraded = true;
    });
    let size = |desired| {
        let sizes = NodegroupScalingConfig::builder();
        let sizes = sizes.min_size(0).max_size(6).desired_size(desired).build();
        asked
            .eks
            .update_nodegroup_config()
            .cluster_name(CLUSTER)
            .nodegroup_name("sick")
            .scaling_config(sizes)
            .send()
    };
    size(0).await.unwrap();
    seconds(3600).await;
    assert_eq!(asked.until("sick", "DEGRADED").await, 0);
    size(1).await.unwrap();
    asked.until("sick", "ACTIVE").await;
    seconds(3600).await;
    assert_eq!(asked.until("sick", "ACTIVE").await, 0);
}
