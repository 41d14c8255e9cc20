//! The account as a snapshot says it is.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::ec2::images;
use super::elb::normal;
use super::state::*;
use crate::model::snapshot::Snapshot;
use crate::model::{Inventory, asg, eks, elb};

/// The account in `snapshot`.
pub fn cloud(snapshot: &Snapshot) -> Cloud {
    let inventory = &snapshot.inventory;
    let account = inventory.cluster.arn.split(':').nth(4).unwrap_or("123456789012").to_owned();
    let mut cloud = Cloud { account, region: inventory.region.clone(), ..Cloud::default() };
    seed_network(&mut cloud, snapshot);
    seed_templates(&mut cloud, inventory);
    let versions = seed_versions(inventory);
    for version in &versions {
        for kind in images::KINDS {
            let image = images::published(version.version, &version.patch, kind);
            cloud.images.insert(image.id.clone(), image);
        }
    }
    seed_images_in_use(&mut cloud, snapshot);
    let nodegroups = inventory.nodegroups.iter().map(|g| (g.name.clone(), nodegroup(&cloud, inventory, g))).collect();
    seed_asgs(&mut cloud, inventory, &nodegroups);
    cloud.eks = Some(cluster(inventory, versions, nodegroups));
    seed_elb(&mut cloud, inventory);
    cloud
}

fn seed_network(cloud: &mut Cloud, snapshot: &Snapshot) {
    let inventory = &snapshot.inventory;
    for subnet in &inventory.subnets {
        cloud.subnets.insert(
            subnet.id.clone(),
            Subnet {
                id: subnet.id.clone(),
                zone: subnet.zone.clone(),
                zone_id: subnet.zone_id.clone().unwrap_or_default(),
                vpc: subnet.vpc.clone().unwrap_or_default(),
                cidr: subnet.cidr.clone().unwrap_or_default(),
                free: subnet.free_ips.into(),
                given: 0,
            },
        );
    }
    for instance in &inventory.instances {
        let dns = instance.private_dns.clone().unwrap_or_default();
        let address = dns.split('.').next().unwrap_or_default().trim_start_matches("ip-").replace('-', ".");
        let subnet = instance.subnet.clone().unwrap_or_default();
        if let Some(subnet) = cloud.subnets.get_mut(&subnet) {
            subnet.given = subnet.given.max(offset(&subnet.cidr, &address));
        }
        cloud.instances.insert(
            instance.id.clone(),
            Instance {
                id: instance.id.clone(),
                instance_type: instance.instance_type.clone(),
                zone: instance.zone.clone(),
                subnet,
                image: instance.image.clone().unwrap_or_default(),
                state: instance.state.clone(),
                address,
                dns,
                tags: instance.tags.clone(),
                launched: inventory.taken_at,
                asg: None,
                never_joins: false,
                joined: instance.state == "running",
            },
        );
    }
    for volume in snapshot.kubernetes.get("/api/v1/persistentvolumes").into_iter().flatten() {
        let Some(handle) = volume.pointer("/spec/csi/volumeHandle").and_then(Value::as_str) else { continue };
        let terms = volume.pointer("/spec/nodeAffinity/required/nodeSelectorTerms/0/matchExpressions/0/values/0");
        cloud.volumes.insert(handle.to_owned(), terms.and_then(Value::as_str).unwrap_or_default().to_owned());
    }
}

/// How many addresses of a subnet are taken when `address` is the highest, the first four being AWS's.
fn offset(cidr: &str, address: &str) -> u32 {
    let number = |text: &str| text.parse::<std::net::Ipv4Addr>().map(u32::from).ok();
    let base = cidr.split('/').next().and_then(number);
    base.zip(number(address)).map_or(0, |(base, address)| address.saturating_sub(base).saturating_sub(3))
}

fn seed_templates(cloud: &mut Cloud, inventory: &Inventory) {
    for version in &inventory.launch_templates {
        let mut data = Map::new();
        for (member, value) in [("ImageId", &version.image), ("InstanceType", &version.instance_type), ("UserData", &version.user_data)] {
            if let Some(value) = value {
                data.insert(member.into(), json!(value));
            }
        }
        let template = cloud.templates.entry(version.id.clone()).or_insert_with(|| Template {
            id: version.id.clone(),
            name: version.name.clone().unwrap_or_else(|| version.id.clone()),
            default: version.version,
            versions: Vec::new(),
            created: inventory.taken_at,
        });
        let made = TemplateVersion { number: version.version, description: version.description.clone(), data, created: inventory.taken_at };
        template.versions.push(made);
        template.versions.sort_by_key(|v| v.number);
    }
    // The templates EKS made for its groups are known by the tags of their instances.
    for instance in &inventory.instances {
        let Some(id) = instance.tags.get("aws:ec2launchtemplate:id").filter(|id| !cloud.templates.contains_key(*id)) else { continue };
        let mut data = Map::new();
        data.insert("ImageId".into(), json!(instance.image));
        data.insert("InstanceType".into(), json!(instance.instance_type));
        let version = TemplateVersion { number: 1, description: None, data, created: inventory.taken_at };
        let name = instance.tags.get("aws:autoscaling:groupName").cloned().unwrap_or_else(|| id.clone());
        let template = Template { id: id.clone(), name, default: 1, versions: vec![version], created: inventory.taken_at };
        cloud.templates.insert(id.clone(), template);
    }
}

fn seed_versions(inventory: &Inventory) -> Vec<Version> {
    let of = |v: &eks::ClusterVersion| Version {
        version: v.version,
        status: v.status.clone(),
        default: v.default,
        patch: v.patch.clone().unwrap_or_else(|| format!("{}.0", v.version)),
        end_of_standard: v.end_of_standard_support,
        end_of_extended: v.end_of_extended_support,
    };
    inventory.cluster_versions.iter().map(of).collect()
}

/// AMIs that nodes run and nobody publishes any more, or never did: their kubelets are known by their nodes.
fn seed_images_in_use(cloud: &mut Cloud, snapshot: &Snapshot) {
    for node in snapshot.kubernetes.get("/api/v1/nodes").into_iter().flatten() {
        let text = |pointer: &str| node.pointer(pointer).and_then(Value::as_str);
        let id = text("/spec/providerID").and_then(|p| p.rsplit('/').next());
        let Some(instance) = id.and_then(|id| cloud.instances.get(id)) else { continue };
        let kubelet = text("/status/nodeInfo/kubeletVersion").unwrap_or_default().trim_start_matches('v');
        let kubelet = kubelet.split('-').next().unwrap_or_default().to_owned();
        let image = Image {
            id: instance.image.clone(),
            name: format!("image-in-use-{kubelet}"),
            arm: images::is_arm(&instance.instance_type),
            kubelet,
            owner: cloud.account.clone(),
        };
        cloud.images.entry(image.id.clone()).or_insert(image);
    }
}

fn issues(issues: &[eks::HealthIssue]) -> Vec<Issue> {
    issues.iter().map(|i| Issue { code: i.code.clone(), message: i.message.clone(), resources: i.resource_ids.clone() }).collect()
}

/// A JSON value without members that are null, as EKS answers it.
fn compact(value: impl serde::Serialize) -> Value {
    match serde_json::to_value(value) {
        Ok(Value::Object(map)) => map.into_iter().filter(|(_, v)| !v.is_null()).collect::<Map<_, _>>().into(),
        Ok(other) => other,
        Err(_) => Value::Null,
    }
}

fn nodegroup(cloud: &Cloud, inventory: &Inventory, group: &eks::Nodegroup) -> Nodegroup {
    let mut spec = Map::new();
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
    put("remoteAccess", group.remote_access.as_ref().map_or(Value::Null, |r| compact(json!({"ec2SshKey": r.ec2_ssh_key, "sourceSecurityGroups": r.source_security_groups}))));
    put("updateConfig", group.update_config.as_ref().map_or(Value::Null, compact));
    put("nodeRepairConfig", group.node_repair_config.as_ref().map_or(Value::Null, node_repair));
    put("warmPoolConfig", group.warm_pool_config.as_ref().map_or(Value::Null, compact));
    put("launchTemplate", group.launch_template.as_ref().map_or(Value::Null, compact));
    let asg = group.asgs.first().cloned();
    let instance = cloud.instances.values().find(|i| i.tags.get("eks:nodegroup-name") == Some(&group.name));
    let custom = group.ami_type.as_deref() == Some("CUSTOM");
    let of_template = group.launch_template.as_ref().and_then(|t| t.id.as_ref()).and_then(|id| cloud.templates.get(id)?.versions.last());
    let data = |member: &str| of_template.and_then(|v| v.data.get(member)?.as_str()).map(str::to_owned);
    let version = group.version.unwrap_or(inventory.cluster.version);
    let launch = Launch {
        template: instance.and_then(|i| i.tags.get("aws:ec2launchtemplate:id").cloned()).unwrap_or_default(),
        version: 1,
        image: instance.map(|i| i.image.clone()).or_else(|| data("ImageId")).unwrap_or_else(|| images::of(version, group.ami_type.as_deref().unwrap_or("AL2023_x86_64_STANDARD"))),
        instance_type: instance.map(|i| i.instance_type.clone()).or_else(|| group.instance_types.first().cloned()).or_else(|| data("InstanceType")).unwrap_or_else(|| "t3.medium".into()),
        custom,
    };
    let taints = group.taints.iter().map(compact).collect();
    Nodegroup {
        name: group.name.clone(),
        arn: group.arn.clone(),
        version,
        release: group.release_version.clone().unwrap_or_default(),
        status: group.status.clone(),
        min: group.scaling.min.into(),
        max: group.scaling.max.into(),
        desired: group.scaling.desired.into(),
        labels: group.labels.clone(),
        taints,
        asg,
        health: issues(&group.health),
        spec,
        tags: group.tags.clone(),
        created: group.created_at.unwrap_or(inventory.taken_at),
        modified: group.created_at.unwrap_or(inventory.taken_at),
        launch,
        deleting: None,
    }
}

fn node_repair(config: &eks::NodeRepairConfig) -> Value {
    let overrides: Vec<Value> = config.overrides.iter().map(compact).collect();
    let mut out = compact(config);
    out["nodeRepairConfigOverrides"] = json!(overrides);
    if let Some(out) = out.as_object_mut() {
        out.remove("overrides");
    }
    out
}

fn seed_asgs(cloud: &mut Cloud, inventory: &Inventory, nodegroups: &BTreeMap<String, Nodegroup>) {
    for group in inventory.asgs.values() {
        let Some(owner) = nodegroups.values().find(|g| g.asg.as_ref() == Some(&group.name)) else { continue };
        let made = auto_scaling_group(cloud, inventory.taken_at, group, owner);
        for id in made.members.keys() {
            if let Some(instance) = cloud.instances.get_mut(id) {
                instance.asg = Some(made.name.clone());
            }
        }
        cloud.asgs.insert(made.name.clone(), made);
    }
}

fn auto_scaling_group(cloud: &mut Cloud, created: Timestamp, group: &asg::Asg, owner: &Nodegroup) -> Asg {
    let mut members = BTreeMap::new();
    for instance in &group.instances {
        let number = cloud.next_number();
        members.insert(instance.id.clone(), Member { zone: instance.zone.clone(), lifecycle: instance.lifecycle.clone(), number });
    }
    let subnets = owner.spec.get("subnets").and_then(Value::as_array).into_iter().flatten();
    Asg {
        name: group.name.clone(),
        arn: format!("arn:aws:autoscaling:{}:{}:autoScalingGroup:{}:autoScalingGroupName/{}", cloud.region, cloud.account, "00000000-0000-4000-8000-000000000000", group.name),
        nodegroup: owner.name.clone(),
        min: group.min.into(),
        max: group.max.into(),
        desired: group.desired.into(),
        subnets: subnets.filter_map(|s| s.as_str().map(str::to_owned)).collect(),
        launch: owner.launch.clone(),
        members,
        target_groups: group.target_groups.iter().map(|arn| (arn.clone(), "Added".to_owned())).collect(),
        suspended: group.suspended.iter().cloned().collect(),
        tags: group.tags.iter().map(|t| (t.key.clone(), (t.value.clone(), t.propagate))).collect(),
        created,
        failed_launch: None,
    }
}

fn cluster(inventory: &Inventory, versions: Vec<Version>, nodegroups: BTreeMap<String, Nodegroup>) -> Eks {
    let c = &inventory.cluster;
    let mut rest = Map::new();
    let issues_shown: Vec<Value> = c.health.iter().map(|i| json!({"code": i.code, "message": i.message, "resourceIds": i.resource_ids})).collect();
    for (member, value) in [
        ("roleArn", json!(c.role_arn)),
        (
            "resourcesVpcConfig",
            compact(json!({
                "subnetIds": c.subnet_ids,
                "securityGroupIds": c.security_group_ids,
                "clusterSecurityGroupId": c.cluster_security_group_id,
                "vpcId": c.vpc_id,
                "endpointPublicAccess": true,
                "endpointPrivateAccess": false,
                "publicAccessCidrs": ["0.0.0.0/0"],
            })),
        ),
        ("kubernetesNetworkConfig", compact(json!({"serviceIpv4Cidr": c.service_ipv4_cidr, "ipFamily": "ipv4", "elasticLoadBalancing": {"enabled": c.auto_mode}}))),
        ("certificateAuthority", json!({"data": c.certificate_authority})),
        ("platformVersion", json!(c.platform_version)),
        ("health", json!({"issues": issues_shown})),
        ("accessConfig", json!({"authenticationMode": c.authentication_mode.as_deref().unwrap_or("API_AND_CONFIG_MAP")})),
        ("upgradePolicy", json!({"supportType": c.support_type.as_deref().unwrap_or("EXTENDED")})),
        ("computeConfig", if c.auto_mode { json!({"enabled": true, "nodePools": ["general-purpose", "system"]}) } else { Value::Null }),
        ("deletionProtection", json!(false)),
    ] {
        if !value.is_null() {
            rest.insert(member.to_owned(), value);
        }
    }
    Eks {
        name: c.name.clone(),
        arn: c.arn.clone(),
        version: c.version,
        status: c.status.clone(),
        rest,
        endpoint: c.endpoint.clone().unwrap_or_default(),
        tags: c.tags.clone(),
        created: c.created_at.unwrap_or(inventory.taken_at),
        running: None,
        upgraded: None,
        updates: BTreeMap::new(),
        update_order: Vec::new(),
        nodegroups,
        addons: addons(inventory),
        catalog: catalog(inventory),
        versions,
        insights: insights(inventory),
        refresh: Refresh::default(),
        fargate: inventory.fargate_profiles.clone(),
        tokens: BTreeMap::new(),
    }
}

fn addons(inventory: &Inventory) -> BTreeMap<String, Addon> {
    let cluster = &inventory.cluster;
    let base = cluster.arn.replace(":cluster/", ":addon/");
    let created = cluster.created_at.unwrap_or(inventory.taken_at);
    let of = |a: &eks::Addon| Addon {
        name: a.name.clone(),
        arn: format!("{base}/{}/00000000-0000-4000-8000-000000000000", a.name),
        version: a.version.clone(),
        status: a.status.clone(),
        health: issues(&a.health),
        role: a.service_account_role_arn.clone(),
        configuration: a.configuration_values.clone(),
        tags: BTreeMap::new(),
        created,
        modified: created,
    };
    inventory.addons.iter().map(|a| (a.name.clone(), of(a))).collect()
}

fn catalog(inventory: &Inventory) -> BTreeMap<String, Offered> {
    let mut catalog: BTreeMap<String, Offered> = BTreeMap::new();
    for (name, minors) in &inventory.addon_catalog {
        let kind = if name.contains("csi") { "storage" } else if name.contains("identity") { "security" } else { "networking" };
        let offered = catalog.entry(name.clone()).or_default();
        offered.kind = kind.to_owned();
        for (minor, offers) in minors {
            for offer in offers {
                match offered.versions.iter_mut().find(|v| v.version == offer.version) {
                    Some(version) => {
                        version.minors.insert(*minor, offer.default);
                    }
                    None => offered.versions.push(OfferedVersion {
                        version: offer.version.clone(),
                        minors: BTreeMap::from([(*minor, offer.default)]),
                        architectures: offer.architectures.clone(),
                        requires_configuration: offer.requires_configuration,
                        requires_iam: offer.requires_iam_permissions,
                    }),
                }
            }
        }
        offered.versions.sort_by(|a, b| b.version.cmp(&a.version));
    }
    catalog
}

fn insights(inventory: &Inventory) -> Vec<Insight> {
    let of = |i: &eks::Insight| Insight {
        id: i.id.clone(),
        name: i.name.clone(),
        category: i.category.clone(),
        version: i.kubernetes_version,
        status: i.status.clone(),
        reason: i.reason.clone(),
        description: i.description.clone(),
        recommendation: i.recommendation.clone().unwrap_or_default(),
        resources: i.resources.clone(),
        refreshed: i.last_refresh.unwrap_or(inventory.taken_at),
    };
    inventory.insights.iter().map(of).collect()
}

fn seed_elb(cloud: &mut Cloud, inventory: &Inventory) {
    let out = &mut cloud.elb;
    for b in &inventory.load_balancers {
        let made = Balancer { arn: b.arn.clone(), name: b.name.clone(), kind: b.kind.clone(), dns: b.dns_name.clone().unwrap_or_default(), vpc: b.vpc.clone().unwrap_or_default(), zones: b.zones.clone() };
        out.balancers.insert(b.arn.clone(), made);
        out.tags.insert(b.arn.clone(), b.tags.clone());
    }
    for l in &inventory.listeners {
        let made = Listener { arn: l.arn.clone(), balancer: l.load_balancer.clone(), port: l.port.unwrap_or(80).into(), protocol: l.protocol.clone().unwrap_or_else(|| "HTTP".into()), actions: Vec::new() };
        out.listeners.insert(l.arn.clone(), made);
        out.tags.insert(l.arn.clone(), l.tags.clone());
    }
    for rule in &inventory.rules {
        seed_rule(out, rule);
    }
    for group in &inventory.target_groups {
        let health = inventory.target_health.get(&group.arn).map(Vec::as_slice).unwrap_or_default();
        let made = target_group(group, health);
        out.tags.insert(group.arn.clone(), group.tags.clone());
        out.groups.insert(group.arn.clone(), made);
    }
}

/// The rule's actions with its target groups put back in.
fn actions(rule: &elb::Rule) -> Vec<Value> {
    let groups: Vec<Value> = rule.forward.iter().map(|f| json!({"TargetGroupArn": f.arn, "Weight": f.weight})).collect();
    let mut actions = rule.rest.get("Actions").and_then(Value::as_array).cloned().unwrap_or_default();
    let forward = actions.iter_mut().find(|a| a.get("Type").and_then(Value::as_str) == Some("forward"));
    match forward.and_then(Value::as_object_mut) {
        Some(forward) => {
            let config = forward.entry("ForwardConfig").or_insert_with(|| json!({}));
            config["TargetGroups"] = json!(groups);
        }
        None if !groups.is_empty() => actions.push(json!({"Type": "forward", "ForwardConfig": {"TargetGroups": groups}})),
        None => {}
    }
    normal(&actions)
}

fn seed_rule(out: &mut Elb, rule: &elb::Rule) {
    let (actions, list) = (actions(rule), |member: &str| rule.rest.get(member).and_then(Value::as_array).cloned().unwrap_or_default());
    if rule.is_default {
        if let Some(listener) = out.listeners.get_mut(&rule.listener) {
            listener.actions = actions;
        }
        // A network load balancer's default action has no rule of its own.
        if rule.arn == rule.listener {
            return;
        }
        out.rules.insert(rule.arn.clone(), Rule { arn: rule.arn.clone(), listener: rule.listener.clone(), priority: "default".into(), conditions: Vec::new(), actions: Vec::new(), transforms: Vec::new(), default: true });
    } else {
        let made = Rule { arn: rule.arn.clone(), listener: rule.listener.clone(), priority: rule.priority.clone(), conditions: list("Conditions"), actions, transforms: list("Transforms"), default: false };
        out.rules.insert(rule.arn.clone(), made);
    }
    out.tags.insert(rule.arn.clone(), rule.tags.clone());
}

fn target_group(group: &elb::TargetGroup, health: &[elb::TargetHealth]) -> TargetGroup {
    let port = i64::from(group.port.unwrap_or(80));
    let mut targets = BTreeMap::new();
    for target in health {
        let state = match target.state.as_str() {
            "healthy" => TargetState::Healthy,
            "unhealthy" => TargetState::Unhealthy("Target.FailedHealthChecks"),
            "draining" | "unused" if target.reason.as_deref() == Some("Target.NotRegistered") => continue,
            "draining" => TargetState::Draining,
            _ => TargetState::Initial,
        };
        targets.insert((target.id.clone(), target.port.map_or(port, i64::from)), Target { state, ..Target::default() });
    }
    let attributes = [
        ("deregistration_delay.timeout_seconds", group.deregistration_delay_seconds.to_string()),
        ("load_balancing.algorithm.type", "round_robin".to_owned()),
        ("load_balancing.cross_zone.enabled", "use_load_balancer_configuration".to_owned()),
        ("slow_start.duration_seconds", "0".to_owned()),
        ("stickiness.enabled", group.sticky.to_string()),
        ("stickiness.type", "lb_cookie".to_owned()),
        ("stickiness.lb_cookie.duration_seconds", "86400".to_owned()),
        ("target_group_health.unhealthy_state_routing.minimum_healthy_targets.count", "1".to_owned()),
    ];
    TargetGroup {
        arn: group.arn.clone(),
        name: group.name.clone(),
        protocol: group.protocol.clone().unwrap_or_else(|| "HTTP".into()),
        port,
        target_type: group.target_type.clone(),
        vpc: group.vpc.clone().unwrap_or_default(),
        interval: group.health_check_interval_seconds.into(),
        healthy_threshold: group.healthy_threshold.into(),
        unhealthy_threshold: group.unhealthy_threshold.into(),
        attributes: attributes.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
        targets,
        checked: false,
    }
}
