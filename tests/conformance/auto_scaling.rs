//! Auto Scaling groups of one's own: the same bodies against the twin and against moto, as far as moto has the operations.
//! What moto does at once the twin does in time, so that every body waits for what it expects.

mod group_parts;

use std::time::Duration;

use aws_sdk_autoscaling::types::{
    AutoScalingGroup, InstancesDistribution, LaunchTemplate, LaunchTemplateOverrides,
    LaunchTemplateSpecification, MixedInstancesPolicy, Tag,
};
use aws_sdk_ec2::types::{
    LaunchTemplateIamInstanceProfileSpecificationRequest as Profile, RequestLaunchTemplateData,
};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use eksup::aws::AwsApi;

/// Where the bodies run: an account with subnets, an image and two target groups.
pub struct AsgArm<'a> {
    pub aws: &'a AwsApi,
    pub subnets: Vec<String>,
    pub image: String,
    pub target_group: String,
    pub other_group: String,
    /// Moto replaces a group of the same name, and deletes one that has instances.
    pub is_moto: bool,
    /// How long to wait between two looks.
    pub pause: Duration,
}

fn code_of<E: ProvideErrorMetadata, R>(
    error: &aws_smithy_runtime_api::client::result::SdkError<E, R>,
) -> &str {
    error.code().unwrap_or_default()
}

impl AsgArm<'_> {
    async fn find(&self, name: &str) -> Option<AutoScalingGroup> {
        let found = self.aws.asg.describe_auto_scaling_groups();
        let found = found.auto_scaling_group_names(name).send().await.unwrap();
        found.auto_scaling_groups.unwrap_or_default().pop()
    }

    /// Waits until a group has so many instances, all in service.
    async fn until_size(&self, name: &str, size: usize) -> AutoScalingGroup {
        for _ in 0..200 {
            let group = self.find(name).await.unwrap();
            let members = group.instances();
            let in_service = members.iter().all(|i| {
                i.lifecycle_state()
                    .is_some_and(|s| s.as_str() == "InService")
            });
            if members.len() == size && in_service {
                return group;
            }
            tokio::time::sleep(self.pause).await;
        }
        panic!("{name} never had {size} instances in service");
    }

    async fn until_gone(&self, name: &str) {
        for _ in 0..200 {
            if self.find(name).await.is_none() {
                return;
            }
            tokio::time::sleep(self.pause).await;
        }
        panic!("{name} never went");
    }

    async fn targets(&self, group: &str) -> usize {
        let found = self.aws.elb.describe_target_health();
        let found = found.target_group_arn(group).send().await.unwrap();
        let all = found.target_health_descriptions.unwrap_or_default();
        let draining = |d: &&aws_sdk_elasticloadbalancingv2::types::TargetHealthDescription| {
            let state = d.target_health().and_then(|h| h.state());
            state.is_some_and(|s| s.as_str() == "draining")
        };
        all.len() - all.iter().filter(draining).count()
    }

    /// A template with one version.
    async fn template(&self, name: &str) -> LaunchTemplateSpecification {
        let data = RequestLaunchTemplateData::builder()
            .image_id(&self.image)
            .instance_type("t3.large".into())
            .user_data("IyEvYmluL2Jhc2gK")
            .iam_instance_profile(Profile::builder().name("nodes").build())
            .build();
        let made = self.aws.ec2.create_launch_template();
        let made = made.launch_template_name(name).launch_template_data(data);
        let made = made.send().await.unwrap().launch_template.unwrap();
        assert_eq!(
            (made.default_version_number, made.latest_version_number),
            (Some(1), Some(1))
        );
        LaunchTemplateSpecification::builder()
            .launch_template_id(made.launch_template_id.unwrap())
            .version("1")
            .build()
    }
}

/// A template is made once under a name, found by it, and gone after its deletion.
pub async fn a_template_has_its_name_alone_until_it_is_deleted(arm: &AsgArm<'_>) {
    let ec2 = &arm.aws.ec2;
    arm.template("once").await;
    let data = RequestLaunchTemplateData::builder()
        .image_id(&arm.image)
        .build();
    let again = ec2.create_launch_template().launch_template_name("once");
    let again = again.launch_template_data(data).send().await.unwrap_err();
    assert_eq!(
        code_of(&again),
        "InvalidLaunchTemplateName.AlreadyExistsException"
    );
    let found = ec2
        .describe_launch_template_versions()
        .launch_template_name("once");
    let found = found.versions("$Latest").send().await.unwrap();
    let data = found.launch_template_versions()[0].launch_template_data();
    let data = data.unwrap();
    assert_eq!(data.user_data(), Some("IyEvYmluL2Jhc2gK"));
    assert_eq!(data.iam_instance_profile().unwrap().name(), Some("nodes"));
    let gone = ec2.delete_launch_template().launch_template_name("once");
    gone.send().await.unwrap();
    let missing = ec2
        .describe_launch_templates()
        .launch_template_names("once");
    let missing = missing.send().await.unwrap_err();
    assert_eq!(
        code_of(&missing),
        "InvalidLaunchTemplateName.NotFoundException"
    );
}

/// A group is made with all that a clone needs, shows it, grows, shrinks, and goes.
pub async fn a_group_shows_what_it_was_made_with_and_follows_its_size(arm: &AsgArm<'_>) {
    let asg = &arm.aws.asg;
    let base = arm.template("own-nodes").await;
    let overrides = ["t3.large", "m5.large"]
        .map(|t| LaunchTemplateOverrides::builder().instance_type(t).build());
    let distribution = InstancesDistribution::builder()
        .on_demand_percentage_above_base_capacity(100)
        .build();
    let policy = MixedInstancesPolicy::builder()
        .launch_template(
            LaunchTemplate::builder()
                .launch_template_specification(base)
                .set_overrides(Some(overrides.to_vec()))
                .build(),
        )
        .instances_distribution(distribution)
        .build();
    let tag = Tag::builder()
        .key("kubernetes.io/cluster/x")
        .value("owned")
        .propagate_at_launch(true)
        .resource_id("own")
        .resource_type("auto-scaling-group")
        .build();
    let create = || {
        asg.create_auto_scaling_group()
            .auto_scaling_group_name("own")
            .mixed_instances_policy(policy.clone())
            .vpc_zone_identifier(arm.subnets.join(","))
            .min_size(1)
            .max_size(4)
            .desired_capacity(2)
            .target_group_arns(&arm.target_group)
            .health_check_type("EC2")
            .health_check_grace_period(120)
            .new_instances_protected_from_scale_in(false)
            .tags(tag.clone())
    };
    create().send().await.unwrap();
    if !arm.is_moto {
        let again = create().send().await.unwrap_err();
        assert!(code_of(&again).starts_with("AlreadyExists"), "{again:?}");
    }
    let group = arm.until_size("own", 2).await;
    assert_eq!(
        (group.min_size, group.max_size, group.desired_capacity),
        (Some(1), Some(4), Some(2))
    );
    assert_eq!(
        (group.health_check_type(), group.health_check_grace_period),
        (Some("EC2"), Some(120))
    );
    assert_eq!(
        group.target_group_arns(),
        std::slice::from_ref(&arm.target_group)
    );
    let shown = group
        .mixed_instances_policy()
        .unwrap()
        .launch_template()
        .unwrap();
    let specification = shown.launch_template_specification().unwrap();
    assert_eq!(specification.launch_template_name(), Some("own-nodes"));
    let types = shown.overrides().iter().filter_map(|o| o.instance_type());
    assert_eq!(types.collect::<Vec<_>>(), ["t3.large", "m5.large"]);
    let own = &group.tags()[0];
    assert_eq!(
        (own.key(), own.value()),
        (Some("kubernetes.io/cluster/x"), Some("owned"))
    );
    assert_eq!(arm.targets(&arm.target_group).await, 2);
    let resize = asg
        .update_auto_scaling_group()
        .auto_scaling_group_name("own");
    resize.min_size(3).send().await.unwrap();
    let group = arm.until_size("own", 3).await;
    assert_eq!(
        group.desired_capacity,
        Some(3),
        "it is pulled up to the minimum"
    );
    let resize = asg
        .update_auto_scaling_group()
        .auto_scaling_group_name("own");
    resize
        .min_size(0)
        .max_size(0)
        .desired_capacity(0)
        .send()
        .await
        .unwrap();
    arm.until_size("own", 0).await;
    let delete = asg
        .delete_auto_scaling_group()
        .auto_scaling_group_name("own");
    delete.send().await.unwrap();
    arm.until_gone("own").await;
    let missing = asg
        .update_auto_scaling_group()
        .auto_scaling_group_name("own");
    let missing = missing.max_size(1).send().await.unwrap_err();
    assert_eq!(code_of(&missing), "ValidationError");
}

/// Protection, suspended processes and hooks are kept; a group with instances is deleted by force.
pub async fn protection_processes_and_hooks_of_a_group_are_kept(arm: &AsgArm<'_>) {
    let asg = &arm.aws.asg;
    let template = arm.template("kept-nodes").await;
    asg.create_auto_scaling_group()
        .auto_scaling_group_name("kept")
        .launch_template(template)
        .vpc_zone_identifier(arm.subnets.join(","))
        .min_size(0)
        .max_size(3)
        .desired_capacity(2)
        .new_instances_protected_from_scale_in(true)
        .send()
        .await
        .unwrap();
    let group = arm.until_size("kept", 2).await;
    assert_eq!(group.new_instances_protected_from_scale_in, Some(true));
    let members = group.instances();
    assert!(
        members
            .iter()
            .all(|i| i.protected_from_scale_in == Some(true))
    );
    let first = members[0].instance_id().unwrap().to_owned();
    let open = asg
        .set_instance_protection()
        .auto_scaling_group_name("kept");
    let open = open.instance_ids(&first).protected_from_scale_in(false);
    open.send().await.unwrap();
    let group = arm.until_size("kept", 2).await;
    let shown = group.instances().iter();
    let shown = shown.filter(|i| i.protected_from_scale_in == Some(true));
    assert_eq!(shown.count(), 1);

    let hook = asg.put_lifecycle_hook().auto_scaling_group_name("kept");
    let hook = hook.lifecycle_hook_name("bye").default_result("CONTINUE");
    let hook = hook.lifecycle_transition("autoscaling:EC2_INSTANCE_TERMINATING");
    hook.heartbeat_timeout(300).send().await.unwrap();
    let shown = asg
        .describe_lifecycle_hooks()
        .auto_scaling_group_name("kept");
    let shown = shown.send().await.unwrap();
    let shown = &shown.lifecycle_hooks()[0];
    assert_eq!(
        (
            shown.lifecycle_hook_name(),
            shown.default_result(),
            shown.heartbeat_timeout
        ),
        (Some("bye"), Some("CONTINUE"), Some(300))
    );
    let drop = asg.delete_lifecycle_hook().auto_scaling_group_name("kept");
    drop.lifecycle_hook_name("bye").send().await.unwrap();

    let suspend = asg.suspend_processes().auto_scaling_group_name("kept");
    suspend.scaling_processes("Launch").send().await.unwrap();
    let resize = asg.set_desired_capacity().auto_scaling_group_name("kept");
    resize.desired_capacity(3).send().await.unwrap();
    for _ in 0..10 {
        tokio::time::sleep(arm.pause).await;
    }
    let group = arm.find("kept").await.unwrap();
    let suspended = group.suspended_processes().iter();
    let suspended: Vec<_> = suspended.filter_map(|p| p.process_name()).collect();
    assert_eq!(suspended, ["Launch"]);
    // Moto notes the process and launches all the same.
    let there = if arm.is_moto { 3 } else { 2 };
    assert_eq!(group.instances().len(), there);

    let attach = asg.attach_load_balancer_target_groups();
    let attach = attach
        .auto_scaling_group_name("kept")
        .target_group_arns(&arm.other_group);
    attach.send().await.unwrap();
    assert_eq!(arm.targets(&arm.other_group).await, there);
    let detach = asg.detach_load_balancer_target_groups();
    let detach = detach
        .auto_scaling_group_name("kept")
        .target_group_arns(&arm.other_group);
    detach.send().await.unwrap();
    assert_eq!(arm.targets(&arm.other_group).await, 0);

    let end = asg
        .terminate_instance_in_auto_scaling_group()
        .instance_id(&first);
    end.should_decrement_desired_capacity(true)
        .send()
        .await
        .unwrap();
    arm.until_size("kept", there - 1).await;
    let delete = || {
        asg.delete_auto_scaling_group()
            .auto_scaling_group_name("kept")
    };
    if !arm.is_moto {
        let refused = delete().send().await.unwrap_err();
        assert!(
            code_of(&refused).starts_with("ResourceInUse"),
            "{refused:?}"
        );
    }
    delete().force_delete(true).send().await.unwrap();
    arm.until_gone("kept").await;
}

/// Every body.
pub async fn run_all(arm: &AsgArm<'_>) {
    a_template_has_its_name_alone_until_it_is_deleted(arm).await;
    a_group_shows_what_it_was_made_with_and_follows_its_size(arm).await;
    protection_processes_and_hooks_of_a_group_are_kept(arm).await;
    group_parts::a_template_of_a_configuration_launches_what_the_configuration_does(arm).await;
    group_parts::metrics_and_warm_pool_of_a_group_are_shown(arm).await;
}

/// The bodies against moto's server.
pub async fn run_against_moto(aws: &AwsApi, vpc: &str, subnets: &[String]) {
    let mut groups = Vec::new();
    for name in ["own", "other"] {
        let made = aws.elb.create_target_group().name(name).port(30080);
        let made = made.protocol("HTTP".into()).target_type("instance".into());
        let made = made.vpc_id(vpc).send().await.unwrap();
        let made = made.target_groups.unwrap_or_default().remove(0);
        groups.push(made.target_group_arn.unwrap());
    }
    let arm = AsgArm {
        aws,
        subnets: subnets.to_vec(),
        image: "ami-12345678".to_owned(),
        target_group: groups[0].clone(),
        other_group: groups[1].clone(),
        is_moto: true,
        pause: Duration::from_millis(20),
    };
    group_parts::make_configuration(&arm).await;
    run_all(&arm).await;
    for arn in groups {
        let delete = aws.elb.delete_target_group().target_group_arn(arn);
        delete.send().await.unwrap();
    }
}

mod of_the_twin {
    use super::*;
    use eksup::model::Clock;
    use eksup::twin::{Twin, scenario};

    async fn run(body: impl AsyncFnOnce(&AsgArm<'_>)) {
        let mut snapshot = scenario::find_scenario("self-managed").unwrap();
        let configurations = "autoscaling:DescribeLaunchConfigurations".to_owned();
        let configurations = snapshot.aws.entry(configurations).or_default();
        configurations.push(group_parts::configuration_item());
        let twin = Twin::start(scenario::load_world(&snapshot, 3));
        let clock = Clock::starting_at(snapshot.inventory.taken_at);
        let aws = AwsApi::over_wire(twin.wire(), "us-east-1", &clock);
        let groups = &snapshot.inventory.target_groups;
        let arm = AsgArm {
            aws: &aws,
            subnets: snapshot
                .inventory
                .subnets
                .iter()
                .map(|s| s.id.clone())
                .collect(),
            image: snapshot.inventory.instances[3].image.clone().unwrap(),
            // The group of no rule loses its targets at once, as moto's do.
            target_group: groups[1].arn.clone(),
            other_group: groups[1].arn.clone(),
            is_moto: false,
            pause: Duration::from_secs(5),
        };
        body(&arm).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_template_has_its_name_alone_until_it_is_deleted() {
        run(super::a_template_has_its_name_alone_until_it_is_deleted).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_shows_what_it_was_made_with_and_follows_its_size() {
        run(super::a_group_shows_what_it_was_made_with_and_follows_its_size).await;
    }

    #[tokio::test(start_paused = true)]
    async fn protection_processes_and_hooks_of_a_group_are_kept() {
        run(super::protection_processes_and_hooks_of_a_group_are_kept).await;
    }
    #[tokio::test(start_paused = true)]
    async fn a_template_of_a_configuration_launches_what_the_configuration_does() {
        run(group_parts::a_template_of_a_configuration_launches_what_the_configuration_does).await;
    }

    #[tokio::test(start_paused = true)]
    async fn metrics_and_warm_pool_of_a_group_are_shown() {
        run(group_parts::metrics_and_warm_pool_of_a_group_are_shown).await;
    }
}
