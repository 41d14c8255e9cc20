//! What a clone of a group takes over beside the group itself, by the product's own calls: what a launch configuration
//! launches, metrics, and a warm pool.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::ResponseLaunchTemplateData;
use eksup::aws::launch_configuration::TemplateOfConfiguration;
use eksup::model::warm_pool::WarmPool;

use super::AsgArm;

/// A launch configuration that is there.
pub const CONFIGURATION: &str = "configured-nodes";
const USER_DATA: &str = "IyEvYmluL2Jhc2gK";

/// A template made of a launch configuration launches what that does, with another image.
pub async fn a_template_of_a_configuration_launches_what_the_configuration_does(arm: &AsgArm<'_>) {
    let tags = BTreeMap::from([("who".to_owned(), "us".to_owned())]);
    let asked = TemplateOfConfiguration {
        configuration: CONFIGURATION,
        name: "of-configuration",
        image: "ami-0123456789abcdef0",
        tags: &tags,
    };
    assert!(
        arm.aws
            .has_launch_configuration(CONFIGURATION)
            .await
            .unwrap()
    );
    let made = arm.aws.create_template_of_configuration(&asked, "token-1");
    made.await.unwrap();
    let found = arm.aws.ec2.describe_launch_template_versions();
    let found = found.launch_template_name("of-configuration");
    let found = found.versions("$Latest").send().await.unwrap();
    let data: &ResponseLaunchTemplateData = found.launch_template_versions()[0]
        .launch_template_data()
        .unwrap();
    assert_eq!(data.image_id(), Some("ami-0123456789abcdef0"));
    assert_eq!(
        data.instance_type().map(|t| t.as_str().to_owned()),
        Some("t3.large".to_owned())
    );
    assert_eq!(data.user_data(), Some(USER_DATA));
    assert_eq!(data.key_name(), Some("admin"));
    assert_eq!(data.iam_instance_profile().unwrap().name(), Some("nodes"));
    assert_eq!(data.ebs_optimized(), Some(true));
    let device = &data.block_device_mappings()[0];
    let size = device.ebs().and_then(|e| e.volume_size());
    assert_eq!((device.device_name(), size), (Some("/dev/xvda"), Some(40)));
    // It shows its tags, by which a run knows its own.
    let template = arm.aws.find_launch_template("of-configuration").await;
    let template = template.unwrap().unwrap();
    assert_eq!(template.tags, tags);
    let gone = || arm.aws.delete_launch_template(&template.id);
    gone().await.unwrap();
    gone().await.unwrap();
    let after = arm.aws.find_launch_template("of-configuration").await;
    assert!(after.unwrap().is_none());
    let nobody = arm.aws.has_launch_configuration("nobody").await;
    assert!(!nobody.unwrap());
}

/// Metrics and a warm pool show on the group that was given them.
pub async fn metrics_and_warm_pool_of_a_group_are_shown(arm: &AsgArm<'_>) {
    let template = arm.template("pooled-nodes").await;
    let made = arm.aws.asg.create_auto_scaling_group();
    made.auto_scaling_group_name("pooled")
        .launch_template(template)
        .vpc_zone_identifier(arm.subnets.join(","))
        .min_size(0)
        .max_size(3)
        .desired_capacity(0)
        .send()
        .await
        .unwrap();
    let metrics = ["GroupDesiredCapacity", "GroupInServiceInstances"].map(str::to_owned);
    arm.aws.collect_metrics("pooled", &metrics).await.unwrap();
    let group = arm.find("pooled").await.unwrap();
    let mut shown: Vec<&str> = { group.enabled_metrics().iter() }
        .filter_map(|m| m.metric())
        .collect();
    shown.sort_unstable();
    assert_eq!(shown, metrics);

    assert_eq!(arm.aws.describe_warm_pool("pooled").await.unwrap(), None);
    let pool = WarmPool {
        min: 0,
        max_prepared: Some(0),
        state: "Running".to_owned(),
        reuse: true,
    };
    arm.aws.put_warm_pool("pooled", &pool).await.unwrap();
    let read = arm.aws.describe_warm_pool("pooled").await.unwrap().unwrap();
    assert_eq!(read.pool, pool);
    // Sent again without a limit, none of the earlier one stays.
    let open = WarmPool {
        max_prepared: None,
        reuse: false,
        ..pool
    };
    arm.aws
        .put_warm_pool("pooled", &open.emptied())
        .await
        .unwrap();
    let read = arm.aws.describe_warm_pool("pooled").await.unwrap().unwrap();
    assert!(read.pool.keeps_none() && !read.pool.reuse, "{read:?}");
    arm.aws.delete_empty_warm_pool("pooled").await.unwrap();
    for _ in 0..200 {
        if arm
            .aws
            .describe_warm_pool("pooled")
            .await
            .unwrap()
            .is_none()
        {
            break;
        }
        tokio::time::sleep(arm.pause).await;
    }
    assert_eq!(arm.aws.describe_warm_pool("pooled").await.unwrap(), None);
    let gone = arm.aws.asg.delete_auto_scaling_group();
    let gone = gone.auto_scaling_group_name("pooled");
    gone.send().await.unwrap();
    arm.until_gone("pooled").await;
}

/// Makes the configuration where Auto Scaling can be asked to: at moto.
pub async fn make_configuration(arm: &AsgArm<'_>) {
    let ebs = aws_sdk_autoscaling::types::Ebs::builder().volume_size(40);
    let device = aws_sdk_autoscaling::types::BlockDeviceMapping::builder();
    let device = device.device_name("/dev/xvda").ebs(ebs.build()).build();
    let made = arm.aws.asg.create_launch_configuration();
    made.launch_configuration_name(CONFIGURATION)
        .image_id(&arm.image)
        .instance_type("t3.large")
        .user_data(USER_DATA)
        .key_name("admin")
        .iam_instance_profile("nodes")
        .ebs_optimized(true)
        .block_device_mappings(device)
        .send()
        .await
        .unwrap();
}

/// The same configuration as DescribeLaunchConfigurations spells it, for a snapshot.
pub fn configuration_item() -> serde_json::Value {
    serde_json::json!({
        "LaunchConfigurationName": CONFIGURATION,
        "ImageId": "ami-12345678",
        "InstanceType": "t3.large",
        "UserData": USER_DATA,
        "KeyName": "admin",
        "IamInstanceProfile": "nodes",
        "EbsOptimized": true,
        "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 40}}],
    })
}
