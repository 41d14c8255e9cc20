//! What eksctl has to be told: a part of its ClusterConfig, and what becomes of blue's stack.

use super::facts::GroupKind;
use super::facts::{AddonFact, BlueState, HandbackFacts, Reading, ReplacedGroup};
use super::parts::{HandbackFile, HandbackStep, shell_word};
use super::yaml::{YamlItem, YamlValue, write_yaml};
use crate::model::eks::{NodeRepairConfig, Nodegroup, NodegroupTaint};

const NOT_ANSWERED: &str = "which EKS did not answer";

/// The file, and the steps.
pub fn tell_eksctl(
    facts: &HandbackFacts,
    groups: &[&ReplacedGroup],
) -> (Vec<HandbackFile>, Vec<HandbackStep>) {
    let file = HandbackFile {
        name: "clusterconfig.yaml".to_owned(),
        language: "yaml",
        text: write_yaml(&cluster_config(facts, groups)),
    };
    let (cluster, region) = (shell_word(&facts.cluster), &facts.region);
    let mut steps = vec![
        HandbackStep::with_command(
            "eksctl reads node groups from EKS, so that green is listed; it has no stack, and none is needed to scale, upgrade, drain or delete it.",
            format!("eksctl get nodegroup --cluster {cluster} --region {region}"),
        ),
        HandbackStep::of(
            "Bring what clusterconfig.yaml has into your ClusterConfig: the version, green in `managedNodeGroups`, and blue out of it.",
        ),
    ];
    for group in groups {
        steps.extend(stack_steps(facts, group));
    }
    (vec![file], steps)
}

fn cluster_config(facts: &HandbackFacts, groups: &[&ReplacedGroup]) -> Vec<YamlItem> {
    let mut items = vec![
        YamlItem::comment(format!(
            "For {} after eksup's run {}: a part of the ClusterConfig that the file of your cluster should have.",
            facts.cluster, facts.run
        )),
        YamlItem::text("apiVersion", "eksctl.io/v1alpha5"),
        YamlItem::text("kind", "ClusterConfig"),
        YamlItem::map(
            "metadata",
            vec![
                YamlItem::text("name", &facts.cluster),
                YamlItem::text("region", &facts.region),
                YamlItem::text("version", facts.version.to_string()),
            ],
        ),
    ];
    let addons: Vec<&AddonFact> = facts.moved_addons().collect();
    let mut known = Vec::new();
    for addon in addons {
        match &addon.now {
            Reading::Known(now) => known.push(YamlValue::Map(vec![
                YamlItem::text("name", &addon.name),
                YamlItem::text("version", now.to_string()),
            ])),
            Reading::Unknown(why) => items.push(YamlItem::unknown(
                &format!("the version of add-on {}", addon.name),
                why,
            )),
        }
    }
    if !known.is_empty() {
        items.push(YamlItem::list("addons", known));
    }
    let mut managed = Vec::new();
    for group in groups {
        let name = &group.moved.green;
        match (&group.green, group.moved.source) {
            (Reading::Unknown(why), _) => {
                items.push(YamlItem::unknown(&format!("all of {name}"), why));
            }
            // eksctl knows a self-managed group by its stack alone, and a clone has none.
            (Reading::Known(_), GroupKind::AutoScalingGroup) => {
                items.push(YamlItem::comment(format!(
                    "{name} is a self-managed Auto Scaling group without a stack: eksctl cannot have it, so that its place in `nodeGroups` stays empty."
                )));
            }
            (Reading::Known(green), GroupKind::ManagedGroup) => {
                managed.push(YamlValue::Map(managed_group(green)));
            }
        }
    }
    if !managed.is_empty() {
        items.push(YamlItem::list("managedNodeGroups", managed));
    }
    items
}

fn managed_group(green: &Nodegroup) -> Vec<YamlItem> {
    let mut items = vec![YamlItem::text("name", &green.name)];
    let has_template = green.launch_template.is_some();
    let custom = green.ami_type.as_deref() == Some("CUSTOM");
    match green.ami_type.as_deref().map(ami_family) {
        _ if custom => items.push(YamlItem::comment(
            "Left out, as the launch template decides on the image: amiFamily, releaseVersion",
        )),
        Some(Some(family)) => items.push(YamlItem::text("amiFamily", family)),
        Some(None) => items.push(YamlItem::unknown(
            "amiFamily",
            &format!(
                "as EKS answers the image type {}",
                green.ami_type.as_deref().unwrap_or_default()
            ),
        )),
        None => items.push(YamlItem::unknown("amiFamily", NOT_ANSWERED)),
    }
    match &green.release_version {
        _ if custom => {}
        Some(release) => items.push(YamlItem::text("releaseVersion", release)),
        None => items.push(YamlItem::unknown("releaseVersion", NOT_ANSWERED)),
    }
    match green.instance_types.as_slice() {
        [] if has_template => items.push(YamlItem::comment(
            "Left out, as the launch template decides: instanceType",
        )),
        [] => items.push(YamlItem::unknown("instanceType", NOT_ANSWERED)),
        [only] => items.push(YamlItem::text("instanceType", only)),
        types => items.push(YamlItem::texts("instanceTypes", types)),
    }
    match green.capacity_type.as_deref() {
        Some("SPOT") => items.push(YamlItem::flag("spot", true)),
        Some("ON_DEMAND") => {}
        Some(other) => items.push(YamlItem::unknown(
            "capacityReservation",
            &format!("of a group with the capacity type {other}"),
        )),
        None => items.push(YamlItem::unknown("spot", NOT_ANSWERED)),
    }
    items.push(YamlItem::number("minSize", green.scaling.min));
    items.push(YamlItem::number("maxSize", green.scaling.max));
    items.push(YamlItem::number("desiredCapacity", green.scaling.desired));
    // With a launch template eksctl takes neither disks nor keys.
    if let (false, Some(size)) = (has_template, green.disk_size) {
        items.push(YamlItem::number("volumeSize", size));
    }
    items.push(YamlItem::texts("subnets", &green.subnets));
    if !green.labels.is_empty() {
        items.push(YamlItem::strings("labels", &green.labels));
    }
    if !green.taints.is_empty() {
        let taints = green.taints.iter().map(taint).collect();
        items.push(YamlItem::list("taints", taints));
    }
    let tags = green.tags.iter().filter(|(k, _)| !k.starts_with("aws:"));
    items.push(YamlItem::strings("tags", tags));
    match &green.node_role {
        Some(role) => items.push(YamlItem::map(
            "iam",
            vec![YamlItem::text("instanceRoleARN", role)],
        )),
        None => items.push(YamlItem::unknown("iam.instanceRoleARN", NOT_ANSWERED)),
    }
    if let Some(template) = &green.launch_template {
        match &template.id {
            Some(id) => {
                let mut launch = vec![YamlItem::text("id", id)];
                let version = template.version.iter();
                launch.extend(version.map(|v| YamlItem::text("version", v)));
                items.push(YamlItem::map("launchTemplate", launch));
            }
            None => items.push(YamlItem::unknown("launchTemplate.id", NOT_ANSWERED)),
        }
    }
    if let Some(update) = &green.update_config {
        let config = match (update.max_unavailable, update.max_unavailable_percentage) {
            (Some(count), _) => Some(("maxUnavailable", count)),
            (None, Some(percent)) => Some(("maxUnavailablePercentage", percent)),
            (None, None) => None,
        };
        items.extend(
            config.map(|(key, n)| YamlItem::map("updateConfig", vec![YamlItem::number(key, n)])),
        );
    }
    if let Some(repair) = &green.node_repair_config {
        items.push(YamlItem::map("nodeRepairConfig", repair_config(repair)));
    }
    if let (false, Some(access)) = (has_template, &green.remote_access) {
        let mut ssh = vec![YamlItem::flag("allow", true)];
        let key = access.ec2_ssh_key.iter();
        ssh.extend(key.map(|key| YamlItem::text("publicKeyName", key)));
        if !access.source_security_groups.is_empty() {
            ssh.push(YamlItem::texts(
                "sourceSecurityGroupIds",
                &access.source_security_groups,
            ));
        }
        items.push(YamlItem::map("ssh", ssh));
    }
    items
}

fn taint(taint: &NodegroupTaint) -> YamlValue {
    let mut items = vec![YamlItem::text("key", &taint.key)];
    items.extend(taint.value.as_ref().map(|v| YamlItem::text("value", v)));
    // eksctl spells effects as Kubernetes does.
    let effect = match taint.effect.as_str() {
        "NO_SCHEDULE" => "NoSchedule",
        "NO_EXECUTE" => "NoExecute",
        "PREFER_NO_SCHEDULE" => "PreferNoSchedule",
        other => other,
    };
    items.push(YamlItem::text("effect", effect));
    YamlValue::Map(items)
}

/// Node auto repair, which Pulumi spells as eksctl does.
pub fn repair_config(repair: &NodeRepairConfig) -> Vec<YamlItem> {
    let mut items = vec![YamlItem::flag("enabled", repair.enabled)];
    let numbers = [
        (
            "maxUnhealthyNodeThresholdCount",
            repair.max_unhealthy_node_threshold_count,
        ),
        (
            "maxUnhealthyNodeThresholdPercentage",
            repair.max_unhealthy_node_threshold_percentage,
        ),
        (
            "maxParallelNodesRepairedCount",
            repair.max_parallel_nodes_repaired_count,
        ),
        (
            "maxParallelNodesRepairedPercentage",
            repair.max_parallel_nodes_repaired_percentage,
        ),
    ];
    for (key, number) in numbers {
        items.extend(number.map(|n| YamlItem::number(key, n)));
    }
    let overrides = repair.overrides.iter().map(|rule| {
        let texts = [
            ("nodeMonitoringCondition", &rule.node_monitoring_condition),
            ("nodeUnhealthyReason", &rule.node_unhealthy_reason),
            ("repairAction", &rule.repair_action),
        ];
        let mut items: Vec<YamlItem> = texts
            .into_iter()
            .filter_map(|(key, text)| Some(YamlItem::text(key, text.as_ref()?)))
            .collect();
        let wait = rule.min_repair_wait_time_mins;
        items.extend(wait.map(|n| YamlItem::number("minRepairWaitTimeMins", n)));
        YamlValue::Map(items)
    });
    if !repair.overrides.is_empty() {
        items.push(YamlItem::list(
            "nodeRepairConfigOverrides",
            overrides.collect(),
        ));
    }
    items
}

/// eksctl's name of an image family; none for a type that it does not make.
fn ami_family(ami_type: &str) -> Option<&'static str> {
    Some(match ami_type {
        t if t.starts_with("AL2023_") => "AmazonLinux2023",
        t if t.starts_with("AL2_") => "AmazonLinux2",
        t if t.starts_with("BOTTLEROCKET_") && t.contains("FIPS") => "BottlerocketFips",
        t if t.starts_with("BOTTLEROCKET_") => "Bottlerocket",
        "WINDOWS_CORE_2019_x86_64" => "WindowsServer2019CoreContainer",
        "WINDOWS_FULL_2019_x86_64" => "WindowsServer2019FullContainer",
        "WINDOWS_CORE_2022_x86_64" => "WindowsServer2022CoreContainer",
        "WINDOWS_FULL_2022_x86_64" => "WindowsServer2022FullContainer",
        "WINDOWS_CORE_2025_x86_64" => "WindowsServer2025CoreContainer",
        "WINDOWS_FULL_2025_x86_64" => "WindowsServer2025FullContainer",
        _ => return None,
    })
}

/// What becomes of blue's stack. It is never deleted behind eksctl's back, and seldom at once: green has the role and the
/// launch template that are in it.
fn stack_steps(facts: &HandbackFacts, group: &ReplacedGroup) -> Vec<HandbackStep> {
    let blue = &group.moved.blue;
    let stack = group.moved.owner.as_ref().and_then(|o| o.stack());
    let Some(stack) = stack else {
        return vec![HandbackStep::of(format!(
            "Unknown: which CloudFormation stack {blue} was in. By eksctl's rule it is `eksctl-{}-nodegroup-{blue}`.",
            facts.cluster
        ))];
    };
    let region = &facts.region;
    let word = shell_word(stack);
    let resources = format!(
        "aws cloudformation describe-stack-resources --region {region} --stack-name {word} --output table"
    );
    let mut steps = Vec::new();
    if group.deleted_stack().is_some() {
        let used = match &group.green {
            Reading::Known(green) => stack_parts_of_green(green, stack),
            Reading::Unknown(_) => Vec::new(),
        };
        let used = match used.as_slice() {
            [] => String::new(),
            used => format!(" Green uses {}.", used.join(", ")),
        };
        steps.push(HandbackStep::of(format!(
            "The run deleted stack {stack} with {blue}. What else it held is kept and belongs to no stack now: delete it by hand once no group uses it.{used}"
        )));
        return steps;
    }
    if let BlueState::There(_) = group.blue {
        steps.push(HandbackStep::with_command(
            format!("{blue} is still there and is the stack's. Look first whether green uses a role or a launch template of the stack: deleting it would take them from green."),
            resources,
        ));
        return steps;
    }
    let used = match &group.green {
        Reading::Known(green) => stack_parts_of_green(green, stack),
        Reading::Unknown(_) => Vec::new(),
    };
    let what = match used.as_slice() {
        [] => format!(
            "Stack {stack} was {blue}'s and is left, with a group that is gone. See what else is in it, such as a role or a launch template that green has from blue."
        ),
        used => format!(
            "Stack {stack} was {blue}'s and is left, with a group that is gone. Do not delete it while green uses what is in it: {}.",
            used.join(", ")
        ),
    };
    steps.push(HandbackStep::with_command(what, resources));
    steps.push(HandbackStep::with_command(
        format!(
            "Only once no group uses any of that: delete the stack. `eksctl delete nodegroup --name {blue}` does the same."
        ),
        format!("aws cloudformation delete-stack --region {region} --stack-name {word}"),
    ));
    steps
}

/// What of the stack green uses, by the names that eksctl's template gives: the launch template is called as the stack is,
/// and CloudFormation names the role after the stack and its place in the template.
fn stack_parts_of_green(green: &Nodegroup, stack: &str) -> Vec<String> {
    let mut used = Vec::new();
    let role = green
        .node_role
        .as_deref()
        .and_then(|r| r.rsplit('/').next());
    // A long stack's name is cut in the role's.
    if let Some(role) = role
        && let Some((begin, _)) = role.split_once("-NodeInstanceRole-")
        && stack.starts_with(begin)
    {
        used.push(format!("role {role}"));
    }
    let template = green.launch_template.as_ref();
    if let Some(name) = template.and_then(|t| t.name.as_ref())
        && name == stack
    {
        used.push(format!("launch template {name}"));
    }
    used
}
