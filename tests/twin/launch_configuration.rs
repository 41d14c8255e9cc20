//! A group that launches from a launch configuration, the older way.

use eksup::model::snapshot::Snapshot;
use eksup::twin::scenario;
use serde_json::{Map, Value, json};

/// The group, and its launch configuration.
pub const GROUP: &str = "data-blue";
pub const CONFIGURATION: &str = "data-nodes";

/// The bundled cluster `self-managed`, with a launch configuration in place of the template of [`GROUP`].
pub fn with_launch_configuration(mut snapshot: Snapshot) -> Snapshot {
    let templates = snapshot.aws.get_mut("ec2:LaunchTemplates").unwrap();
    let place = templates
        .iter()
        .position(|t| t["LaunchTemplateName"] == CONFIGURATION)
        .unwrap();
    let template = templates.remove(place);
    let data = &template["Versions"][0]["LaunchTemplateData"];
    // As DescribeLaunchConfigurations spells it.
    let configuration = json!({
        "LaunchConfigurationName": CONFIGURATION,
        "ImageId": data["ImageId"],
        "InstanceType": data["InstanceType"],
        "UserData": data["UserData"],
        "IamInstanceProfile": data["IamInstanceProfile"]["Arn"],
        "SecurityGroups": data["SecurityGroupId"],
        "BlockDeviceMappings": [
            {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 4, "VolumeType": "gp3"}},
            {"DeviceName": "/dev/xvdb", "Ebs": {"VolumeSize": 50, "VolumeType": "gp3", "Encrypted": true, "DeleteOnTermination": true}},
        ],
        "AssociatePublicIpAddress": false,
        "InstanceMonitoring": {"Enabled": false},
        "EbsOptimized": true,
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 2, "HttpEndpoint": "enabled"},
    });
    put_configuration(&mut snapshot, configuration);
    let launches_from = |item: &mut Map<String, Value>| {
        item.remove("LaunchTemplate").unwrap();
        item.insert("LaunchConfigurationName".to_owned(), json!(CONFIGURATION));
    };
    let groups = "autoscaling:DescribeAutoScalingGroups";
    let groups = snapshot.aws.get_mut(groups).unwrap();
    let group = groups
        .iter_mut()
        .find(|g| g["AutoScalingGroupName"] == GROUP)
        .unwrap();
    launches_from(group.as_object_mut().unwrap());
    for instance in group["Instances"].as_array_mut().unwrap() {
        launches_from(instance.as_object_mut().unwrap());
    }
    for instance in &mut snapshot.inventory.instances {
        if instance
            .tags
            .get("aws:autoscaling:groupName")
            .map(String::as_str)
            == Some(GROUP)
        {
            instance
                .tags
                .retain(|key, _| !key.starts_with("aws:ec2launchtemplate:"));
        }
    }
    snapshot
}

fn put_configuration(snapshot: &mut Snapshot, configuration: Value) {
    let op = "autoscaling:DescribeLaunchConfigurations".to_owned();
    snapshot.aws.entry(op).or_default().push(configuration);
}

/// [`with_launch_configuration`] of the bundled cluster.
pub fn cluster() -> Snapshot {
    with_launch_configuration(scenario::find_scenario("self-managed").unwrap())
}
