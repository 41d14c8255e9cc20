use aws_sdk_autoscaling::types::{Tag as AsgTag, TrafficSourceIdentifier};
use aws_sdk_ec2::types::{Filter, LocationType, RequestLaunchTemplateData};

use super::sdk::{BLUE, expense_dev, said, seconds};

#[tokio::test(start_paused = true)]
async fn a_launch_template_version_is_its_source_with_the_changes_over_it() {
    let asked = expense_dev();
    let id = asked
        .twin
        .with_world(|w| w.cloud.templates.keys().next().unwrap().clone());
    let request = || {
        let data = RequestLaunchTemplateData::builder()
            .image_id("ami-new")
            .user_data("aGVsbG8=")
            .build();
        asked
            .ec2
            .create_launch_template_version()
            .launch_template_id(&id)
            .source_version("1")
            .version_description("for 1.29")
            .client_token("once")
            .launch_template_data(data)
    };
    let made = request()
        .send()
        .await
        .unwrap()
        .launch_template_version
        .unwrap();
    assert_eq!(made.version_number, Some(2));
    let again = request()
        .send()
        .await
        .unwrap()
        .launch_template_version
        .unwrap();
    assert_eq!(again.version_number, Some(2));
    let data = made.launch_template_data.unwrap();
    assert_eq!(
        (
            data.image_id(),
            data.user_data(),
            data.instance_type().unwrap().as_str()
        ),
        (Some("ami-new"), Some("aGVsbG8="), "t3.large")
    );
    let all = asked
        .ec2
        .describe_launch_template_versions()
        .launch_template_id(&id)
        .send()
        .await
        .unwrap();
    let numbers: Vec<_> = all
        .launch_template_versions()
        .iter()
        .map(|v| v.version_number.unwrap())
        .collect();
    assert_eq!(numbers, [2, 1]);
    let latest = asked
        .ec2
        .describe_launch_template_versions()
        .launch_template_id(&id)
        .versions("$Latest")
        .send()
        .await
        .unwrap();
    assert_eq!(
        latest.launch_template_versions()[0].version_description(),
        Some("for 1.29")
    );
    let missing = asked
        .ec2
        .describe_launch_template_versions()
        .launch_template_id(&id)
        .versions("9")
        .send()
        .await
        .unwrap_err();
    assert_eq!(said(missing).0, "InvalidLaunchTemplateId.VersionNotFound");
    let templates = asked
        .ec2
        .describe_launch_templates()
        .launch_template_ids(&id)
        .send()
        .await
        .unwrap();
    assert_eq!(
        templates.launch_templates()[0].latest_version_number,
        Some(2)
    );
}

#[tokio::test(start_paused = true)]
async fn ec2_says_what_there_is_and_names_what_there_is_not() {
    let asked = expense_dev();
    let instances = asked
        .ec2
        .describe_instances()
        .filters(
            Filter::builder()
                .name("tag:eks:nodegroup-name")
                .values(BLUE)
                .build(),
        )
        .send()
        .await
        .unwrap();
    let all: Vec<_> = instances
        .reservations()
        .iter()
        .flat_map(|r| r.instances())
        .collect();
    assert_eq!(all.len(), 3);
    assert!(
        all.iter()
            .all(|i| i.state().unwrap().name().unwrap().as_str() == "running"
                && i.private_dns_name().unwrap().ends_with(".ec2.internal"))
    );
    let error = asked
        .ec2
        .describe_instances()
        .instance_ids("i-00000000000000000")
        .send()
        .await
        .unwrap_err();
    assert_eq!(said(error).0, "InvalidInstanceID.NotFound");
    let subnets = asked.ec2.describe_subnets().send().await.unwrap();
    assert_eq!(subnets.subnets().len(), 3);
    assert!(subnets.subnets().iter().all(
        |s| s.available_ip_address_count() == Some(8186) && s.availability_zone_id().is_some()
    ));
    let offers = asked
        .ec2
        .describe_instance_type_offerings()
        .location_type(LocationType::AvailabilityZone)
        .filters(
            Filter::builder()
                .name("instance-type")
                .values("t3.large")
                .build(),
        )
        .send()
        .await
        .unwrap();
    assert_eq!(offers.instance_type_offerings().len(), 3);
    let types = asked
        .ec2
        .describe_instance_types()
        .instance_types("t3.large".into())
        .send()
        .await
        .unwrap();
    assert_eq!(
        types.instance_types()[0]
            .v_cpu_info()
            .unwrap()
            .default_v_cpus(),
        Some(2)
    );
    let volumes = asked.ec2.describe_volumes().send().await.unwrap();
    assert_eq!(volumes.volumes().len(), 1);
    let groups = asked.ec2.describe_security_groups().send().await.unwrap();
    assert_eq!(groups.security_groups().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn public_parameters_lead_to_images_that_ec2_knows() {
    let asked = expense_dev();
    let name = "/aws/service/eks/optimized-ami/1.29/amazon-linux-2023/x86_64/standard/recommended/image_id";
    let image = asked
        .ssm
        .get_parameter()
        .name(name)
        .send()
        .await
        .unwrap()
        .parameter
        .unwrap()
        .value
        .unwrap();
    let found = asked
        .ec2
        .describe_images()
        .image_ids(&image)
        .send()
        .await
        .unwrap();
    assert!(found.images()[0].name().unwrap().contains("-1.29-"));
    let error = asked.ssm.get_parameter().name("/aws/service/eks/optimized-ami/1.99/amazon-linux-2023/x86_64/standard/recommended/image_id").send().await.unwrap_err();
    assert!(error.into_service_error().is_parameter_not_found());
    let both = asked
        .ssm
        .get_parameters()
        .names(name)
        .names("/nope")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (both.parameters().len(), both.invalid_parameters()),
        (1, &["/nope".to_owned()][..])
    );
}

#[tokio::test(start_paused = true)]
async fn tags_and_suspended_processes_of_a_group_are_kept() {
    let asked = expense_dev();
    let asg = asked.asg_of(BLUE).await;
    let tag = AsgTag::builder()
        .resource_id(&asg)
        .resource_type("auto-scaling-group")
        .key("cost")
        .value("7")
        .propagate_at_launch(true)
        .build();
    asked
        .asg
        .create_or_update_tags()
        .tags(tag.clone())
        .send()
        .await
        .unwrap();
    asked
        .asg
        .suspend_processes()
        .auto_scaling_group_name(&asg)
        .scaling_processes("AZRebalance")
        .send()
        .await
        .unwrap();
    let group = || async {
        asked
            .asg
            .describe_auto_scaling_groups()
            .auto_scaling_group_names(&asg)
            .send()
            .await
            .unwrap()
            .auto_scaling_groups
            .unwrap()
            .remove(0)
    };
    let now = group().await;
    assert!(now.tags().iter().any(|t| t.key() == Some("cost")
        && t.value() == Some("7")
        && t.propagate_at_launch() == Some(true)));
    assert_eq!(
        now.suspended_processes()[0].process_name(),
        Some("AZRebalance")
    );
    asked.asg.delete_tags().tags(tag).send().await.unwrap();
    asked
        .asg
        .resume_processes()
        .auto_scaling_group_name(&asg)
        .scaling_processes("AZRebalance")
        .send()
        .await
        .unwrap();
    let now = group().await;
    assert!(
        now.suspended_processes().is_empty() && !now.tags().iter().any(|t| t.key() == Some("cost"))
    );
    let error = asked
        .asg
        .suspend_processes()
        .auto_scaling_group_name("nope")
        .send()
        .await
        .unwrap_err();
    assert_eq!(said(error).0, "ValidationError");
    assert_eq!(
        asked
            .asg
            .describe_lifecycle_hooks()
            .auto_scaling_group_name(&asg)
            .send()
            .await
            .unwrap()
            .lifecycle_hooks()
            .len(),
        2
    );
    assert_eq!(
        asked.asg.describe_tags().send().await.unwrap().tags().len(),
        5
    );
}

#[tokio::test(start_paused = true)]
async fn a_target_group_attached_to_a_group_gets_its_instances_and_loses_them_when_detached() {
    let asked = expense_dev();
    let (asg, green) = (asked.asg_of(BLUE).await, asked.group("expense-green-tg"));
    let source = TrafficSourceIdentifier::builder()
        .identifier(&green)
        .r#type("elbv2")
        .build();
    asked
        .asg
        .attach_traffic_sources()
        .auto_scaling_group_name(&asg)
        .traffic_sources(source.clone())
        .send()
        .await
        .unwrap();
    let health = asked
        .elb
        .describe_target_health()
        .target_group_arn(&green)
        .send()
        .await
        .unwrap();
    let reasons: Vec<_> = health
        .target_health_descriptions()
        .iter()
        .map(|t| t.target_health().unwrap().reason().unwrap().as_str())
        .collect();
    assert_eq!(reasons, ["Target.NotInUse"; 3]);
    let sources = asked
        .asg
        .describe_traffic_sources()
        .auto_scaling_group_name(&asg)
        .send()
        .await
        .unwrap();
    assert_eq!(sources.traffic_sources().len(), 2);
    asked
        .asg
        .detach_traffic_sources()
        .auto_scaling_group_name(&asg)
        .traffic_sources(source)
        .send()
        .await
        .unwrap();
    seconds(400).await;
    let sources = asked
        .asg
        .describe_traffic_sources()
        .auto_scaling_group_name(&asg)
        .send()
        .await
        .unwrap();
    assert_eq!(sources.traffic_sources().len(), 1);
    assert_eq!(sources.traffic_sources()[0].state(), Some("InService"));
    let old = asked
        .asg
        .attach_load_balancer_target_groups()
        .auto_scaling_group_name(&asg)
        .target_group_arns("arn:aws:elasticloadbalancing:x")
        .send()
        .await
        .unwrap_err();
    assert_eq!(said(old).0, "ValidationError");
}

#[tokio::test(start_paused = true)]
async fn a_terminated_instance_is_replaced_in_its_zone_and_sizes_have_bounds() {
    let asked = expense_dev();
    let asg = asked.asg_of(BLUE).await;
    let (id, zone) = asked.twin.with_world(|w| {
        w.cloud
            .instances
            .values()
            .map(|i| (i.id.clone(), i.zone.clone()))
            .next()
            .unwrap()
    });
    asked
        .asg
        .terminate_instance_in_auto_scaling_group()
        .instance_id(&id)
        .should_decrement_desired_capacity(false)
        .send()
        .await
        .unwrap();
    seconds(600).await;
    let zones: Vec<String> = asked.twin.with_world(|w| {
        w.cloud
            .instances
            .values()
            .filter(|i| i.state == "running")
            .map(|i| i.zone.clone())
            .collect()
    });
    assert_eq!(zones.len(), 3);
    assert!(zones.contains(&zone));
    let error = asked
        .asg
        .set_desired_capacity()
        .auto_scaling_group_name(&asg)
        .desired_capacity(9)
        .send()
        .await
        .unwrap_err();
    assert!(said(error).1.contains("above max value 6"));
    asked
        .asg
        .set_desired_capacity()
        .auto_scaling_group_name(&asg)
        .desired_capacity(6)
        .send()
        .await
        .unwrap();
    seconds(200).await;
    let mut zones: Vec<String> = asked.twin.with_world(|w| {
        w.cloud
            .instances
            .values()
            .filter(|i| i.state == "running")
            .map(|i| i.zone.clone())
            .collect()
    });
    zones.sort();
    assert_eq!(
        zones,
        [
            "us-east-1a",
            "us-east-1a",
            "us-east-1b",
            "us-east-1b",
            "us-east-1c",
            "us-east-1c"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn zones_out_of_balance_are_rebalanced_unless_that_is_suspended() {
    for suspended in [true, false] {
        let asked = expense_dev();
        let asg = asked.asg_of(BLUE).await;
        asked.fault("insufficient-capacity:us-east-1a");
        if suspended {
            asked
                .asg
                .suspend_processes()
                .auto_scaling_group_name(&asg)
                .scaling_processes("AZRebalance")
                .send()
                .await
                .unwrap();
        }
        let victims: Vec<String> = asked.twin.with_world(|w| {
            w.cloud
                .instances
                .values()
                .filter(|i| i.zone == "us-east-1a")
                .map(|i| i.id.clone())
                .collect()
        });
        asked
            .asg
            .set_desired_capacity()
            .auto_scaling_group_name(&asg)
            .desired_capacity(5)
            .send()
            .await
            .unwrap();
        for id in victims {
            asked
                .asg
                .terminate_instance_in_auto_scaling_group()
                .instance_id(id)
                .should_decrement_desired_capacity(true)
                .send()
                .await
                .unwrap();
        }
        seconds(900).await;
        asked.fault("capacity-back:us-east-1a");
        // Any look of the group at itself will do; setting the size it has makes it look.
        asked
            .asg
            .set_desired_capacity()
            .auto_scaling_group_name(&asg)
            .desired_capacity(4)
            .send()
            .await
            .unwrap();
        seconds(900).await;
        let in_a = asked.twin.with_world(|w| {
            w.cloud
                .instances
                .values()
                .filter(|i| i.zone == "us-east-1a" && i.state == "running")
                .count()
        });
        assert_eq!(in_a == 0, suspended, "{in_a} in us-east-1a");
    }
}
