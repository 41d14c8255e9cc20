//! The cluster, its node groups and what is behind them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::model::aws_status::NodegroupStatus;
use crate::model::{Inventory, asg, eks};
use crate::twin::aws::ec2::{images, templates};
use crate::twin::aws::state::*;

fn seed_issues(issues: &[eks::HealthIssue]) -> Vec<EksIssue> {
    issues
        .iter()
        .map(|i| EksIssue {
            code: i.code.clone(),
            message: i.message.clone(),
            resources: i.resource_ids.clone(),
        })
        .collect()
}

/// A JSON value without members that are null, as EKS answers it.
fn without_nulls(value: impl serde::Serialize) -> Value {
    match serde_json::to_value(value) {
        Ok(Value::Object(map)) => map
            .into_iter()
            .filter(|(_, v)| !v.is_null())
            .collect::<Map<_, _>>()
            .into(),
        Ok(other) => other,
        Err(_) => Value::Null,
    }
}

/// A node group.
pub fn seed_nodegroup(
    cloud: &AwsAccount,
    inventory: &Inventory,
    group: &eks::Nodegroup,
) -> ManagedNodegroup {
    let mut spec = Map::new();
    // Members that are null or empty are left out, as EKS does not show them.
    let mut put = |member: &str, value: Value| {
        if !value.is_null() && value != json!([]) {
            spec.insert(member.to_owned(), value);
        }
    };
    put("capacityType", json!(group.capacity_type));
    put("instanceTypes", json!(group.instance_types));
    put("subnets", json!(group.subnets));
    put("amiType", json!(group.ami_type));
    put("nodeRole", json!(group.node_role));
    put("diskSize", json!(group.disk_size));
    put("remoteAccess", group.remote_access.as_ref().map_or(Value::Null, |r| without_nulls(json!({"ec2SshKey": r.ec2_ssh_key, "sourceSecurityGroups": r.source_security_groups}))));
    put(
        "updateConfig",
        group
            .update_config
            .as_ref()
            .map_or(Value::Null, without_nulls),
    );
    put(
        "nodeRepairConfig",
        group
            .node_repair_config
            .as_ref()
            .map_or(Value::Null, node_repair_spec),
    );
    put(
        "warmPoolConfig",
        group
            .warm_pool_config
            .as_ref()
            .map_or(Value::Null, without_nulls),
    );
    put(
        "launchTemplate",
        group
            .launch_template
            .as_ref()
            .map_or(Value::Null, without_nulls),
    );
    // An instance of the group is found by EKS's tag, because Auto Scaling groups are seeded later.
    let asg = group.asgs.first().cloned();
    let instance = cloud
        .instances
        .values()
        .find(|i| i.tags.get("eks:nodegroup-name") == Some(&group.name));
    let custom = group.ami_type.as_deref() == Some("CUSTOM");
    // A snapshot that lacks the version that the group names has the newest one stand for it.
    let of_template = group.launch_template.as_ref().and_then(|named| {
        let template = cloud.templates.get(named.id.as_ref()?)?;
        let version = named.version.as_deref().unwrap_or("$Default");
        templates::find_version(template, version).or(template.versions.last())
    });
    let data = |member: &str| {
        of_template
            .and_then(|v| v.data.get(member)?.as_str())
            .map(str::to_owned)
    };
    let version = group.version.unwrap_or(inventory.cluster.version);
    // A running instance tells the image and the type best, because a snapshot may say less of its group than of its
    // nodes.
    let launch = InstanceLaunch {
        template: instance
            .and_then(|i| i.tags.get("aws:ec2launchtemplate:id").cloned())
            .unwrap_or_default(),
        version: 1,
        image: instance
            .map(|i| i.image.clone())
            .or_else(|| data("ImageId"))
            .unwrap_or_else(|| {
                images::image_id(
                    version,
                    group
                        .ami_type
                        .as_deref()
                        .unwrap_or("AL2023_x86_64_STANDARD"),
                )
            }),
        instance_type: instance
            .map(|i| i.instance_type.clone())
            .or_else(|| group.instance_types.first().cloned())
            .or_else(|| data("InstanceType"))
            .unwrap_or_else(|| "t3.medium".into()),
        custom,
        user_data: data("UserData"),
        hop_limit: of_template.and_then(templates::metadata_hop_limit),
        ..InstanceLaunch::default()
    };
    let taints = group.taints.iter().map(without_nulls).collect();
    ManagedNodegroup {
        name: group.name.clone(),
        arn: group.arn.clone(),
        version,
        release: group.release_version.clone().unwrap_or_default(),
        status: group.status.to_string(),
        min: group.scaling.min.into(),
        max: group.scaling.max.into(),
        desired: group.scaling.desired.into(),
        labels: group.labels.clone(),
        taints,
        asg,
        degraded: group.status == NodegroupStatus::Degraded,
        health: seed_issues(&group.health),
        spec,
        tags: group.tags.clone(),
        created: group.created_at.unwrap_or(inventory.taken_at),
        modified: group.created_at.unwrap_or(inventory.taken_at),
        launch,
        deleting: None,
    }
}

fn node_repair_spec(config: &eks::NodeRepairConfig) -> Value {
    let overrides: Vec<Value> = config.overrides.iter().map(without_nulls).collect();
    let mut out = without_nulls(config);
    out["nodeRepairConfigOverrides"] = json!(overrides);
    if let Some(out) = out.as_object_mut() {
        out.remove("overrides");
    }
    out
}

/// The Auto Scaling groups, with their instances told whose they are.
pub fn seed_asgs(
    cloud: &mut AwsAccount,
    inventory: &Inventory,
    nodegroups: &BTreeMap<String, ManagedNodegroup>,
) {
    for group in inventory.asgs.values() {
        // Those of nobody are seeded by what AWS says of them.
        let Some(owner) = nodegroups
            .values()
            .find(|g| g.asg.as_ref() == Some(&group.name))
        else {
            continue;
        };
        // EKS's own two are on every group by themselves.
        // Hooks of others are kept, since they may hold an instance that is launched or ended.
        let hooks = inventory.lifecycle_hooks.get(&group.name);
        let others = hooks.into_iter().flatten();
        let others = others.filter(|h| !asg::EKS_HOOKS.contains(&h.name.as_str()));
        let hooks: Vec<&asg::LifecycleHook> = others.collect();
        let made = seed_asg(cloud, inventory.taken_at, (group, &hooks), owner);
        for id in made.members.keys() {
            if let Some(instance) = cloud.instances.get_mut(id) {
                instance.asg = Some(made.name.clone());
            }
        }
        cloud.asgs.insert(made.name.clone(), made);
    }
}

/// A lifecycle hook as DescribeLifecycleHooks shows it.
fn show_hook(asg: &str, hook: &asg::LifecycleHook) -> Value {
    json!({
        "LifecycleHookName": hook.name,
        "AutoScalingGroupName": asg,
        "LifecycleTransition": hook.transition,
        "HeartbeatTimeout": 3600,
        "GlobalTimeout": 172_800,
        "DefaultResult": hook.default_result,
        "NotificationTargetARN": hook.notifies,
    })
}

fn seed_asg(
    cloud: &mut AwsAccount,
    created: Timestamp,
    (group, hooks): (&asg::Asg, &[&asg::LifecycleHook]),
    owner: &ManagedNodegroup,
) -> AutoScalingGroup {
    let mut members = BTreeMap::new();
    for instance in &group.instances {
        let number = cloud.next_number();
        // The members' numbers are the order in which they came, by which the oldest is found.
        members.insert(
            instance.id.clone(),
            GroupMember {
                zone: instance.zone.clone(),
                lifecycle: instance.lifecycle.clone(),
                number,
                protected: instance.protected,
                launch: owner.launch.clone(),
                ..GroupMember::default()
            },
        );
    }
    let subnets = owner
        .spec
        .get("subnets")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    AutoScalingGroup {
        name: group.name.clone(),
        arn: group.arn.clone().unwrap_or_else(|| {
            format!(
                "arn:aws:autoscaling:{}:{}:autoScalingGroup:{}:autoScalingGroupName/{}",
                cloud.region, cloud.account, "00000000-0000-4000-8000-000000000000", group.name
            )
        }),
        nodegroup: Some(owner.name.clone()),
        min: group.min.into(),
        max: group.max.into(),
        desired: group.desired.into(),
        subnets: subnets
            .filter_map(|s| s.as_str().map(str::to_owned))
            .collect(),
        // New instances come from the group's launch data; those that are there keep what they were launched from.
        launch: owner.launch.clone(),
        members,
        target_groups: group
            .target_groups
            .iter()
            .map(|arn| (arn.clone(), "Added".to_owned()))
            .collect(),
        load_balancers: group.load_balancers.iter().cloned().collect(),
        suspended: group.suspended.iter().cloned().collect(),
        tags: group
            .tags
            .iter()
            .map(|t| (t.key.clone(), (t.value.clone(), t.propagate)))
            .collect(),
        hooks: hooks.iter().map(|h| show_hook(&group.name, h)).collect(),
        created,
        ..AutoScalingGroup::default()
    }
}

/// The cluster.
pub fn seed_cluster(
    inventory: &Inventory,
    versions: Vec<EksVersion>,
    nodegroups: BTreeMap<String, ManagedNodegroup>,
) -> EksCluster {
    let c = &inventory.cluster;
    let mut rest = Map::new();
    let issues_shown: Vec<Value> = c
        .health
        .iter()
        .map(|i| json!({"code": i.code, "message": i.message, "resourceIds": i.resource_ids}))
        .collect();
    // What DescribeCluster shows besides the version and the status is kept as one map of members.
    for (member, value) in [
        ("roleArn", json!(c.role_arn)),
        (
            "resourcesVpcConfig",
            without_nulls(json!({
                "subnetIds": c.subnet_ids,
                "securityGroupIds": c.security_group_ids,
                "clusterSecurityGroupId": c.cluster_security_group_id,
                "vpcId": c.vpc_id,
                "endpointPublicAccess": true,
                "endpointPrivateAccess": false,
                "publicAccessCidrs": ["0.0.0.0/0"],
            })),
        ),
        (
            "kubernetesNetworkConfig",
            without_nulls(
                json!({"serviceIpv4Cidr": c.service_ipv4_cidr, "ipFamily": c.ip_family.as_deref().unwrap_or("ipv4"), "elasticLoadBalancing": {"enabled": c.auto_mode}}),
            ),
        ),
        (
            "certificateAuthority",
            json!({"data": c.certificate_authority}),
        ),
        ("platformVersion", json!(c.platform_version)),
        ("health", json!({"issues": issues_shown})),
        (
            "accessConfig",
            json!({"authenticationMode": c.authentication_mode.as_deref().unwrap_or("API_AND_CONFIG_MAP")}),
        ),
        (
            "upgradePolicy",
            json!({"supportType": c.support_type.as_deref().unwrap_or("EXTENDED")}),
        ),
        (
            "computeConfig",
            if c.auto_mode {
                let account = c.arn.split(':').nth(4).unwrap_or_default();
                let role = format!("arn:aws:iam::{account}:role/AmazonEKSAutoNodeRole");
                json!({"enabled": true, "nodePools": ["general-purpose", "system"], "nodeRoleArn": role})
            } else {
                Value::Null
            },
        ),
        (
            "storageConfig",
            match c.auto_mode {
                true => json!({"blockStorage": {"enabled": true}}),
                false => Value::Null,
            },
        ),
        ("deletionProtection", json!(false)),
    ] {
        if !value.is_null() {
            rest.insert(member.to_owned(), value);
        }
    }
    EksCluster {
        name: c.name.clone(),
        arn: c.arn.clone(),
        version: c.version,
        status: c.status.to_string(),
        rest,
        endpoint: c.endpoint.clone().unwrap_or_default(),
        tags: c.tags.clone(),
        created: c.created_at.unwrap_or(inventory.taken_at),
        running: None,
        upgraded: None,
        updates: BTreeMap::new(),
        update_order: Vec::new(),
        nodegroups,
        addons: seed_addons(inventory),
        catalog: seed_catalog(inventory),
        versions,
        insights: seed_insights(inventory),
        refresh: InsightsRefreshTimes::default(),
        fargate: BTreeMap::new(),
        // The schemas that the snapshot kept stand in for what EKS would answer of each version.
        schemas: (inventory.addon_schemas.iter())
            .map(|(name, of)| {
                let of = of.iter().map(|(v, text)| (v.to_string(), text.clone()));
                (name.clone(), of.collect())
            })
            .collect(),
        access_entries: BTreeMap::new(),
        pod_identities: (inventory.pod_identities.iter().flatten())
            .map(|a| (a.namespace.clone(), a.service_account.clone()))
            .collect(),
        tokens: BTreeMap::new(),
    }
}

fn seed_addons(inventory: &Inventory) -> BTreeMap<String, InstalledAddon> {
    let cluster = &inventory.cluster;
    let base = cluster.arn.replace(":cluster/", ":addon/");
    let created = cluster.created_at.unwrap_or(inventory.taken_at);
    let of = |a: &eks::Addon| InstalledAddon {
        name: a.name.clone(),
        arn: format!("{base}/{}/00000000-0000-4000-8000-000000000000", a.name),
        version: a.version.clone(),
        status: a.status.to_string(),
        health: seed_issues(&a.health),
        role: a.service_account_role_arn.clone(),
        configuration: a.configuration_values.clone(),
        tags: BTreeMap::new(),
        created,
        modified: created,
    };
    inventory
        .addons
        .iter()
        .map(|a| (a.name.clone(), of(a)))
        .collect()
}

fn seed_catalog(inventory: &Inventory) -> BTreeMap<String, CatalogAddon> {
    let mut catalog: BTreeMap<String, CatalogAddon> = BTreeMap::new();
    for (name, minors) in &inventory.addon_catalog {
        // The kind of an add-on is only a filter, and is guessed from its name.
        let kind = if name.contains("csi") {
            "storage"
        } else if name.contains("identity") {
            "security"
        } else {
            "networking"
        };
        let offered = catalog.entry(name.clone()).or_default();
        offered.kind = kind.to_owned();
        // The catalogue lists versions by minor; here each version has its minors.
        for (minor, offers) in minors {
            for offer in offers {
                match offered
                    .versions
                    .iter_mut()
                    .find(|v| v.version == offer.version)
                {
                    Some(version) => {
                        version.minors.insert(*minor, offer.default);
                    }
                    None => offered.versions.push(CatalogAddonVersion {
                        version: offer.version.clone(),
                        minors: BTreeMap::from([(*minor, offer.default)]),
                        architectures: offer.architectures.clone(),
                        requires_configuration: offer.requires_configuration,
                        requires_iam: offer.requires_iam_permissions,
                    }),
                }
            }
        }
        // The newest version is first, as EKS lists them.
        offered.versions.sort_by(|a, b| b.version.cmp(&a.version));
    }
    catalog
}

fn seed_insights(inventory: &Inventory) -> Vec<ClusterInsight> {
    let of = |i: &eks::Insight| ClusterInsight {
        id: i.id.clone(),
        name: i.name.clone(),
        category: i.category.clone(),
        version: i.kubernetes_version,
        status: i.status.to_string(),
        reason: i.reason.clone(),
        description: i.description.clone(),
        recommendation: i.recommendation.clone().unwrap_or_default(),
        resources: i.resources.clone(),
        refreshed: i.last_refresh.unwrap_or(inventory.taken_at),
    };
    inventory.insights.iter().map(of).collect()
}
