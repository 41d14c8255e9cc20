//! Self-managed Auto Scaling groups and what they need: templates, instance profiles, access entries. The snapshot has them
//! as AWS answers them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::model::snapshot::Snapshot;
use crate::twin::aws::call::Input;
use crate::twin::aws::ec2::launches::launch_of_version;
use crate::twin::aws::ec2::templates;
use crate::twin::aws::eks::access_kind_for_nodes;
use crate::twin::aws::state::*;

/// Members of DescribeAutoScalingGroups that a group keeps as they are.
const KEPT_MEMBERS: &[&str] = &[
    "AvailabilityZoneDistribution",
    "CapacityRebalance",
    "Context",
    "DefaultCooldown",
    "DefaultInstanceWarmup",
    "DesiredCapacityType",
    "HealthCheckGracePeriod",
    "HealthCheckType",
    "InstanceMaintenancePolicy",
    "MaxInstanceLifetime",
    "NewInstancesProtectedFromScaleIn",
    "PlacementGroup",
    "ServiceLinkedRoleARN",
    "TerminationPolicies",
];

/// Fills the account with what belongs to self-managed groups.
pub fn seed(cloud: &mut AwsAccount, snapshot: &Snapshot) {
    let items = |op: &str| snapshot.aws.get(op).into_iter().flatten();
    for item in items("ec2:LaunchTemplates") {
        seed_template(cloud, snapshot, Input(item));
    }
    for item in items("autoscaling:DescribeLaunchConfigurations") {
        let name = Input(item).get_text("LaunchConfigurationName");
        if let (Some(name), Some(data)) = (name, item.as_object()) {
            let known = &mut cloud.launch_configurations;
            known.insert(name.to_owned(), data.clone());
        }
    }
    for item in items("iam:ListInstanceProfiles") {
        let name = Input(item).get_text("InstanceProfileName");
        let role = item.pointer("/Roles/0/Arn").and_then(Value::as_str);
        if let (Some(name), Some(role)) = (name, role) {
            let known = &mut cloud.instance_profiles;
            known.insert(name.to_owned(), role.to_owned());
        }
    }
    for item in items("autoscaling:DescribeAutoScalingGroups") {
        seed_group(cloud, snapshot, Input(item));
    }
    for (op, of) in [
        (
            "autoscaling:DescribePolicies",
            (|s| &mut s.policies) as fn(&mut GroupSettings) -> &mut Vec<Value>,
        ),
        ("autoscaling:DescribeScheduledActions", |s| &mut s.schedules),
        ("autoscaling:DescribeNotificationConfigurations", |s| {
            &mut s.notifications
        }),
    ] {
        for item in items(op) {
            if let Some(asg) = group_of(cloud, item) {
                of(&mut asg.settings).push(item.clone());
            }
        }
    }
    for item in items("autoscaling:DescribeLifecycleHooks") {
        if let Some(asg) = group_of(cloud, item) {
            asg.hooks.push(item.clone());
        }
    }
    seed_access(cloud, snapshot);
}

fn group_of<'c>(cloud: &'c mut AwsAccount, item: &Value) -> Option<&'c mut AutoScalingGroup> {
    let name = Input(item).get_text("AutoScalingGroupName")?;
    cloud.asgs.get_mut(name)
}

/// A template with its versions, whose data is spelled as requests spell it on the wire.
fn seed_template(cloud: &mut AwsAccount, snapshot: &Snapshot, item: Input) {
    let created = snapshot.inventory.taken_at;
    let Some(id) = item.get_text("LaunchTemplateId") else {
        return;
    };
    let versions = item.get_list("Versions").iter().map(Input);
    let versions = versions.map(|v| Ec2TemplateVersion {
        number: v.get_number("VersionNumber").unwrap_or(1),
        description: v.get_text("VersionDescription").map(str::to_owned),
        data: v
            .get_member("LaunchTemplateData")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default(),
        created,
    });
    let made = Ec2LaunchTemplate {
        id: id.to_owned(),
        name: item.get_text("LaunchTemplateName").unwrap_or(id).to_owned(),
        tags: read_tags(item.get_list("Tags")),
        default: item.get_number("DefaultVersionNumber").unwrap_or(1),
        versions: versions.collect(),
        created,
    };
    cloud.templates.insert(id.to_owned(), made);
}

fn read_tags(tags: &[Value]) -> BTreeMap<String, String> {
    let tags = tags.iter().map(Input);
    tags.filter_map(|t| {
        let value = t.get_text("Value").unwrap_or_default();
        Some((t.get_text("Key")?.to_owned(), value.to_owned()))
    })
    .collect()
}

fn read_source(item: Input) -> LaunchSource {
    let text = |of: Input, member: &str| of.get_text(member).map(str::to_owned);
    if let Some(policy) = item.get_member("MixedInstancesPolicy") {
        return LaunchSource::Mixed(policy.clone());
    }
    if let Some(name) = item.get_text("LaunchConfigurationName") {
        return LaunchSource::Configuration(name.to_owned());
    }
    let template = item.get_input("LaunchTemplate").unwrap_or(item);
    LaunchSource::Template {
        id: text(template, "LaunchTemplateId").unwrap_or_default(),
        version: text(template, "Version").unwrap_or_else(|| "$Default".to_owned()),
    }
}

fn seed_group(cloud: &mut AwsAccount, snapshot: &Snapshot, item: Input) {
    let Some(name) = item.get_text("AutoScalingGroupName") else {
        return;
    };
    let number = |member: &str| item.get_number(member).unwrap_or(0);
    let mut members = BTreeMap::new();
    for instance in item.get_list("Instances").iter().map(Input) {
        let id = instance.get_text("InstanceId").unwrap_or_default();
        let launch = seed_launch(cloud, instance, id);
        let order = cloud.next_number();
        let member = GroupMember {
            zone: instance
                .get_text("AvailabilityZone")
                .unwrap_or_default()
                .to_owned(),
            lifecycle: instance
                .get_text("LifecycleState")
                .unwrap_or("InService")
                .to_owned(),
            number: order,
            protected: instance.get_bool("ProtectedFromScaleIn") == Some(true),
            launch,
            ..GroupMember::default()
        };
        if let Some(known) = cloud.instances.get_mut(id) {
            known.asg = Some(name.to_owned());
        }
        members.insert(id.to_owned(), member);
    }
    let kept = KEPT_MEMBERS
        .iter()
        .filter_map(|m| Some((m, item.get_member(m)?)));
    let settings = GroupSettings {
        members: kept.map(|(m, v)| ((*m).to_owned(), v.clone())).collect(),
        metrics: item
            .get_list("EnabledMetrics")
            .iter()
            .filter_map(|m| Input(m).get_text("Metric").map(str::to_owned))
            .collect(),
        warm_pool: item.get_member("WarmPoolConfiguration").cloned(),
        ..GroupSettings::default()
    };
    let subnets = item.get_text("VPCZoneIdentifier").unwrap_or_default();
    let tags = item.get_list("Tags").iter().map(Input);
    let tags = tags.filter_map(|t| {
        let value = t.get_text("Value").unwrap_or_default().to_owned();
        let propagate = t.get_bool("PropagateAtLaunch").unwrap_or(false);
        Some((t.get_text("Key")?.to_owned(), (value, propagate)))
    });
    let suspended = item.get_list("SuspendedProcesses").iter();
    let made = AutoScalingGroup {
        name: name.to_owned(),
        arn: item
            .get_text("AutoScalingGroupARN")
            .unwrap_or_default()
            .to_owned(),
        min: number("MinSize"),
        max: number("MaxSize"),
        desired: number("DesiredCapacity"),
        subnets: subnets.split(',').map(str::to_owned).collect(),
        source: read_source(item),
        launch: members
            .values()
            .next()
            .map(|m| m.launch.clone())
            .unwrap_or_default(),
        members,
        target_groups: item
            .get_text_list("TargetGroupARNs")
            .into_iter()
            .map(|arn| (arn, "Added".to_owned()))
            .collect(),
        load_balancers: item
            .get_text_list("LoadBalancerNames")
            .into_iter()
            .collect(),
        suspended: suspended
            .filter_map(|p| Input(p).get_text("ProcessName").map(str::to_owned))
            .collect(),
        tags: tags.collect(),
        settings,
        created: snapshot.inventory.taken_at,
        ..AutoScalingGroup::default()
    };
    cloud.asgs.insert(name.to_owned(), made);
}

/// What an instance that runs was made of: the version that its group shows for it, with the type and image that it has.
fn seed_launch(cloud: &AwsAccount, instance: Input, id: &str) -> InstanceLaunch {
    let mut launch = InstanceLaunch {
        custom: true,
        configuration: instance
            .get_text("LaunchConfigurationName")
            .map(str::to_owned),
        ..InstanceLaunch::default()
    };
    if let Some(named) = instance.get_input("LaunchTemplate") {
        let key = named.get_text("LaunchTemplateId").unwrap_or_default();
        let template = templates::find_template(cloud, key);
        let version = named.get_text("Version").unwrap_or("$Default");
        let version = template.and_then(|t| Some((t, templates::find_version(t, version)?)));
        if let Some((template, version)) = version {
            launch = launch_of_version(cloud, template, version).unwrap_or(launch);
        }
    }
    if let Some(known) = cloud.instances.get(id) {
        launch.image.clone_from(&known.image);
        launch.instance_type.clone_from(&known.instance_type);
    }
    launch
}

/// Access entries as the snapshot has them; where it has none, those of roles whose nodes are in the cluster.
fn seed_access(cloud: &mut AwsAccount, snapshot: &Snapshot) {
    let created = snapshot.inventory.taken_at;
    let entry = |principal: &str, kind: &str| AccessEntry {
        principal: principal.to_owned(),
        kind: kind.to_owned(),
        groups: match access_kind_for_nodes(kind) {
            true => vec!["system:nodes".to_owned()],
            false => Vec::new(),
        },
        username: access_kind_for_nodes(kind)
            .then(|| "system:node:{{EC2PrivateDNSName}}".to_owned()),
        tags: BTreeMap::new(),
        created,
    };
    let mut made: Map<String, Value> = Map::new();
    // EKS makes the entries of its own groups.
    let groups = cloud.eks.iter().flat_map(|e| e.nodegroups.values());
    let managed = groups.filter_map(|g| g.spec.get("nodeRole")?.as_str());
    for role in managed {
        made.insert(role.to_owned(), json!("EC2_LINUX"));
    }
    let told = snapshot.aws.get("eks:DescribeAccessEntry");
    match told {
        Some(items) => {
            for item in items.iter().map(Input) {
                let principal = item.get_text("principalArn").unwrap_or_default();
                let kind = item.get_text("type").unwrap_or("STANDARD");
                made.insert(principal.to_owned(), json!(kind));
            }
        }
        None => {
            let members = cloud.asgs.values().filter(|a| a.nodegroup.is_none());
            let members = members.flat_map(|a| a.members.values());
            for role in members.filter_map(|m| cloud.role_of(&m.launch)) {
                made.insert(role, json!("EC2_LINUX"));
            }
        }
    }
    let Some(eks) = &mut cloud.eks else { return };
    if eks.authentication_mode() == "CONFIG_MAP" {
        return;
    }
    for (principal, kind) in made {
        let kind = kind.as_str().unwrap_or_default();
        let made = entry(&principal, kind);
        eks.access_entries.insert(principal, made);
    }
}
