//! Calls about Auto Scaling groups of one's own and their launch templates, asked directly of a twin, so that requests and
//! answers are in the record too.

use aws_sdk_autoscaling::types::{
    InstancesDistribution, LaunchTemplate, LaunchTemplateOverrides, LaunchTemplateSpecification,
    LifecycleHookSpecification, MixedInstancesPolicy, Tag,
};
use aws_sdk_ec2::types::{
    LaunchTemplateBlockDeviceMappingRequest, LaunchTemplateEbsBlockDeviceRequest,
    LaunchTemplateIamInstanceProfileSpecificationRequest,
    LaunchTemplateInstanceMetadataOptionsRequest, LaunchTemplateTagSpecificationRequest,
    RequestLaunchTemplateData, ResourceType, TagSpecification,
};
use eksup::aws::AwsApi;
use eksup::aws::launch_configuration::TemplateOfConfiguration;
use eksup::model::warm_pool::WarmPool;
use eksup::twin::scenario;
use eksup::wire::Wire;

use super::fixture::ask_twin;
use crate::launch_configuration::{self, CONFIGURATION};

const BLUE: &str = "data-blue";
const GREEN: &str = "data-green";

/// Asks over a twin's wire, with `around` put around it.
pub fn ask(around: &(dyn Fn(Wire) -> Wire + Sync)) {
    let snapshot = scenario::find_scenario("self-managed").unwrap();
    ask_twin(&snapshot, around, async |aws, _| {
        read_all(aws).await;
        let id = make_template(aws).await;
        make_group(aws, &id).await;
        change_group(aws).await;
        retire_group(aws, &id).await;
    });
    ask_twin(&launch_configuration::cluster(), around, async |aws, _| {
        template_of_configuration(aws).await;
    });
}

async fn wait(seconds: u64) {
    tokio::time::sleep(std::time::Duration::from_secs(seconds)).await;
}

/// What a group that launches from a launch configuration is cloned by.
async fn template_of_configuration(aws: &AwsApi) {
    let name = "eksup-data-green";
    let version = aws.describe_launch_configuration(CONFIGURATION).await;
    assert!(version.unwrap().user_data.is_some());
    assert!(aws.find_launch_template(name).await.unwrap().is_none());
    let asked = TemplateOfConfiguration {
        configuration: CONFIGURATION,
        name,
        image: "ami-0123456789abcdef0",
        tags: &[("team".to_owned(), "web".to_owned())].into(),
    };
    let made = aws.create_template_of_configuration(&asked, "token");
    made.await.unwrap();
    let made = aws.find_launch_template(name).await.unwrap().unwrap();
    assert_eq!(made.tags, *asked.tags);
    aws.delete_launch_template(&made.id).await.unwrap();
    assert!(aws.find_launch_template(name).await.unwrap().is_none());
}

/// What is read before a group is cloned.
async fn read_all(aws: &AwsApi) {
    let asg = &aws.asg;
    let groups = asg.describe_auto_scaling_groups().send().await.unwrap();
    assert_eq!(groups.auto_scaling_groups().len(), 3);
    for name in [BLUE, "web-blue"] {
        asg.describe_lifecycle_hooks()
            .auto_scaling_group_name(name)
            .send()
            .await
            .unwrap();
        asg.describe_warm_pool()
            .auto_scaling_group_name(name)
            .send()
            .await
            .unwrap();
        asg.describe_policies()
            .auto_scaling_group_name(name)
            .send()
            .await
            .unwrap();
        asg.describe_scheduled_actions()
            .auto_scaling_group_name(name)
            .send()
            .await
            .unwrap();
        let told = asg.describe_notification_configurations();
        told.auto_scaling_group_names(name).send().await.unwrap();
        asg.describe_scaling_activities()
            .auto_scaling_group_name(name)
            .send()
            .await
            .unwrap();
    }
    asg.describe_launch_configurations().send().await.unwrap();
    let versions = aws.ec2.describe_launch_template_versions();
    let versions = versions
        .launch_template_name("web-nodes")
        .versions("$Latest");
    versions.send().await.unwrap();
    let entries = aws.eks.list_access_entries().cluster_name("self-managed");
    for principal in entries.send().await.unwrap().access_entries() {
        let entry = aws.eks.describe_access_entry().cluster_name("self-managed");
        entry.principal_arn(principal).send().await.unwrap();
    }
    let profile = |name: &str| aws.iam.get_instance_profile().instance_profile_name(name);
    profile("self-managed-nodes").send().await.unwrap();
    profile("absent").send().await.unwrap_err();
}

async fn make_template(aws: &AwsApi) -> String {
    let tag = aws_sdk_ec2::types::Tag::builder()
        .key("eksup.dev/run")
        .value("run-1")
        .build();
    let data = RequestLaunchTemplateData::builder()
        .image_id("ami-0123456789abcdef0")
        .instance_type("t3.large".into())
        .user_data("IyEvYmluL2Jhc2gK")
        .security_group_ids("sg-bb076c4f565bce23e")
        .iam_instance_profile(
            LaunchTemplateIamInstanceProfileSpecificationRequest::builder()
                .name("self-managed-nodes")
                .build(),
        )
        .block_device_mappings(
            LaunchTemplateBlockDeviceMappingRequest::builder()
                .device_name("/dev/xvda")
                .ebs(
                    LaunchTemplateEbsBlockDeviceRequest::builder()
                        .volume_size(50)
                        .build(),
                )
                .build(),
        )
        .metadata_options(
            LaunchTemplateInstanceMetadataOptionsRequest::builder()
                .http_put_response_hop_limit(2)
                .build(),
        )
        .tag_specifications(
            LaunchTemplateTagSpecificationRequest::builder()
                .resource_type(ResourceType::Instance)
                .tags(tag.clone())
                .build(),
        )
        .build();
    let of_template = TagSpecification::builder()
        .resource_type(ResourceType::LaunchTemplate)
        .tags(tag)
        .build();
    let make = || {
        let make = aws
            .ec2
            .create_launch_template()
            .launch_template_name("data-green-nodes");
        let make = make
            .client_token("once")
            .tag_specifications(of_template.clone());
        make.launch_template_data(data.clone())
    };
    let made = make().send().await.unwrap().launch_template.unwrap();
    let again = make().send().await.unwrap().launch_template.unwrap();
    assert_eq!(made.launch_template_id, again.launch_template_id);
    let id = made.launch_template_id.unwrap();
    let other = RequestLaunchTemplateData::builder()
        .instance_type("t3.xlarge".into())
        .build();
    let version = aws
        .ec2
        .create_launch_template_version()
        .launch_template_id(&id);
    let version = version.source_version("1").launch_template_data(other);
    version.send().await.unwrap();
    let default = aws.ec2.modify_launch_template().launch_template_id(&id);
    default.default_version("2").send().await.unwrap();
    let versions = aws
        .ec2
        .describe_launch_template_versions()
        .launch_template_id(&id);
    assert_eq!(
        versions
            .send()
            .await
            .unwrap()
            .launch_template_versions()
            .len(),
        2
    );
    let drop = aws
        .ec2
        .delete_launch_template_versions()
        .launch_template_id(&id);
    drop.versions("1").versions("7").send().await.unwrap();
    id
}

async fn make_group(aws: &AwsApi, template: &str) {
    let base = LaunchTemplateSpecification::builder()
        .launch_template_id(template)
        .version("$Latest")
        .build();
    let overrides = LaunchTemplateOverrides::builder()
        .instance_type("t3.xlarge")
        .build();
    let policy = MixedInstancesPolicy::builder()
        .launch_template(
            LaunchTemplate::builder()
                .launch_template_specification(base)
                .overrides(overrides)
                .build(),
        )
        .instances_distribution(
            InstancesDistribution::builder()
                .on_demand_base_capacity(1)
                .on_demand_percentage_above_base_capacity(50)
                .build(),
        )
        .build();
    let subnets = aws.ec2.describe_subnets().send().await.unwrap();
    let subnets: Vec<&str> = subnets
        .subnets()
        .iter()
        .filter_map(|s| s.subnet_id())
        .collect();
    let groups = aws.elb.describe_target_groups().send().await.unwrap();
    let green = groups.target_groups()[1].target_group_arn().unwrap();
    let hook = LifecycleHookSpecification::builder()
        .lifecycle_hook_name("hello")
        .lifecycle_transition("autoscaling:EC2_INSTANCE_LAUNCHING")
        .heartbeat_timeout(60)
        .default_result("CONTINUE")
        .build();
    let tag = Tag::builder()
        .key("kubernetes.io/cluster/self-managed")
        .value("owned")
        .propagate_at_launch(true)
        .build();
    let make = || {
        aws.asg
            .create_auto_scaling_group()
            .auto_scaling_group_name(GREEN)
            .mixed_instances_policy(policy.clone())
            .vpc_zone_identifier(subnets.join(","))
            .min_size(2)
            .max_size(4)
            .target_group_arns(green)
            .health_check_type("ELB")
            .health_check_grace_period(600)
            .termination_policies("OldestInstance")
            .new_instances_protected_from_scale_in(true)
            .capacity_rebalance(true)
            .lifecycle_hook_specification_list(hook.clone())
            .tags(tag.clone())
    };
    make().send().await.unwrap();
    make().send().await.unwrap_err();
    let nothing = aws
        .asg
        .create_auto_scaling_group()
        .auto_scaling_group_name("x");
    nothing.min_size(1).max_size(1).send().await.unwrap_err();
    wait(200).await;
    let found = aws
        .asg
        .describe_auto_scaling_groups()
        .auto_scaling_group_names(GREEN);
    let found = found.send().await.unwrap();
    assert_eq!(found.auto_scaling_groups()[0].instances().len(), 2);
    let instances = aws.ec2.describe_instances().send().await.unwrap();
    assert!(instances.reservations().len() >= 11);
    aws.asg
        .describe_auto_scaling_instances()
        .send()
        .await
        .unwrap();
}

async fn change_group(aws: &AwsApi) {
    let asg = &aws.asg;
    let hook = asg.put_lifecycle_hook().auto_scaling_group_name(GREEN);
    let hook = hook.lifecycle_hook_name("bye").heartbeat_timeout(300);
    let hook = hook.lifecycle_transition("autoscaling:EC2_INSTANCE_TERMINATING");
    hook.send().await.unwrap();
    let metrics = asg
        .enable_metrics_collection()
        .auto_scaling_group_name(GREEN);
    metrics.granularity("1Minute").send().await.unwrap();
    let metrics = asg
        .disable_metrics_collection()
        .auto_scaling_group_name(GREEN);
    metrics.metrics("GroupMinSize").send().await.unwrap();
    let pool = WarmPool {
        min: 1,
        max_prepared: None,
        state: "Stopped".to_owned(),
        reuse: true,
    };
    aws.put_warm_pool(BLUE, &pool).await.unwrap();
    let told = aws.describe_warm_pool(BLUE).await.unwrap().unwrap();
    assert_eq!((told.pool, told.deleting), (pool, false));
    assert!(!told.instances.is_empty());
    let refused = asg.delete_warm_pool().auto_scaling_group_name(BLUE);
    refused.send().await.unwrap_err();
    let forced = asg.delete_warm_pool().auto_scaling_group_name(BLUE);
    forced.force_delete(true).send().await.unwrap();
    let none = asg.delete_warm_pool().auto_scaling_group_name(GREEN);
    none.send().await.unwrap_err();
    let told = asg
        .put_notification_configuration()
        .auto_scaling_group_name(GREEN);
    let told = told.topic_arn("arn:aws:sns:us-east-1:123456789012:nodes");
    told.notification_types("autoscaling:EC2_INSTANCE_LAUNCH")
        .send()
        .await
        .unwrap();
    asg.describe_notification_configurations()
        .send()
        .await
        .unwrap();
    let policy = asg.put_scaling_policy().auto_scaling_group_name(GREEN);
    let policy = policy
        .policy_name("more")
        .adjustment_type("ChangeInCapacity");
    policy.scaling_adjustment(1).send().await.unwrap();
    asg.describe_policies().send().await.unwrap();
    let action = asg
        .put_scheduled_update_group_action()
        .auto_scaling_group_name(GREEN);
    let action = action
        .scheduled_action_name("night")
        .recurrence("0 22 * * *");
    action.min_size(0).send().await.unwrap();
    asg.describe_scheduled_actions().send().await.unwrap();
    let suspend = asg.suspend_processes().auto_scaling_group_name(GREEN);
    suspend
        .scaling_processes("AZRebalance")
        .send()
        .await
        .unwrap();
    let found = asg
        .describe_auto_scaling_groups()
        .auto_scaling_group_names(GREEN);
    found.send().await.unwrap();
    let resume = asg.resume_processes().auto_scaling_group_name(GREEN);
    resume.send().await.unwrap();
}

async fn retire_group(aws: &AwsApi, template: &str) {
    let asg = &aws.asg;
    let delete = || {
        asg.delete_auto_scaling_group()
            .auto_scaling_group_name(GREEN)
    };
    delete().send().await.unwrap_err();
    let found = asg
        .describe_auto_scaling_groups()
        .auto_scaling_group_names(GREEN);
    let found = found.send().await.unwrap();
    let ids = found.auto_scaling_groups()[0].instances().iter();
    let ids: Vec<String> = ids
        .filter_map(|i| i.instance_id().map(str::to_owned))
        .collect();
    let open = asg.set_instance_protection().auto_scaling_group_name(GREEN);
    let open = open
        .set_instance_ids(Some(ids.clone()))
        .protected_from_scale_in(false);
    open.send().await.unwrap();
    let resize = asg
        .update_auto_scaling_group()
        .auto_scaling_group_name(GREEN);
    resize
        .min_size(1)
        .max_size(2)
        .desired_capacity(2)
        .send()
        .await
        .unwrap();
    let end = asg
        .terminate_instance_in_auto_scaling_group()
        .instance_id(&ids[0]);
    end.should_decrement_desired_capacity(true)
        .send()
        .await
        .unwrap();
    wait(30).await;
    let beat = asg
        .record_lifecycle_action_heartbeat()
        .auto_scaling_group_name(GREEN);
    let beat = beat.lifecycle_hook_name("bye").instance_id(&ids[0]);
    beat.send().await.unwrap();
    let answer = asg
        .complete_lifecycle_action()
        .auto_scaling_group_name(GREEN);
    let answer = answer.lifecycle_hook_name("bye").instance_id(&ids[0]);
    answer
        .lifecycle_action_result("CONTINUE")
        .send()
        .await
        .unwrap();
    let drop = asg.delete_lifecycle_hook().auto_scaling_group_name(GREEN);
    drop.lifecycle_hook_name("bye").send().await.unwrap();
    wait(60).await;
    asg.describe_scaling_activities()
        .auto_scaling_group_name(GREEN)
        .send()
        .await
        .unwrap();
    delete().force_delete(true).send().await.unwrap();
    let found = asg
        .describe_auto_scaling_groups()
        .auto_scaling_group_names(GREEN);
    found.send().await.unwrap();
    wait(200).await;
    delete().send().await.unwrap_err();
    let gone = aws
        .ec2
        .delete_launch_template()
        .launch_template_id(template);
    gone.send().await.unwrap();
    let gone = aws
        .ec2
        .delete_launch_template()
        .launch_template_id(template);
    gone.send().await.unwrap_err();
}
