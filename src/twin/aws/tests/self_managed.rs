//! Auto Scaling groups that no managed node group owns.

use aws_sdk_autoscaling::types::{LaunchTemplateSpecification, Tag};
use aws_sdk_ec2::types::{
    LaunchTemplateIamInstanceProfileSpecificationRequest as Profile, RequestLaunchTemplateData,
};
use serde_json::{Value, json};

use super::sdk::{Asked, asked, said, seconds};
use crate::twin::k8s::cloud_hooks;
use crate::twin::{Twin, scenario};

const IMAGE_PARAMETER: &str =
    "/aws/service/eks/optimized-ami/1.27/amazon-linux-2023/x86_64/standard/recommended/image_id";

fn self_managed() -> Asked {
    let snapshot = scenario::find_scenario("self-managed").unwrap();
    asked(Twin::start(scenario::load_world(&snapshot, 7)), "us-east-1")
}

fn template(id: &str, version: &str) -> LaunchTemplateSpecification {
    LaunchTemplateSpecification::builder()
        .launch_template_id(id)
        .version(version)
        .build()
}

impl Asked {
    fn nodes_of_asg(&self, asg: &str) -> Vec<String> {
        self.twin
            .with_world(|w| cloud_hooks::nodes_of_group(w, asg))
    }

    async fn describe(&self, asg: &str) -> Option<aws_sdk_autoscaling::types::AutoScalingGroup> {
        let found = self.asg.describe_auto_scaling_groups();
        let found = found.auto_scaling_group_names(asg).send().await.unwrap();
        found.auto_scaling_groups.unwrap_or_default().pop()
    }

    async fn states(&self, asg: &str) -> Vec<String> {
        let group = self.describe(asg).await;
        let members = group.and_then(|g| g.instances).unwrap_or_default();
        let states = members.iter().filter_map(|i| i.lifecycle_state.as_ref());
        states.map(|s| s.as_str().to_owned()).collect()
    }

    fn subnets(&self) -> String {
        let ids = |w: &mut crate::twin::world::SimWorld| {
            w.cloud.subnets.keys().cloned().collect::<Vec<_>>()
        };
        self.twin.with_world(ids).join(",")
    }

    /// A group of two from a template, attached to nothing.
    async fn create_group(&self, name: &str, template: LaunchTemplateSpecification) {
        let tag = Tag::builder()
            .key("kubernetes.io/cluster/self-managed")
            .value("owned")
            .propagate_at_launch(true)
            .build();
        self.asg
            .create_auto_scaling_group()
            .auto_scaling_group_name(name)
            .launch_template(template)
            .vpc_zone_identifier(self.subnets())
            .min_size(2)
            .max_size(4)
            .tags(tag)
            .send()
            .await
            .unwrap();
    }

    /// A template of its own with this user data and instance profile.
    async fn create_template(&self, name: &str, user_data: &str, profile: &str) -> String {
        let image = self.ssm.get_parameter().name(IMAGE_PARAMETER);
        let image = image.send().await.unwrap().parameter.unwrap().value;
        let data = RequestLaunchTemplateData::builder()
            .set_image_id(image)
            .instance_type("t3.large".into())
            .user_data(user_data)
            .iam_instance_profile(Profile::builder().name(profile).build())
            .build();
        let made = self.ec2.create_launch_template();
        let made = made.launch_template_name(name).launch_template_data(data);
        let made = made.send().await.unwrap().launch_template.unwrap();
        made.launch_template_id.unwrap()
    }

    /// The user data of the web group's template.
    async fn web_user_data(&self) -> String {
        let found = self.ec2.describe_launch_template_versions();
        let found = found.launch_template_name("web-nodes").versions("$Latest");
        let found = found
            .send()
            .await
            .unwrap()
            .launch_template_versions
            .unwrap();
        let data = found.into_iter().next().unwrap().launch_template_data;
        data.unwrap().user_data.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_clone_of_a_group_joins_with_what_its_user_data_registers_and_the_kubelet_of_its_image() {
    let asked = self_managed();
    let blue = asked.describe("web-blue").await.unwrap();
    let image = asked
        .ssm
        .get_parameter()
        .name(IMAGE_PARAMETER.replace("1.27", "1.28"));
    let image = image.send().await.unwrap().parameter.unwrap().value;
    let data = RequestLaunchTemplateData::builder()
        .set_image_id(image)
        .build();
    let version = asked.ec2.create_launch_template_version();
    let version = version
        .launch_template_name("web-nodes")
        .source_version("1");
    let version = version.launch_template_data(data).send().await.unwrap();
    let version = version.launch_template_version.unwrap();
    assert_eq!(version.version_number, Some(2));
    let mut policy = blue.mixed_instances_policy.clone().unwrap();
    let mut of_policy = policy.launch_template.unwrap();
    let id = version.launch_template_id.unwrap();
    of_policy.launch_template_specification = Some(template(&id, "2"));
    policy.launch_template = Some(of_policy);
    let green = asked.group("expense-green-tg");
    asked
        .asg
        .create_auto_scaling_group()
        .auto_scaling_group_name("web-green")
        .mixed_instances_policy(policy)
        .set_vpc_zone_identifier(blue.vpc_zone_identifier.clone())
        .min_size(3)
        .max_size(6)
        .desired_capacity(3)
        .target_group_arns(&green)
        .health_check_type("ELB")
        .health_check_grace_period(300)
        .send()
        .await
        .unwrap();
    seconds(300).await;
    assert_eq!(asked.states("web-green").await, ["InService"; 3]);
    let nodes = asked.nodes_of_asg("web-green");
    assert_eq!(nodes.len(), 3);
    let versions = asked.twin.with_world(|w| cloud_hooks::kubelet_versions(w));
    for node in &nodes {
        let kubelet = &versions.iter().find(|(name, _)| name == node).unwrap().1;
        assert!(kubelet.starts_with("v1.28."), "{kubelet}");
        let labels = asked.twin.with_world(|w| cloud_hooks::node_labels(w, node));
        assert_eq!(labels["pool"], "web");
        assert!(
            !labels.keys().any(|k| k.contains("eks.amazonaws.com")),
            "{labels:?}"
        );
    }
    let health = asked.elb.describe_target_health().target_group_arn(&green);
    let health = health
        .send()
        .await
        .unwrap()
        .target_health_descriptions
        .unwrap();
    assert_eq!(health.len(), 3, "instances are registered by the group");
    let shown = asked.describe("web-green").await.unwrap();
    let policy = shown.mixed_instances_policy.unwrap();
    let base = policy
        .launch_template
        .unwrap()
        .launch_template_specification
        .unwrap();
    assert_eq!(base.launch_template_name.as_deref(), Some("web-nodes"));
    assert_eq!(base.version.as_deref(), Some("2"));
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_user_data_names_another_cluster_never_joins_and_nothing_tells() {
    use base64::Engine as _;
    let asked = self_managed();
    let engine = base64::engine::general_purpose::STANDARD;
    let right = asked.web_user_data().await;
    let text = String::from_utf8(engine.decode(&right).unwrap()).unwrap();
    let wrong = engine.encode(text.replace("name: self-managed", "name: other"));
    let id = asked
        .create_template("wrong", &wrong, "self-managed-nodes")
        .await;
    asked.create_group("wrong", template(&id, "$Latest")).await;
    let id = asked
        .create_template("right", &right, "self-managed-nodes")
        .await;
    asked.create_group("right", template(&id, "1")).await;
    seconds(1200).await;
    assert_eq!(asked.states("wrong").await, ["InService"; 2]);
    assert_eq!(asked.nodes_of_asg("wrong"), [] as [&str; 0]);
    assert_eq!(asked.nodes_of_asg("right").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_role_without_an_access_entry_keeps_its_nodes_out_until_it_has_one() {
    let asked = self_managed();
    let text = asked.web_user_data().await;
    let id = asked.create_template("strange", &text, "strangers").await;
    asked.create_group("strange", template(&id, "1")).await;
    seconds(1200).await;
    assert_eq!(asked.nodes_of_asg("strange"), [] as [&str; 0]);
    let entries = asked.eks.list_access_entries().cluster_name("self-managed");
    let entries = entries.send().await.unwrap().access_entries.unwrap();
    assert!(entries.contains(&"arn:aws:iam::123456789012:role/self-managed-node".to_owned()));
    let role = "arn:aws:iam::123456789012:role/strangers";
    let missing = asked
        .eks
        .describe_access_entry()
        .cluster_name("self-managed");
    let missing = missing.principal_arn(role).send().await.unwrap_err();
    assert_eq!(said(missing).0, "ResourceNotFoundException");
    let made = asked.eks.create_access_entry().cluster_name("self-managed");
    let made = made
        .principal_arn(role)
        .r#type("EC2_LINUX")
        .send()
        .await
        .unwrap();
    assert_eq!(
        made.access_entry.unwrap().kubernetes_groups.unwrap(),
        ["system:nodes"]
    );
    seconds(120).await;
    assert_eq!(asked.nodes_of_asg("strange").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn protected_instances_stay_beyond_the_size_and_a_hook_holds_those_that_go() {
    let asked = self_managed();
    let resize = asked.asg.update_auto_scaling_group();
    let resize = resize.auto_scaling_group_name("data-blue");
    resize.min_size(0).max_size(0).send().await.unwrap();
    seconds(900).await;
    assert_eq!(asked.states("data-blue").await, ["InService"; 3]);
    assert_eq!(asked.nodes_of_asg("data-blue").len(), 3);
    let group = asked.describe("data-blue").await.unwrap();
    assert_eq!(group.desired_capacity, Some(0));
    let first = group.instances.unwrap()[0].instance_id.clone().unwrap();
    let protect = asked.asg.set_instance_protection();
    let protect = protect.auto_scaling_group_name("data-blue");
    let protect = protect.instance_ids(&first).protected_from_scale_in(false);
    protect.send().await.unwrap();
    seconds(60).await;
    let states = asked.states("data-blue").await;
    assert!(
        states.contains(&"Terminating:Wait".to_owned()),
        "{states:?}"
    );
    assert_eq!(asked.nodes_of_asg("data-blue").len(), 3, "its node runs on");
    seconds(400).await;
    assert_eq!(asked.states("data-blue").await, ["InService"; 2]);
    assert_eq!(asked.nodes_of_asg("data-blue").len(), 2);
    let strange = asked.asg.set_instance_protection();
    let strange = strange
        .auto_scaling_group_name("web-blue")
        .instance_ids(&first);
    let strange = strange
        .protected_from_scale_in(true)
        .send()
        .await
        .unwrap_err();
    assert!(
        said(strange)
            .1
            .contains("is not part of Auto Scaling group web-blue")
    );
}

#[tokio::test(start_paused = true)]
async fn a_hook_is_answered_by_whoever_has_its_token_or_names_the_instance() {
    let asked = self_managed();
    let ended = asked
        .asg
        .describe_auto_scaling_instances()
        .send()
        .await
        .unwrap();
    let ended = ended.auto_scaling_instances.unwrap();
    let of_data = |i: &&aws_sdk_autoscaling::types::AutoScalingInstanceDetails| {
        i.auto_scaling_group_name.as_deref() == Some("data-blue")
    };
    let id = ended
        .iter()
        .find(of_data)
        .unwrap()
        .instance_id
        .clone()
        .unwrap();
    // Protection is against scale-in, and holds nobody who names the instance.
    let end = asked.asg.terminate_instance_in_auto_scaling_group();
    let end = end
        .instance_id(&id)
        .should_decrement_desired_capacity(false);
    end.send().await.unwrap();
    seconds(30).await;
    assert!(
        asked
            .states("data-blue")
            .await
            .contains(&"Terminating:Wait".to_owned())
    );
    let answer = |instance: &str| {
        let answer = asked.asg.complete_lifecycle_action();
        let answer = answer.auto_scaling_group_name("data-blue");
        let answer = answer.lifecycle_hook_name("data-drain");
        answer
            .instance_id(instance)
            .lifecycle_action_result("CONTINUE")
    };
    let nobody = answer("i-00000000000000000").send().await.unwrap_err();
    assert!(
        said(nobody)
            .1
            .starts_with("No active Lifecycle Action found")
    );
    answer(&id).send().await.unwrap();
    seconds(60).await;
    assert!(
        !asked
            .states("data-blue")
            .await
            .contains(&"Terminating:Wait".to_owned())
    );
    seconds(300).await;
    assert_eq!(asked.nodes_of_asg("data-blue").len(), 3, "it was replaced");
    // A launch that is abandoned ends, and the group tries again.
    let hook = asked
        .asg
        .put_lifecycle_hook()
        .auto_scaling_group_name("web-blue");
    let hook = hook.lifecycle_hook_name("prepare").heartbeat_timeout(60);
    let hook = hook.lifecycle_transition("autoscaling:EC2_INSTANCE_LAUNCHING");
    hook.default_result("ABANDON").send().await.unwrap();
    let resize = asked
        .asg
        .set_desired_capacity()
        .auto_scaling_group_name("web-blue");
    resize.desired_capacity(4).send().await.unwrap();
    seconds(600).await;
    let states = asked.states("web-blue").await;
    assert_eq!(
        states.iter().filter(|s| *s == "InService").count(),
        3,
        "{states:?}"
    );
    let drop = asked
        .asg
        .delete_lifecycle_hook()
        .auto_scaling_group_name("web-blue");
    drop.lifecycle_hook_name("prepare").send().await.unwrap();
    seconds(200).await;
    let states = asked.states("web-blue").await;
    assert_eq!(
        states.iter().filter(|s| *s == "InService").count(),
        4,
        "{states:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_group_with_instances_is_deleted_by_force_only_and_its_pods_go_with_them() {
    let asked = self_managed();
    let delete = || {
        asked
            .asg
            .delete_auto_scaling_group()
            .auto_scaling_group_name("data-blue")
    };
    let refused = delete().send().await.unwrap_err();
    assert_eq!(said(refused).0, "ResourceInUse");
    let node_pods = |twin: &Twin| {
        twin.with_world(|w| {
            let nodes = cloud_hooks::nodes_of_group(w, "data-blue");
            let pods = nodes.iter().flat_map(|n| cloud_hooks::pods_on(w, n));
            pods.filter(|p| !p.daemon).count()
        })
    };
    assert_eq!(node_pods(&asked.twin), 1);
    delete().force_delete(true).send().await.unwrap();
    let status = asked.describe("data-blue").await.unwrap().status;
    assert_eq!(status.as_deref(), Some("Delete in progress"));
    seconds(120).await;
    assert!(
        asked.describe("data-blue").await.is_none(),
        "no hook is waited for"
    );
    assert_eq!(node_pods(&asked.twin), 0);
    let gone = delete().send().await.unwrap_err();
    assert_eq!(said(gone).0, "ValidationError");
    let again = asked
        .asg
        .create_auto_scaling_group()
        .auto_scaling_group_name("web-blue");
    let again = again.launch_template(template("lt-0a1b2c3d4e5f60718", "1"));
    let again = again
        .min_size(0)
        .max_size(0)
        .vpc_zone_identifier(asked.subnets());
    assert_eq!(said(again.send().await.unwrap_err()).0, "AlreadyExists");
}

#[tokio::test(start_paused = true)]
async fn a_group_whose_template_was_deleted_launches_nothing_more_and_says_why() {
    let asked = self_managed();
    let drop = asked
        .ec2
        .delete_launch_template()
        .launch_template_name("web-nodes");
    drop.send().await.unwrap();
    let resize = asked
        .asg
        .set_desired_capacity()
        .auto_scaling_group_name("web-blue");
    resize.desired_capacity(5).send().await.unwrap();
    seconds(120).await;
    assert_eq!(asked.states("web-blue").await.len(), 3);
    let told = asked.asg.describe_scaling_activities();
    let told = told
        .auto_scaling_group_name("web-blue")
        .send()
        .await
        .unwrap();
    let message = told.activities.unwrap()[0].status_message.clone().unwrap();
    assert!(
        message.contains("lt-0a1b2c3d4e5f60718, does not exist"),
        "{message}"
    );
    let group = asked
        .asg
        .create_auto_scaling_group()
        .auto_scaling_group_name("x");
    let group = group.launch_template(template("lt-0a1b2c3d4e5f60718", "1"));
    let group = group
        .min_size(0)
        .max_size(0)
        .vpc_zone_identifier(asked.subnets());
    let (code, message) = said(group.send().await.unwrap_err());
    assert_eq!(code, "ValidationError");
    assert!(message.starts_with("You must use a valid fully-formed launch template."));
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_fails_the_checks_of_a_balancer_is_replaced_where_the_group_heeds_them() {
    let asked = self_managed();
    let id = asked
        .create_template("silent", "IyEvYmluL2Jhc2gK", "self-managed-nodes")
        .await;
    let blue = asked.group("expense-blue-tg");
    for (name, kind) in [("heeds", "ELB"), ("does-not", "EC2")] {
        let group = asked.asg.create_auto_scaling_group();
        let group = group.auto_scaling_group_name(name).health_check_type(kind);
        let group = group
            .health_check_grace_period(120)
            .target_group_arns(&blue);
        let group = group.launch_template(template(&id, "1"));
        let group = group.vpc_zone_identifier(asked.subnets());
        group.min_size(1).max_size(1).send().await.unwrap();
    }
    let launches = async |name: &str| {
        let told = asked.asg.describe_scaling_activities();
        let told = told.auto_scaling_group_name(name).send().await.unwrap();
        let all = told.activities.unwrap();
        all.iter()
            .filter(|a| {
                a.description
                    .as_deref()
                    .unwrap_or_default()
                    .starts_with("Launching")
            })
            .count()
    };
    seconds(1800).await;
    assert_eq!(launches("does-not").await, 1);
    assert!(launches("heeds").await >= 2);
}

#[tokio::test(start_paused = true)]
async fn nodes_fall_silent_when_eks_takes_their_role_out_of_aws_auth_with_a_managed_group() {
    let mut snapshot = scenario::find_scenario("self-managed").unwrap();
    let row = |role: &str| {
        format!(
            "- rolearn: arn:aws:iam::123456789012:role/{role}\n  username: system:node:{{{{EC2PrivateDNSName}}}}\n  groups:\n  - system:bootstrappers\n  - system:nodes\n"
        )
    };
    let map = json!({"metadata": {"name": "aws-auth", "namespace": "kube-system"}, "data": {"mapRoles": row("eks-node") + &row("other")}});
    snapshot
        .kubernetes
        .insert("/api/v1/configmaps".into(), vec![map]);
    snapshot.inventory.cluster.authentication_mode = Some("CONFIG_MAP".into());
    snapshot.aws.remove("eks:DescribeAccessEntry");
    // Both kinds of groups have the managed group's role.
    let profiles = snapshot.aws.get_mut("iam:ListInstanceProfiles").unwrap();
    profiles[0]["Roles"][0]["Arn"] = json!("arn:aws:iam::123456789012:role/eks-node");
    let asked = asked(Twin::start(scenario::load_world(&snapshot, 7)), "us-east-1");
    let ready = |asked: &Asked| {
        asked.twin.with_world(|w| {
            let nodes = cloud_hooks::nodes_of_group(w, "web-blue");
            nodes
                .iter()
                .filter(|n| cloud_hooks::is_node_ready(w, n))
                .count()
        })
    };
    seconds(60).await;
    assert_eq!(ready(&asked), 3);
    let delete = asked.eks.delete_nodegroup().cluster_name("self-managed");
    delete.nodegroup_name("expense-blue").send().await.unwrap();
    seconds(1200).await;
    assert_eq!(ready(&asked), 0);
    let rows: Value = asked.twin.with_world(|w| {
        let text = cloud_hooks::config_map_value(w, "kube-system", "aws-auth", "mapRoles");
        serde_saphyr::from_str(&text.unwrap()).unwrap()
    });
    assert_eq!(rows.as_array().unwrap().len(), 1);
    assert_eq!(rows[0]["rolearn"], "arn:aws:iam::123456789012:role/other");
}
